"""What `deploy/` holds fits the commands that it calls."""

import json
import re
import runpy
import shlex
import subprocess
import sys
import types
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import tfctr
from tests.frameworks.ecdctr.test_rollout import BY_DAY, day, write_configs, write_logs
from tests.serving.raw_rows import small_version
from tfctr.cli import app
from tfctr.frameworks.ecdctr.commands import MISSING_DAY
from tfctr.serving import Server
from tfctr.serving.tf_serving_config import MONITORING, ServingConfig

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def test_the_airflow_example_takes_the_step_of_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins for Airflow, which is not installed here."""
    found: dict[str, Any] = {}

    class DAG:
        def __init__(self, dag_id: str, **settings: Any) -> None:
            found["dag"] = settings

        def __enter__(self) -> "DAG":
            return self

        def __exit__(self, *_: Any) -> None: ...

    names = [
        "airflow",
        "airflow.sdk",
        "airflow.providers",
        "airflow.providers.standard",
        "airflow.providers.standard.operators",
        "airflow.providers.standard.operators.bash",
    ]
    modules = {name: types.ModuleType(name) for name in names}
    modules["airflow.sdk"].DAG = DAG  # type: ignore[attr-defined]
    modules[names[-1]].BashOperator = lambda **task: found.update(task=task)  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    modules["airflow.sdk"].CronDataIntervalTimetable = lambda *a, **k: a  # type: ignore[attr-defined]
    runpy.run_path(str(DEPLOY / "airflow" / "ads_rollout.py"))
    assert found["dag"]["max_active_runs"] == 1
    assert found["task"]["depends_on_past"]

    write_logs(tmp_path, [1, 2, 3, 4])  # the step of the fifth needs its rows
    write_configs(tmp_path, tiny=None, complete=None, data={"source": BY_DAY})
    command = found["task"]["bash_command"].replace("{{ data_interval_start | ds }}", str(day(5)))
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(app, shlex.split(command)[1:])
    assert ended.exit_code == MISSING_DAY, ended.output


def _containers() -> dict[str, dict[str, Any]]:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    documents = yaml.safe_load_all((DEPLOY / "kubernetes" / "tf-serving.yaml").read_text())
    deployment = next(found for found in documents if found["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {"compose": compose["services"]["tf-serving"], "kubernetes": container}


def test_tf_serving_is_started_with_the_files_that_label_writes(tmp_path: Path) -> None:
    (tmp_path / "saved_models" / "m" / "1").mkdir(parents=True)
    labelled = CliRunner().invoke(app, ["label", str(tmp_path / "saved_models" / "m")])
    assert labelled.exit_code == 0, labelled.output
    written = {f"/models/{p.name}" for p in (tmp_path / "saved_models").glob("*.config")}
    found = _containers()
    flags = [
        dict(flag.removeprefix("--").split("=") for flag in arguments)
        for arguments in (found["compose"]["command"], found["kubernetes"]["args"])
    ]
    assert flags[0] == flags[1]
    named = {flag: value for flag, value in flags[0].items() if value.startswith("/models/")}
    assert set(named.values()) == written
    assert (
        named.keys() == {"model_config_file", "monitoring_config_file"} < {*ServingConfig._fields}
    )
    # A version that does not load holds up the others for five minutes without these.
    assert (flags[0]["max_num_load_retries"], flags[0]["num_load_threads"]) == ("0", "2")
    assert not any("batching" in flag for flag in flags[0])
    assert ":/models:ro" in found["compose"]["volumes"][0]
    mounts = found["kubernetes"]["volumeMounts"]
    assert mounts == [{"name": "models", "mountPath": "/models", "readOnly": True}]


def test_the_health_check_of_compose(served: Server) -> None:
    """Run as it is, but for the port and the model's name."""
    check = _containers()["compose"]["healthcheck"]["test"]
    assert check[0] == "CMD"

    def status(model: str, port: int) -> int:
        text = check[-1].replace("${MODEL:-demo-dcnv2}", model).replace("8501", str(port))
        return subprocess.run([*check[1:-1], text], timeout=30, capture_output=True).returncode

    assert status("m", served.rest_port) == 0
    assert status("other", served.rest_port) != 0
    assert status("m", 1) != 0


def test_the_probes_of_kubernetes(served: Server) -> None:
    container = _containers()["kubernetes"]
    path = container["readinessProbe"]["httpGet"]["path"].replace("demo-dcnv2", "m")
    with urllib.request.urlopen(f"http://127.0.0.1:{served.rest_port}{path}", timeout=30) as found:
        assert found.status == 200
    assert {p["name"] for p in container["ports"]} == {"grpc", "rest"}


def test_the_smoke_job(served: Server, tmp_path: Path) -> None:
    job = yaml.safe_load((DEPLOY / "kubernetes" / "smoke.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"][0] == "tfctr"
    places = {
        "/models/demo-dcnv2": str(tmp_path / "m"),
        "tf-serving:8500": f"127.0.0.1:{served.grpc_port}",
    }
    command = [places.get(word, word) for word in container["command"]]
    found = CliRunner().invoke(app, command[1:])
    assert found.exit_code == 0, found.output


def _installed_in_the_client_image() -> list[str]:
    (command,) = re.findall(r"RUN (pip install .* -c constraints.txt[^#]+?)\n(?! )", DOCKERFILE)
    return [word for word in command.replace("\\\n", " ").split()[5:] if word[0] != "-"]


def test_the_client_image_is_made_of_what_is_here() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE)
    for name in " ".join(copied).split():
        assert (DEPLOY.parent / name).exists(), name
    named = {re.split(r"[<>=\[]", line)[0] for line in _requirements()}
    pinned = {line.split("==")[0] for line in _lines("constraints.txt")}
    installed = set(_installed_in_the_client_image())
    assert installed <= named & pinned


def test_the_client_image_is_the_one_that_the_job_and_the_docs_name() -> None:
    job = yaml.safe_load((DEPLOY / "kubernetes" / "smoke.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    image = container["image"]
    assert image.endswith(f":{tfctr.__version__}")
    build = f"docker build -f deploy/Dockerfile -t {image} ."
    for text in (DOCKERFILE, (DEPLOY.parent / "docs" / "deploy.md").read_text()):
        assert build in text
        assert f"docker push {image}" in text


def test_the_client_image_has_what_its_commands_import(served: Server, tmp_path: Path) -> None:
    """Run where all other packages are hidden."""
    address = f"127.0.0.1:{served.grpc_port}"
    (tmp_path / "rows").write_text('{"item": "a"}\n')
    commands = [
        ["smoke", str(tmp_path / "m"), "--server", address],
        ["predict", "m", str(tmp_path / "rows"), "--server", address],
        ["label", str(tmp_path / "m"), "stable=1"],
    ]
    ran = subprocess.run(
        [sys.executable, "-c", ONLY, json.dumps([_installed_in_the_client_image(), commands])],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    for said in ("answers as its graph does", '{"score": ', "m: stable: 1"):
        assert said in " ".join(ran.stdout.split())


ONLY = """
import json, re, sys
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions, requires
names, commands = json.loads(sys.argv[1])

def plain(name):
    return re.sub("[-_.]+", "-", name).lower()

wanted, seen = [plain(name) for name in names], set()
while wanted:
    name = wanted.pop()
    if name in seen:
        continue
    seen.add(name)
    try:
        found = requires(name) or []
    except ModuleNotFoundError:
        continue  # for another system or Python
    wanted += [plain(re.match("[A-Za-z0-9._-]+", r)[0]) for r in found if "extra ==" not in r]
homes = packages_distributions()

class Installed:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in homes and top != "tfctr" and not seen & {plain(home) for home in homes[top]}:
            return None
        return PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Installed()
from tfctr.cli import app
import tfctr.serving.server.local_server
for command in commands:
    app(command, standalone_mode=False)
assert "apache_beam" not in sys.modules
"""


def _lines(file: str) -> list[str]:
    return (DEPLOY.parent / file).read_text().splitlines()


def _requirements() -> list[str]:
    """Those of setup.py."""
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("setuptools.setup", lambda **given: found.update(given))
        patch.chdir(DEPLOY.parent)
        runpy.run_path("setup.py")
    requirements: list[str] = found["install_requires"]
    return requirements


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    small_version(tmp_path, 1, ["a", "b", "c", "d"])
    with Server({"m": tmp_path / "m"}, grpc_port=0, rest_port=0) as server:
        yield server


def test_prometheus_is_told_of_the_alerts() -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["prometheus"]
    for file in prometheus["rule_files"]:
        assert f"./{file}:/etc/prometheus/{file}:ro" in compose["volumes"]
    (group,) = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    rules = {rule["alert"]: rule["expr"] for rule in group["rules"]}
    assert [*rules] == ["ServerGone", "Errors", "Slow", "VersionDidNotLoad", "WarmUpFailed"]
    assert f'job="{prometheus["scrape_configs"][0]["job_name"]}"' in rules["ServerGone"]
    for expression in rules.values():
        assert expression.count("(") == expression.count(")")
        assert "\n" not in expression
    for rule in group["rules"]:
        assert {*rule} <= {"alert", "expr", "for", "annotations"}
        assert rule["annotations"]["summary"]


def test_prometheus_asks_where_the_config_says() -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    assert f'path: "{jobs[0]["metrics_path"]}"' in MONITORING
    assert jobs[0]["static_configs"] == [{"targets": ["tf-serving:8501"]}]
