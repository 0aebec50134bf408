"""The page of runs, or of what else a method's commands write pages of."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.app import Work, app, clear_errors, console
from tfctr.work import DEFAULT_WORK

Writer = Callable[[list[str], Path | None, Path], Path]
_writers: dict[str, Writer] = {}


def report_of(key: str) -> Callable[[Writer], Writer]:
    """Registers what writes the page of files that have a key which run configs do not have.

    It takes the files, the path to write, which may be None, and the folder of all artefacts, and
    returns the path.
    """

    def register(writer: Writer) -> Writer:
        _writers[key] = writer
        return writer

    return register


@app.command()
def report(
    configs: Annotated[
        list[str],
        typer.Argument(help="YAML files of runs, or of rollouts; the first is the baseline"),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="the HTML file to write; default: report.html, of one run in its folder"),
    ] = None,
    work: Work = DEFAULT_WORK,
) -> None:
    """Writes a page with pictures of one run, or of several side by side.
    What is not trained or evaluated yet is. Also takes rollouts."""
    with clear_errors():
        from tfctr.config import ConfigError

        kinds = [_kind(config) for config in configs]
        if len({*kinds}) > 1:
            other = next(i for i, kind in enumerate(kinds) if kind != kinds[0])
            raise ConfigError(
                f"{configs[other]}: runs and rollouts do not fit on one page with {configs[0]}; "
                "give files of one kind"
            )
        write = _writers[kinds[0]] if kinds[0] else _of_runs
        console.print(f"page: {write(configs, output, work)}", soft_wrap=True)


def _kind(config: str) -> str:
    """The key of a writer that a file has; "" of a run."""
    from tfctr.config import read

    return next((key for key in _writers if key in read(config)), "")


def _of_runs(configs: list[str], output: Path | None, work: Path) -> Path:
    from tfctr.config import load_run
    from tfctr.report import Report, Settings, write_runs
    from tfctr.report.page import check_installed
    from tfctr.stages import Run, build

    check_installed()
    runs = [Run(load_run(config), work, console) for config in configs]
    settings = [Settings.of_file(config) for config in configs]
    for run in runs:
        run.evaluate()
    if len(runs) == 1 and output is None:
        return build(Report(runs[0], settings[0]), console)
    path = output or Path("report.html")
    write_runs(runs, settings, path)
    return path
