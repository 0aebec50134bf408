"""Labels move between versions without a request that fails, and never into a dead end."""

import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.serving.raw_rows import ITEMS, small_version
from tests.serving.requests import rest, versions_of, wait_until
from tfctr.cli import app
from tfctr.serving import Client, Server, ServingError, labels
from tfctr.serving.tf_serving_config import ModelEntry, read_models, write_model

Label = Callable[..., Any]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions, of other weights."""
    folder = tmp_path_factory.mktemp("labels")
    for seed in (1, 2):
        small_version(folder, seed, ITEMS)
    return folder / "m"


@pytest.fixture
def models(exported: Path, tmp_path: Path) -> Path:
    """`m` with its versions 1, 2 and 3, which is 1 again."""
    shutil.copytree(exported, tmp_path / "m")
    shutil.copytree(exported / "1", tmp_path / "m" / "3")
    return tmp_path


@pytest.fixture
def config(models: Path) -> Path:
    """`stable` is version 1."""
    path = models / "models.config"
    write_model(path, "m", ModelEntry("/models/m", {"stable": 1}, (1,)))
    return path


@pytest.fixture
def server(config: Path) -> Iterator[Server]:
    with Server(config, grpc_port=0, rest_port=0, poll_seconds=0.05) as server:
        yield server


@pytest.fixture
def label(models: Path, server: Server) -> Label:
    """Runs `tfctr label` under the server."""

    def run(*arguments: str, fails: bool = False) -> str:
        found = CliRunner().invoke(
            app,
            ["label", str(models / "m"), *arguments, "--server", f"localhost:{server.grpc_port}"],
        )
        assert found.exit_code == (1 if fails else 0), found.output
        assert found.exception is None or isinstance(found.exception, SystemExit)
        return " ".join(found.output.split())

    return run


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[ModelEntry | None]:
    """What is written to models.config, in order."""
    found: list[ModelEntry | None] = []

    def write(path: Path, name: str, hosted: ModelEntry | None) -> None:
        found.append(hosted)
        write_model(path, name, hosted)

    monkeypatch.setattr(labels, "write_model", write)
    return found


def hosted(stable: int, *versions: int, **more: int) -> ModelEntry:
    return ModelEntry("/models/m", {"stable": stable, **more}, versions)


def answers(server: Server, **whom: Any) -> int:
    with Client(f"127.0.0.1:{server.grpc_port}", "m", **whom) as client:
        return client.served_version()


def refusal(server: Server, **whom: Any) -> str:
    with pytest.raises(ServingError) as error:
        answers(server, **whom)
    return str(error.value)


def break_version(folder: Path) -> None:
    (folder / "variables" / "variables.index").write_bytes(b"no")


def test_a_canary_is_tried_gone_on_with_and_taken_back(
    server: Server, label: Label, config: Path, written: list[ModelEntry | None]
) -> None:
    said = label("stable=1", "canary=2")
    assert "waiting: version 2 is to be loaded at 127.0.0.1" in said
    # The new label is not written before its version is there.
    assert written == [hosted(1, 1, 2), hosted(1, 1, 2, canary=2)]
    address = f"127.0.0.1:{server.grpc_port}"
    with (
        Client(address, "m", label="stable") as stable,
        Client(address, "m", label="canary") as canary,
        Client(address, "m") as newest,
    ):
        first, second = stable.predict({"item": ITEMS}), canary.predict({"item": ITEMS})
        assert not np.allclose(first, second)
        np.testing.assert_array_equal(newest.predict({"item": ITEMS}), second)
        written.clear()
        assert "m: stable: 2; loaded too: 1" in label("stable=2")
        assert written == [hosted(1, 1, 2, canary=2), hosted(2, 1, 2)]
        np.testing.assert_array_equal(stable.predict({"item": ITEMS}), second)
        label("stable=1")
        np.testing.assert_array_equal(stable.predict({"item": ITEMS}), first)
        label("stable=3")  # of what came before, only 1 is kept
        assert read_models(config) == {"m": hosted(3, 1, 3)}
        wait_until(
            lambda: versions_of(server, "m") == {"1": "AVAILABLE", "2": "END", "3": "AVAILABLE"}
        )
    label()
    wait_until(lambda: versions_of(server, "m") == {"1": "END", "2": "END", "3": "AVAILABLE"})
    assert "INVALID_ARGUMENT: Unrecognized servable version label: stable" in refusal(
        server, label="stable"
    )


def test_a_label_never_moves_before_its_version_is_loaded(
    label: Label, written: list[ModelEntry | None], server: Server
) -> None:
    label("stable=2")
    assert written == [hosted(1, 1, 2), hosted(2, 1, 2)]
    assert answers(server, label="stable") == 2


@pytest.mark.parametrize("step", ["_wait_for_versions", "_wait_for_labels"])
def test_killed_between_and_run_again_it_is_the_same(
    step: str, label: Label, config: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException): ...

    def kill(*_: Any) -> None:
        raise Killed

    label("stable=2")
    with monkeypatch.context() as patch:
        patch.setattr(labels, step, kill)
        with pytest.raises(Killed):
            labels.move_labels(
                config, "m", "/models/m", {"stable": 3}, f"127.0.0.1:{server.grpc_port}", 30
            )
    for _ in range(2):  # and once it is done, again
        label("stable=3")
        assert read_models(config) == {"m": hosted(3, 2, 3)}
        assert answers(server, label="stable") == 3


def test_a_version_that_does_not_load_leaves_labels_and_file(
    label: Label, models: Path, config: Path, server: Server
) -> None:
    before = config.read_text()
    break_version(models / "m" / "2")
    said = label("stable=2", fails=True)
    assert re.search(
        r"m: version 2 does not load at 127\.0\.0\.1:\d+: .+; loaded: 1; the labels stay as they "
        rf"were \(stable=1\); {re.escape(str(config))} does not name the version",
        said,
    )
    assert config.read_text() == before
    # Repaired, it loads, though the server remembers that it did not.
    shutil.copytree(models / "m" / "1", models / "m" / "2", dirs_exist_ok=True)
    label("stable=2")
    assert answers(server, label="stable") == 2


def test_what_the_server_never_sees_is_waited_for_in_vain(
    models: Path, config: Path, label: Label
) -> None:
    other = models / "other"
    other.mkdir()
    write_model(other / "models.config", "m", hosted(1, 1))
    said = label("stable=2", "--config", str(other), "--timeout", "0.2", fails=True)
    assert re.search(
        r"m: after 0\.2 seconds: version 2 is to be loaded at 127\.0\.0\.1:\d+ \(not seen yet\); "
        r"the labels stay as they were \(stable=1\); run it again to continue",
        said,
    )
    assert read_models(other / "models.config") == {"m": hosted(1, 1, 2)}
    # Its own versions are safe from exports that keep a few.
    assert (models / "m" / "models_config").read_text() == f"{other / 'models.config'}\n"


def test_a_file_that_is_refused_is_put_right(
    label: Label, config: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """One that moves a label at once, as an editor might: it would be refused for ever."""
    caplog.set_level(logging.ERROR)
    write_model(config, "m", hosted(2, 2))
    wait_until(lambda: "Request to assign label" in caplog.text)
    label("stable=2")
    assert answers(server, label="stable") == 2
    assert read_models(config) == {"m": hosted(2, 1, 2)}


def test_every_address_of_the_server_is_waited_for(
    label: Label, config: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(
        config, host="127.0.0.2", grpc_port=server.grpc_port, rest_port=0, poll_seconds=1000
    ):
        hosts = ("127.0.0.1", "127.0.0.2")
        monkeypatch.setattr(
            labels.socket,
            "getaddrinfo",
            lambda host, port, type: [(labels.socket.AF_INET, type, 0, "", (h, 0)) for h in hosts],
        )
        said = label("stable=2", "--timeout", "3", fails=True)
    assert f"version 2 is to be loaded at 127.0.0.2:{server.grpc_port}" in said
    assert read_models(config) == {"m": hosted(1, 1, 2)}


def test_labels_before_a_server_is_started(models: Path) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["label", str(models / "m"), *arguments])

    nobody = ["--server", "127.0.0.1:1"]
    config = models / "models.config"
    assert run("stable=1", *nobody).exit_code == 0  # no file, so nobody reads it
    assert read_models(config) == {"m": hosted(1, 1)}
    assert sorted(p.name for p in models.glob("*.config")) == ["models.config", "monitoring.config"]
    for address in (nobody[1], "127.0.0.1", "no.such.host.invalid:8500"):
        found = run("stable=2", "--server", address)
        assert found.exit_code == 1
        assert (
            f"--server: found '{address}'" in found.output or "host:port is needed" in found.output
        )
        assert read_models(config) == {"m": hosted(1, 1)}
    assert run("stable=2", "--no-wait").exit_code == 0
    assert read_models(config) == {"m": hosted(2, 1, 2)}
    with Server(config, grpc_port=0, rest_port=0) as server:
        assert answers(server, label="stable") == 2
    assert run(*nobody).exit_code == 0  # the newest: nothing to wait for
    assert read_models(config) == {"m": ModelEntry("/models/m")}


def test_a_label_is_refused_with_all_of_the_file_until_its_version_is_loaded(
    server: Server, config: Path, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    shutil.copytree(models / "m", models / "other")
    write_model(config, "other", ModelEntry("/models/other"))
    wait_until(lambda: "other" in server.models)
    good = config.read_text()
    write_model(config, "m", hosted(2, 1, 2))
    write_model(config, "new", ModelEntry("/models/other"))
    write_model(config, "other", None)
    wait_until(
        lambda: (
            "Request to assign label to version 2 of model m, which is not currently available for "
            "inference" in caplog.text
        )
    )
    time.sleep(0.2)
    assert answers(server, label="stable") == 1
    assert versions_of(server, "m") == {"1": "AVAILABLE"}  # 2 is not even loaded
    assert server.models == ("m", "other")
    config.write_text("model_config_list { nonsense")
    wait_until(lambda: "not a ModelServerConfig" in caplog.text)
    assert answers(server, label="stable") == 1
    config.write_text(good)
    write_model(config, "m", hosted(1, 1, 2))
    wait_until(lambda: versions_of(server, "m") == {"1": "AVAILABLE", "2": "AVAILABLE"})
    assert answers(server) == answers(server, version=2) == 2  # without a label


def test_a_new_label_is_there_before_its_version(
    server: Server, config: Path, models: Path
) -> None:
    (models / "m" / "2").rename(models / "2")
    write_model(config, "m", hosted(1, 1, 2, canary=2))
    wait_until(lambda: "NOT_FOUND" in refusal(server, label="canary"))
    assert "Servable not found for request: Specific(m, 2)" in refusal(server, label="canary")
    assert answers(server, label="stable") == 1
    (models / "2").rename(models / "m" / "2")
    wait_until(lambda: versions_of(server, "m").get("2") == "AVAILABLE")
    assert answers(server, label="canary") == 2


def test_labels_in_the_paths_of_rest(server: Server, config: Path, models: Path) -> None:
    write_model(config, "m", hosted(1, 1, 2, **{"a b": 2, "gone": 9}))
    wait_until(lambda: answers(server) == 2)
    body = {"inputs": {"item": ITEMS}}
    scores = {
        where: rest(server, "POST", f"/v1/models/m{where}:predict", body)["outputs"]
        for where in ("/versions/1", "/versions/2", "/labels/stable", "/labels/a%20b")
    }
    assert scores["/labels/stable"] == scores["/versions/1"] != scores["/versions/2"]
    assert scores["/labels/a%20b"] == scores["/versions/2"]
    examples = {"signature_name": "regress", "examples": [{"item": item} for item in ITEMS]}
    found = rest(server, "POST", "/v1/models/m/labels/stable:regress", examples)
    np.testing.assert_allclose(found["results"], scores["/versions/1"], atol=1e-6)
    metadata = rest(server, "GET", "/v1/models/m/labels/stable/metadata")
    assert metadata["model_spec"]["version"] == "1"

    for name in ("m", "other"):
        for path in ("no:predict", "no:regress", "no/metadata"):
            method, sent = ("POST", body | examples) if ":" in path else ("GET", None)
            found = rest(server, method, f"/v1/models/{name}/labels/{path}", sent, expect=400)
            assert found == {"error": "Unrecognized servable version label: no"}
    found = rest(server, "POST", "/v1/models/m/labels/gone:predict", body, expect=404)
    assert found == {"error": "Servable not found for request: Specific(m, 9)"}
    # The states of all versions, whatever the label: the real server does not look at it.
    for label in ("stable", "no"):
        assert rest(server, "GET", f"/v1/models/m/labels/{label}") == rest(
            server, "GET", "/v1/models/m"
        )


def test_a_version_whose_folder_is_deleted_is_unloaded(server: Server, models: Path) -> None:
    shutil.rmtree(models / "m" / "1")
    wait_until(lambda: versions_of(server, "m") == {"1": "END"})
    assert "Servable not found for request: Specific(m, 1)" in refusal(server, label="stable")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["stable"], "found 'stable'; a label and a version are needed, such as stable=3"),
        (["stable=7"], "found 'stable=7'.* versions in .*m: 1"),
        (["=1"], "found '=1'"),
    ],
)
def test_labels_that_cannot_be(tmp_path: Path, labels: list[str], message: str) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    found = CliRunner().invoke(app, ["label", str(tmp_path / "m"), *labels])
    assert found.exit_code == 1
    assert re.search(message, " ".join(found.output.split()))
    found = CliRunner().invoke(app, ["label", str(tmp_path / "none"), "stable=1"])
    assert "no such folder" in found.output
