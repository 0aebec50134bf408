"""`tfctr smoke`: a served version answers as its files say."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.serving.raw_rows import ITEMS, fake_dataset, small_version
from tfctr.cli import app
from tfctr.serving import Server, export


@pytest.fixture
def models(tmp_path: Path) -> Path:
    small_version(tmp_path, 1, ITEMS)
    return tmp_path


@pytest.fixture
def server(models: Path) -> Iterator[Server]:
    # From a copy, so that what lies in the folder can differ from what is served.
    shutil.copytree(models / "m", models / "served" / "m")
    with Server(
        {"m": models / "served" / "m"}, grpc_port=0, rest_port=0, poll_seconds=1000
    ) as server:
        yield server


def smoke(model: Path, server: Server, *options: str) -> tuple[int, str]:
    address = f"127.0.0.1:{server.grpc_port}"
    found = CliRunner().invoke(app, ["smoke", str(model), "--server", address, *options])
    assert found.exception is None or isinstance(found.exception, SystemExit)
    return found.exit_code, " ".join(found.output.split())


def test_the_server_answers_as_the_graph_does(models: Path, server: Server) -> None:
    code, said = smoke(models / "m", server)
    assert code == 0, said
    assert f"m: version 1 at 127.0.0.1:{server.grpc_port} answers as its graph does: " in said
    code, said = smoke(models / "m", server, "--label", "stable")
    assert (code, said) == (1, "INVALID_ARGUMENT: Unrecognized servable version label: stable")


def test_every_signature_is_asked(model: Any, tmp_path: Path) -> None:
    export(model, fake_dataset(tmp_path / "v"), tmp_path / "tiny")
    with Server({"tiny": tmp_path / "tiny"}, grpc_port=0, rest_port=0) as server:
        code, said = smoke(tmp_path / "tiny", server)
    assert code == 0, said
    assert " 6 requests, " in said  # serving_default, examples and rank, each of two sizes


def test_another_answer_than_the_graph_s_is_an_error(models: Path, server: Server) -> None:
    small_version(models, 2, ITEMS)
    shutil.rmtree(models / "m" / "1")
    code, said = smoke(models / "m", server)
    assert code == 1
    assert said.endswith(
        "answers with version 1, which is not in " + f"{models / 'm'}; versions: 2"
    )
    (models / "m" / "2").rename(models / "m" / "1")  # other weights than those that are served
    code, said = smoke(models / "m", server)
    assert code == 1
    assert said.startswith("m, version 1, serving_default: found scores 0.")
    assert "; the graph gives 0." in said
    (models / "m" / "1" / "assets.extra" / "tf_serving_warmup_requests").unlink()
    code, said = smoke(models / "m", server)
    assert said == f"{models / 'm' / '1'}: no warm-up requests; export the model with tfctr"
