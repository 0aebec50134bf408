"""The `tfctr` command."""

import datetime
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import typer
from rich.console import Console

from tfctr.config import (
    ClickPrompt,
    ConfigError,
    load_data,
    load_retrieval,
    load_run,
    load_sequences,
    load_text,
    read_yaml,
)
from tfctr.data import files
from tfctr.data.archives import ARCHIVES, DownloadError, download
from tfctr.data.manifest import DataError, read_manifest
from tfctr.pipeline import DEFAULT_WORK, Run, prepare
from tfctr.rollout_config import load_rollout
from tfctr.serving.errors import ServingError

app = typer.Typer(
    help="Offline knowledge into click-through-rate models that are cheap to serve.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
MISSING_DAY = 75  # exit status; EX_TEMPFAIL of sysexits.h: try again later
console = Console()
errors = Console(stderr=True)

ConfigFile = Annotated[Path, typer.Argument(help="YAML file of a run", metavar="CONFIG")]
Work = Annotated[Path, typer.Option(help="folder of datasets and runs")]
BeamArgs = Annotated[
    list[str] | None,
    typer.Option("--beam", help="an option for Beam, e.g. --beam=--runner=FlinkRunner; repeatable"),
]


@contextmanager
def _clear_errors() -> Iterator[None]:
    """What a user did wrong is a line, not a traceback."""
    known = (ConfigError, DataError, DownloadError, ServingError, ConnectionError, TimeoutError)
    try:
        yield
    except Exception as error:
        text = str(error)
        if not isinstance(error, known):
            if files.NO_SPACE not in text:
                raise
            line = next(line for line in text.splitlines() if files.NO_SPACE in line)
            text = f"{line.strip()}; make room and run it again: it goes on where it was"
        errors.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


@app.command("run")
def run_all(config: ConfigFile, work: Work = DEFAULT_WORK, beam: BeamArgs = None) -> None:
    """Everything: raw logs -> TFRecords -> trained model -> metrics -> SavedModel -> a request."""
    with _clear_errors():
        run = Run(load_run(config), work, console)
        run.prepare(beam)
        run.train()
        metrics_path = run.evaluate()
        if run.config.similar is not None:  # a teacher: there is no serving it
            _print_metrics(metrics_path)
            console.print(f"metrics: {metrics_path}", soft_wrap=True)
            return
        version = run.export()
        from tfctr.data.dataset import Dataset
        from tfctr.frameworks.create import select
        from tfctr.showcase import best_auc, show_request

        _print_metrics(metrics_path)
        console.print(f"SavedModel: {version}", soft_wrap=True)
        console.print(f"metrics: {metrics_path}", soft_wrap=True)
        data = Dataset.open(run.data_folder)
        if (best := best_auc(run.config.data, data)) is not None:
            console.print(f"best reachable test AUC, by the true probabilities: {best:.4f}")
        schema = select(run.config, data.schema)
        framework = run.config.framework
        if isinstance(framework, ClickPrompt) and framework.serves_language_model:
            console.print("it is asked with the tokens of a text too: docs/language.md")
            return
        show_request(run.config.data, data, schema, run.export_folder, console)


@app.command("prepare")
def prepare_data(config: ConfigFile, work: Work = DEFAULT_WORK, beam: BeamArgs = None) -> None:
    """Raw logs -> a dataset directory, by a Beam job, and the similar rows that a run reads, by
    another. Takes a data config as well."""
    with _clear_errors():
        if "model" in read_yaml(config):
            Run(load_run(config), work, console).prepare(beam)
            return
        data = load_data(config)
        prepare(data, work / data.name, beam, console)


@app.command()
def retrieve(
    file: Annotated[Path, typer.Argument(help="YAML file of a retrieval", metavar="FILE")],
    work: Work = DEFAULT_WORK,
    beam: BeamArgs = None,
) -> None:
    """Finds the most similar earlier rows of every row, by a Beam job."""
    with _clear_errors():
        from tfctr import pipeline

        pipeline.retrieve(load_retrieval(file), work, beam, console)


@app.command()
def textify(
    file: Annotated[Path, typer.Argument(help="YAML file of texts", metavar="FILE")],
    work: Work = DEFAULT_WORK,
    beam: BeamArgs = None,
) -> None:
    """Writes every row as sentences, in the tokens of an encoder, by a Beam job."""
    with _clear_errors():
        from tfctr import pipeline

        pipeline.textify(load_text(file), work, beam, console)


@app.command()
def sequences(
    file: Annotated[Path, typer.Argument(help="YAML file of sequences", metavar="FILE")],
    work: Work = DEFAULT_WORK,
    beam: BeamArgs = None,
) -> None:
    """Writes users' events in windows, by a Beam job: what a sequence encoder learns from."""
    with _clear_errors():
        from tfctr import pipeline

        pipeline.write_sequences(load_sequences(file), work, beam, console)


@app.command()
def train(config: ConfigFile, work: Work = DEFAULT_WORK) -> None:
    """Trains the model; a killed training goes on from its last checkpoint."""
    with _clear_errors():
        Run(load_run(config), work, console).train()


@app.command()
def evaluate(config: ConfigFile, work: Work = DEFAULT_WORK) -> None:
    """Exact metrics on the validation and test rows."""
    with _clear_errors():
        path = Run(load_run(config), work, console).evaluate()
        _print_metrics(path)
        console.print(f"metrics: {path}", soft_wrap=True)


@app.command()
def export(config: ConfigFile, work: Work = DEFAULT_WORK) -> None:
    """A new version of the SavedModel for TF Serving."""
    with _clear_errors():
        console.print(
            f"SavedModel: {Run(load_run(config), work, console).export()}", soft_wrap=True
        )


@app.command()
def index(
    config: ConfigFile,
    work: Work = DEFAULT_WORK,
    k: Annotated[int, typer.Option(min=1, help="items found for a user")] = 100,
    search: Annotated[str, typer.Option(help="exact; or scann, for millions of items")] = "exact",
) -> None:
    """A SavedModel that finds, for a user's history, the items that may come next: what `rank` is
    asked about. Of a run with a sequence encoder, which is trained if it was not."""
    with _clear_errors():
        if search not in ("exact", "scann"):
            raise ConfigError(f"--search: found {search!r}; allowed: exact, scann")
        run = Run(load_run(config), work, console)
        run.prepare()
        console.print(f"SavedModel: {run.index(k, search)}", soft_wrap=True)  # type: ignore[arg-type]


@app.command()
def rollout(
    file: Annotated[Path, typer.Argument(help="YAML file of a rollout", metavar="FILE")],
    through: Annotated[
        str | None,
        typer.Option(
            help="the last day, as 2024-01-31, which is over; the file's end if not given"
        ),
    ] = None,
    work: Work = DEFAULT_WORK,
    beam: BeamArgs = None,
) -> None:
    """Replays a calendar: judges the served ads model on each day, trains it, serves it anew.

    Days that are done are skipped. The exit status is 75 where a day is missing that the file says
    to wait for: all before it is done, and a scheduler should try again."""
    with _clear_errors():
        from tfctr.rollout import Rollout

        missing = Rollout(load_rollout(file), work, console).run(_as_day(through), beam)
    if missing is not None:
        raise typer.Exit(MISSING_DAY)


@app.command()
def report(
    rollouts: Annotated[
        list[Path], typer.Argument(help="YAML files of rollouts; the first is compared with")
    ],
    page: Annotated[Path, typer.Option(help="the file to write")] = Path("rollouts.html"),
    work: Work = DEFAULT_WORK,
) -> None:
    """A page of rollouts side by side: daily curves, and each one's difference from the first."""
    with _clear_errors():
        from tfctr.rollout import Rollout
        from tfctr.rollout_report import Judged, write_page

        folders = [Rollout(load_rollout(path), work).folder for path in rollouts]
        write_page([Judged.read(folder) for folder in folders], page)
        console.print(f"page: {page}", soft_wrap=True)


def _as_day(text: str | None) -> datetime.date | None:
    try:
        return text and datetime.date.fromisoformat(text)  # type: ignore[return-value]
    except ValueError:
        raise ConfigError(f"--through: found {text!r}; a day is needed, as 2024-01-31") from None


@app.command()
def tune(
    file: Annotated[Path, typer.Argument(help="YAML file of a search", metavar="FILE")],
    work: Work = DEFAULT_WORK,
    trials: Annotated[
        int | None, typer.Option(min=1, help="how many in all; what the file says if not given")
    ] = None,
) -> None:
    """Searches a run's values by its validation rows; a killed search goes on with what is left."""
    with _clear_errors():
        from tfctr import tuning

        best = tuning.tune(file, work, console, trials)
        console.print(f"trials: {best.parent / 'table.csv'}", soft_wrap=True)
        option = "" if work == DEFAULT_WORK else f" --work {work}"
        console.print(f"best: tfctr run {best}{option}", soft_wrap=True)


@app.command("label")
def label_versions(
    model: Annotated[Path, typer.Argument(help="model folder, holding numbered versions")],
    labels: Annotated[
        list[str] | None,
        typer.Argument(help="label=version, e.g. stable=3 canary=4", metavar="LABEL"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="folder of models.config; the one that the model is in if not given"),
    ] = None,
    served_from: Annotated[
        str, typer.Option(help="where the server sees the folder of models")
    ] = "/models",
    server: Annotated[
        str, typer.Option(help="gRPC address of the server; all that the name stands for are asked")
    ] = "127.0.0.1:8500",
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="no server runs: it is to start with these labels")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0, help="seconds to wait for versions to load, and for labels")
    ] = 300,
) -> None:
    """Says in models.config which versions TF Serving serves, and under which labels.

    A canary: stable=3 canary=4. To go on with it: stable=4. To go back: stable=3. Without labels,
    the newest version is served. Labels move when the server has loaded their versions; the
    versions before stay loaded until labels move again. Where there is no models.config yet it is
    begun, with monitoring.config, and nothing is waited for."""
    from tfctr.serving.model_directory import note_config, versions

    with _clear_errors():
        there = versions(model)
        if not there:
            raise ConfigError(f"{model}: no versions here; `tfctr export` makes one")
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
        beside = sorted({*written.versions} - {*found.values()})
        if beside:
            said += f"; loaded too: {', '.join(map(str, beside))}"
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
        typer.Argument(help="model folders, each holding numbered versions; or a models.config"),
    ],
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="of gRPC")] = 8500,
    rest_port: Annotated[int, typer.Option(help="of the REST form")] = 8501,
) -> None:
    """Serves models with TF Serving's protocol, for a laptop and for tests. New versions are
    picked up."""
    from tfctr.serving import Server

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with _clear_errors():
        served: Any = models[0] if len(models) == 1 and models[0].is_file() else None
        if served is None:
            for folder in models:
                if not folder.is_dir():
                    raise ConfigError(f"{folder}: no such folder")
            served = {folder.resolve().name: folder for folder in models}
        server = Server(served, host=host, grpc_port=port, rest_port=rest_port)
        try:
            server.start()
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
        for number in (signal.SIGTERM, signal.SIGINT):  # said again, it is not quicker
            signal.signal(number, signal.SIG_IGN)
        console.print("finishing the requests in flight")
    server.stop()
    console.print("stopped")


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="the served model's name")],
    rows: Annotated[
        Path,
        typer.Argument(help="JSON Lines: an object of raw features a row; - is standard input"),
    ] = Path("-"),
    server: Annotated[str, typer.Option(help="gRPC address of the server")] = "127.0.0.1:8500",
) -> None:
    """Scores raw rows by a running server: a line `{"score": ...}` a row."""
    from tfctr.serving import Client

    with _clear_errors(), Client(server, model) as client:
        for batch in _batches(rows):
            columns = {name: [row.get(name) for row in batch] for name in _names(batch)}
            try:
                scores = client.predict(columns)
            except (ValueError, TypeError) as error:
                raise DataError(f"{rows}: {error}") from None
            for score in scores:
                typer.echo(json.dumps({"score": float(score)}))


@app.command()
def smoke(
    model: Annotated[Path, typer.Argument(help="model folder, holding numbered versions")],
    server: Annotated[str, typer.Option(help="gRPC address of the server")] = "127.0.0.1:8500",
    label: Annotated[
        str | None, typer.Option(help="of the version that is asked; the newest if not given")
    ] = None,
) -> None:
    """Asks a running server the warm-up requests of the version that answers, and compares the
    answers with those of the version's own graph. The exit status is 1 where they differ."""
    from tfctr.serving.smoke import smoke as ask

    with _clear_errors():
        found = ask(model, server, label)
        _say(
            f"{model.resolve().name}: version {found.version} at {server} answers as its graph "
            f"does: {found.requests} requests, largest difference {found.difference:.1g}"
        )


@app.command("download")
def download_archive(
    name: Annotated[str, typer.Argument(help=", ".join(ARCHIVES))],
    directory: Annotated[
        Path | None, typer.Option(help="where to keep it; TFCTR_DATA_HOME if not given")
    ] = None,
) -> None:
    """Fetches a public data set from its publisher, with a checksum."""
    with _clear_errors():
        if name not in ARCHIVES:
            raise ConfigError(f"found {name!r}; allowed: {', '.join(ARCHIVES)}")
        console.print(str(download(name, directory)), soft_wrap=True)


def _print_metrics(path: Path) -> None:
    from tfctr.metrics import print_report

    print_report(read_manifest(path) or {}, console)


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


if __name__ == "__main__":
    app()
