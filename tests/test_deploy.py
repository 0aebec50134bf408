"""What `deploy/` holds fits the commands that it calls."""

import runpy
import shlex
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.test_rollout import BY_DAY, day, write_configs, write_logs
from tfctr.cli import MISSING_DAY, app
from tfctr.serving.tf_serving_config import MONITORING, ServingConfig

DEPLOY = Path(__file__).parent.parent / "deploy"


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
    assert {flags[0][name] for name in ServingConfig._fields} == written
    assert ":/models:ro" in found["compose"]["volumes"][0]
    mounts = found["kubernetes"]["volumeMounts"]
    assert mounts == [{"name": "models", "mountPath": "/models", "readOnly": True}]


def test_prometheus_asks_where_the_config_says() -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    assert f'path: "{jobs[0]["metrics_path"]}"' in MONITORING
    assert jobs[0]["static_configs"] == [{"targets": ["tf-serving:8501"]}]
