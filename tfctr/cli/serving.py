"""Commands around served models."""

import csv
import io
import itertools
import json
import logging
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from tfctr.cli.app import app, clear_errors, console, errors


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
    from tfctr.config import ConfigError
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
    from tfctr.config import ConfigError

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
    from tfctr.config import ConfigError
    from tfctr.data.manifest import DataError
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
        typer.Argument(
            help="raw rows: JSON Lines, or .csv or .tsv with a header line; - is standard input, "
            "JSON Lines"
        ),
    ] = Path("-"),
    server: Annotated[str, typer.Option(help="gRPC address of the server")] = "127.0.0.1:8500",
    config: Annotated[
        str | None,
        typer.Option(
            help="YAML file of the data or a run: the rows are read as prepare reads its log, and "
            "its tables are joined"
        ),
    ] = None,
) -> None:
    """Scores raw rows on a running server; prints one line `{"score": ...}` per row.

    Of an index of items: one line `{"candidates": [...], "scores": [...]}` per row.
    A row that cannot be scored gets a line `{"error": ...}`; the exit status is 1 then."""
    from tfctr.serving import Client

    failed = 0
    there: set[str] = set()
    with clear_errors(), Client(server, model) as client, warnings.catch_warnings():
        warnings.showwarning = lambda text, *_: errors.print(f"{text}", soft_wrap=True)
        answer = _recommend if client.is_index else _score
        lines = _as_logged(rows, config, client.features) if config else _lines(rows)
        while batch := list(itertools.islice(lines, BATCH)):
            there.update(*(row for _, row in batch if not isinstance(row, str)))
            for line in _answers(client, batch, answer):
                typer.echo(json.dumps(line))
                failed += "error" in line
        missing = [name for name in client.features if name not in there]
        if there and missing:
            way_out = "" if config else "; --config joins the tables of a data config"
            text = f"{rows}: no row has {', '.join(missing)}: scored as missing{way_out}"
            errors.print(text, soft_wrap=True, markup=False, highlight=False)
    if failed:
        errors.print(f"{rows}: {failed:,} rows were not scored", soft_wrap=True)
        raise typer.Exit(1)


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


BATCH = 1024  # rows of a request
Line: TypeAlias = tuple[int, dict[str, Any] | str]  # its number; a row, or what is wrong with it


def _answers(
    client: Any, batch: list[Line], answer: Callable[[Any, list[Any]], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """An answer for each line; a line that is wrong has an error, and stops no other one."""
    good = [row for _, row in batch if not isinstance(row, str)]
    try:
        found = iter(answer(client, good) if good else [])
        return [
            {"error": f"line {number}: {row}"} if isinstance(row, str) else next(found)
            for number, row in batch
        ]
    except (ValueError, TypeError) as error:
        if len(batch) == 1:
            return [{"error": f"line {batch[0][0]}: {error}"}]
    return [line for one in batch for line in _answers(client, [one], answer)]


def _score(client: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    columns = {name: [row.get(name) for row in rows] for name in _names(rows)}
    return [{"score": float(score)} for score in client.predict(columns)]


def _recommend(client: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = (client.recommend(row) for row in rows)
    return [{"candidates": items, "scores": scores.tolist()} for items, scores in found]


def _as_logged(path: Path, config: str, features: list[str]) -> Iterator[Line]:
    """The rows of a file, by feature, as `prepare` reads them and with the joined tables."""
    from tfctr.config import ConfigError, load_data
    from tfctr.data.rows_to_score import RowsToScore
    from tfctr.data.typed_rows import ROW

    made = load_data(config)
    read = [feature for feature in made.feature_schema.inputs if feature.name in features]
    with _on_disk(path) as file:
        rows = RowsToScore([str(file)], read, made)
        if not rows.joined.features:
            raise ConfigError(
                f"{path}: no column of a feature of the model; columns: {', '.join(rows.names)}"
            )
        if rows.unread:
            text = f"{path}: columns that no feature reads are ignored: {', '.join(rows.unread)}"
            errors.print(text, soft_wrap=True, markup=False, highlight=False)
        first = rows.first_line
        unmatched: Counter[str] = Counter()
        for piece in rows.reader.pieces():
            found = rows.read(piece)
            names = [feature.name for feature in rows.joined.features]
            good = found.features.select(names).to_pylist()
            lines: list[Line] = [(number, why) for number, why, _ in found.bad]
            lines += zip(found.features[ROW].to_pylist(), good, strict=True)
            for number, line in sorted(lines, key=lambda line: line[0]):
                yield first + number, line
            first += len(lines)
            unmatched.update(found.unmatched)
    for name, number in unmatched.items():
        if number:
            text = f"{path}: {number:,} rows have no match in source.{name}: scored as missing"
            errors.print(text, soft_wrap=True, markup=False, highlight=False)


@contextmanager
def _on_disk(path: Path) -> Iterator[Path]:
    """The path; of a file with the lines of standard input for "-"."""
    if str(path) != "-":
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(sys.stdin.buffer.read())
        file.flush()
        yield Path(file.name)


def _lines(path: Path) -> Iterator[Line]:
    """The rows of a file with the numbers of their lines, from 1."""
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        from tfctr.data.manifest import DataError

        raise DataError(f"{path}: {error}") from None
    separator = None
    if str(path) != "-":
        from tfctr.data.formats import SEPARATORS

        separator = SEPARATORS.get(path.suffix.lower())
    yield from _delimited(text, separator) if separator else _json_lines(text)


def _delimited(text: str, separator: str) -> Iterator[Line]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    for row in reader:
        if None in row or None in row.values():
            yield reader.line_num, f"found another number of values than {len(row)} columns"
        else:
            yield reader.line_num, row


def _json_lines(text: str) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, f"not JSON: {error.msg}"
            continue
        is_row = isinstance(row, dict) and row
        yield number, row if is_row else f"found {line[:80]}; give an object of features"


def _names(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
