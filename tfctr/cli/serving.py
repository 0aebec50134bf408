"""Commands around served models."""

import json
import logging
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tfctr.cli.app import app, clear_errors, console
from tfctr.config import ConfigError
from tfctr.data.manifest import DataError


@app.command("label")
def label_versions(
    model: Annotated[Path, typer.Argument(help="model folder with numbered versions")],
    labels: Annotated[
        list[str] | None,
        typer.Argument(help="label=version, e.g. stable=3 canary=4", metavar="LABEL"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="folder of models.config; default: the model's parent folder"),
    ] = None,
    served_from: Annotated[
        str, typer.Option(help="path of the folder of models on the server")
    ] = "/models",
    server: Annotated[
        str,
        typer.Option(help="gRPC address of the server; every address of the host name is asked"),
    ] = "127.0.0.1:8500",
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="do not wait: the server is not running")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(min=0, help="seconds to wait for versions to load, and for labels to move"),
    ] = 300,
) -> None:
    """Writes the versions and labels that TF Serving serves to models.config.

    A canary: stable=3 canary=4. To accept it: stable=4. To roll back: stable=3.
    Without labels, the newest version is served.

    Labels move after the server has loaded their versions; earlier versions
    stay loaded until labels move again.

    If there is no models.config yet, it is created, with monitoring.config,
    and the command does not wait."""
    from tfctr.serving.model_directory import note_config, versions, without_versions

    with clear_errors():
        there = versions(model)
        if not there:
            raise ConfigError(f"{model}: {without_versions(model)}")
        found = dict(_label(text, model, there) for text in labels or ())
        folder, name = model.resolve().parent, model.resolve().name
        directory = f"{served_from.rstrip('/')}/{name}"
        from tfctr.serving.labels import move_labels, write_labels
        from tfctr.serving.tf_serving_config import MODELS, MONITORING_FILE, write_monitoring

        path = (config or folder) / MODELS
        try:
            note_config(model, path)
            if not (path.parent / MONITORING_FILE).is_file():
                write_monitoring(path.parent)
            if no_wait or not found or not path.is_file():
                written = write_labels(path, name, directory, found)
            else:
                written = move_labels(path, name, directory, found, server, timeout, _say)
        except (ValueError, PermissionError) as error:
            raise ConfigError(str(error)) from None
        said = ", ".join(f"{label}: {version}" for label, version in found.items())
        others = sorted({*written.versions} - {*found.values()})
        if others:
            said += f"; loaded too: {', '.join(map(str, others))}"
        _say(f"{name}: {said or 'the newest version'} ({path})")


def _say(text: str) -> None:
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def _label(text: str, model: Path, there: Mapping[int, Path]) -> tuple[str, int]:
    label, _, version = text.partition("=")
    if not label or not version.isdecimal() or int(version) not in there:
        raise ConfigError(
            f"found {text!r}; a label and a version are needed, such as stable=3; versions in "
            f"{model}: {', '.join(map(str, there))}"
        )
    return label, int(version)


@app.command()
def serve(
    models: Annotated[
        list[Path],
        typer.Argument(help="model folders with numbered versions; or a models.config"),
    ],
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port of gRPC", min=0, max=65_535)] = 8500,
    rest_port: Annotated[int, typer.Option(help="port of the REST API", min=0, max=65_535)] = 8501,
) -> None:
    """Serves models with TF Serving's protocol, for a laptop and for tests.

    New versions are loaded as they appear."""
    from tfctr.serving import Server

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with clear_errors():
        served: Any = models[0] if len(models) == 1 and models[0].is_file() else None
        if served is None:
            for folder in models:
                if not folder.is_dir():
                    raise ConfigError(f"{folder}: no such folder")
            served = {folder.resolve().name: folder for folder in models}
        try:
            server = Server(served, host=host, grpc_port=port, rest_port=rest_port).start()
        except (ValueError, OSError) as error:  # no version that loads; a port that is taken
            raise DataError(str(error)) from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how supervisors stop a process
    try:
        first = next(iter(server.models))
        console.print(
            f"{', '.join(server.models)}: gRPC on {host}:{server.grpc_port}, "
            f"REST on http://{host}:{server.rest_port}/v1/models/{first}",
            soft_wrap=True,
        )
        server.wait()
    except KeyboardInterrupt:
        for number in (signal.SIGTERM, signal.SIGINT):  # a second signal is ignored
            signal.signal(number, signal.SIG_IGN)
        console.print("finishing the requests in flight")
    server.stop()
    console.print("stopped")


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="the served model's name")],
    rows: Annotated[
        Path,
        typer.Argument(help="JSON Lines, one object of raw features per row; - is standard input"),
    ] = Path("-"),
    server: Annotated[str, typer.Option(help="gRPC address of the server")] = "127.0.0.1:8500",
) -> None:
    """Scores raw rows on a running server; prints one line `{"score": ...}` per row.

    Of an index of items: one line `{"candidates": [...], "scores": [...]}` per row."""
    from tfctr.serving import Client

    with clear_errors(), Client(server, model) as client:
        for batch in _batches(rows):
            try:
                answers = _recommend(client, batch) if client.is_index else _score(client, batch)
            except (ValueError, TypeError) as error:
                raise DataError(f"{rows}: {error}") from None
            for answer in answers:
                typer.echo(json.dumps(answer))


@app.command()
def smoke(
    model: Annotated[Path, typer.Argument(help="model folder with numbered versions")],
    server: Annotated[str, typer.Option(help="gRPC address of the server")] = "127.0.0.1:8500",
    label: Annotated[
        str | None, typer.Option(help="label of the version to ask; default: the newest version")
    ] = None,
) -> None:
    """Checks that a running server answers warm-up requests as the version's own graph does.

    The exit status is 1 if the answers differ."""
    from tfctr.serving.smoke import smoke as ask

    with clear_errors():
        found = ask(model, server, label)
        _say(
            f"{model.resolve().name}: version {found.version} at {server} answers as its graph "
            f"does: {found.requests} requests, largest difference {found.difference:.1g}"
        )


def _score(client: Any, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    columns = {name: [row.get(name) for row in batch] for name in _names(batch)}
    return [{"score": float(score)} for score in client.predict(columns)]


def _recommend(client: Any, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = (client.recommend(row) for row in batch)
    return [{"candidates": items, "scores": scores.tolist()} for items, scores in found]


def _batches(path: Path, size: int = 1024) -> Iterator[list[dict[str, Any]]]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from None
    batch: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not JSON: {error.msg}") from None
        if not isinstance(row, dict) or not row:
            raise DataError(f"{path}:{number}: found {line[:80]}; give an object of features")
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _names(batch: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in batch for name in row))
