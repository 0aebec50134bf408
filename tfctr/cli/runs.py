"""Commands around runs."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from tfctr.cli.app import BeamArgs, Changes, ConfigFile, Work, app, clear_errors, console
from tfctr.work import DEFAULT_WORK

DEMO = Path(__file__).parents[1] / "demo" / "dcnv2.yaml"  # a link to configs/demo; setup.py

Plan = Annotated[
    bool, typer.Option("--plan", help="only print the stages, and which of them are done")
]


@app.command("run")
def run_all(
    config: ConfigFile,
    changes: Changes = None,
    plan: Plan = False,
    work: Work = DEFAULT_WORK,
    beam: BeamArgs = None,
) -> None:
    """All stages: raw logs -> TFRecords -> trained model -> metrics -> SavedModel -> a request."""
    with clear_errors():
        run = _run(config, changes, work, beam)
        is_served = all(method.is_served for method in run.config.frameworks)
        if plan:
            from tfctr.stages import print_plan

            print_plan(run.exported if is_served else run.evaluated, console)
            return
        run.prepare()
        run.train()
        metrics_path = run.evaluate()
        version = run.export() if is_served else None
        _print_metrics(metrics_path)
        if version is not None:
            console.print(f"SavedModel: {version}", soft_wrap=True)
        console.print(f"metrics: {metrics_path}", soft_wrap=True)
        if version is not None:
            _show_request(run)
        _write_report(run, config, changes or ())


def _show_request(run: Any) -> None:
    from tfctr.cli.showcase import best_auc, show_request
    from tfctr.data.dataset import Dataset

    data = Dataset.open(run.data_folder)
    if (best := best_auc(run.config.data, data)) is not None:
        console.print(f"best possible test AUC, by the true probabilities: {best:.4f}")
    if not all(method.takes_rows for method in run.config.frameworks):
        console.print("requests to this model also need the tokens of a text: docs/language.md")
        return
    show_request(run.config.data, data, run.export_folder, console)


def _write_report(run: Any, config: str, changes: Iterable[str]) -> None:
    from tfctr.report import INSTALL, Report, Settings, is_installed
    from tfctr.stages import build

    if not is_installed():
        line = f"no report was written: it needs `{INSTALL}`"
    else:
        line = f"report: {build(Report(run, Settings.of_file(config, changes)), console)}"
    console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def demo(changes: Changes = None, plan: Plan = False, work: Work = DEFAULT_WORK) -> None:
    """The whole way on generated data, without a download: `run` with a config of this package."""
    run_all(str(DEMO), changes, plan, work)


@app.command()
def train(config: ConfigFile, changes: Changes = None, work: Work = DEFAULT_WORK) -> None:
    """Trains the model; a killed training resumes from its last checkpoint."""
    with clear_errors():
        _run(config, changes, work).train()


@app.command()
def evaluate(config: ConfigFile, changes: Changes = None, work: Work = DEFAULT_WORK) -> None:
    """Computes exact metrics on the validation and test rows."""
    with clear_errors():
        path = _run(config, changes, work).evaluate()
        _print_metrics(path)
        console.print(f"metrics: {path}", soft_wrap=True)


@app.command()
def export(config: ConfigFile, changes: Changes = None, work: Work = DEFAULT_WORK) -> None:
    """Exports a new version of the SavedModel for TF Serving."""
    with clear_errors():
        version = _run(config, changes, work).export()
        console.print(f"SavedModel: {version}", soft_wrap=True)


@app.command()
def refresh(
    config: ConfigFile,
    log: Annotated[
        str | None,
        typer.Option(
            help="YAML file of the data whose log is read, all of it, if a method needs one"
        ),
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Add its events to those of the last refresh.")
    ] = False,
    work: Work = DEFAULT_WORK,
    beam: BeamArgs = None,
) -> None:
    """Exports a trained student again: the same weights, with the latest data of its methods."""
    with clear_errors():
        from tfctr.config import load_data

        run = _run(config, None, work, beam)
        version = run.refresh(load_data(log) if log else None, add)
        console.print(f"SavedModel: {version}", soft_wrap=True)


@app.command()
def index(
    config: ConfigFile,
    changes: Changes = None,
    work: Work = DEFAULT_WORK,
    k: Annotated[int, typer.Option(min=1, help="number of items to retrieve")] = 100,
    search: Annotated[str, typer.Option(help="exact, or scann for millions of items")] = "exact",
) -> None:
    """Exports a SavedModel that retrieves candidates for `rank` from a user's history.

    Needs a run with a sequence encoder, which is trained first if needed."""
    with clear_errors():
        from tfctr.config import ConfigError

        if search not in ("exact", "scann"):
            raise ConfigError(f"--search: found {search!r}; allowed: exact, scann")
        run = _run(config, changes, work)
        run.prepare()
        console.print(f"SavedModel: {run.index(k, search)}", soft_wrap=True)


@app.command()
def compare(
    configs: Annotated[
        list[str],
        typer.Argument(help="YAML files of runs on one dataset; the first is the baseline"),
    ],
    work: Work = DEFAULT_WORK,
) -> None:
    """Compares runs with the first one: accuracy with paired intervals, segments, and cost.

    What is not trained or evaluated yet is. Times of requests are measured if all are exported."""
    with clear_errors():
        from tfctr.comparison import compare, print_comparison
        from tfctr.config import ConfigError

        if len(configs) < 2:
            raise ConfigError("compare: found one run; give two or more")
        runs = [_run(config, None, work) for config in configs]
        for run in runs:
            run.evaluate()
        print_comparison(compare(runs), console)


@app.command()
def tune(
    file: Annotated[Path, typer.Argument(help="YAML file of a search", metavar="FILE")],
    work: Work = DEFAULT_WORK,
    trials: Annotated[
        int | None, typer.Option(min=1, help="number of trials in all; default: the file's")
    ] = None,
) -> None:
    """Searches hyperparameters of a run on its validation rows; a killed search resumes."""
    with clear_errors():
        from tfctr import tuning

        best = tuning.tune(file, work, console, trials)
        console.print(f"trials: {best.parent / 'table.csv'}", soft_wrap=True)
        option = [] if work == DEFAULT_WORK else ["--work", str(work)]
        line = shlex.join(["tfctr", "run", str(best), *option])
        console.print(f"best: {line}", markup=False, soft_wrap=True)


def _run(config: str, changes: list[str] | None, work: Path, beam: list[str] | None = None) -> Any:
    from tfctr.config import load_run
    from tfctr.stages import Run

    return Run(load_run(config, changes or ()), work, console, beam)


def _print_metrics(path: Path) -> None:
    from tfctr.data.manifest import read_manifest
    from tfctr.metrics import print_report

    print_report(read_manifest(path) or {}, console)
