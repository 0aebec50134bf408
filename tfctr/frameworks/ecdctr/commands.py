"""The commands of rollouts."""

import datetime
from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.app import BeamArgs, Work, app, clear_errors, console
from tfctr.cli.report import report_of
from tfctr.work import DEFAULT_WORK

MISSING_DAY = 75  # exit status; EX_TEMPFAIL of sysexits.h: try again later


@app.command()
def rollout(
    file: Annotated[Path, typer.Argument(help="YAML file of a rollout", metavar="FILE")],
    through: Annotated[
        str | None,
        typer.Option(
            help="the last day, which must be over, e.g. 2024-01-31; default: the file's end"
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="only print what each day has done, or would do")
    ] = False,
    work: Work = DEFAULT_WORK,
    beam: BeamArgs = None,
) -> None:
    """Day by day: evaluates the served ads model, trains it further, exports it.

    Days that are done are skipped. The exit status is 75 if a day is missing that the file says to
    wait for. Then all days before it are done, and a scheduler should try again later."""
    with clear_errors():
        from tfctr.frameworks.ecdctr.config import load_rollout
        from tfctr.frameworks.ecdctr.rollout import Rollout

        made = Rollout(load_rollout(file), work, console)
        if plan:
            made.print_plan(_as_day(through))
            return
        missing = made.run(_as_day(through), beam)
    if missing is not None:
        raise typer.Exit(MISSING_DAY)


@report_of("days")
def write_report(files: list[str], output: Path | None, work: Path) -> Path:
    """The page of rollouts, with their daily curves and differences from the first."""
    from tfctr.frameworks.ecdctr.config import load_rollout
    from tfctr.frameworks.ecdctr.report import EvaluatedRollout, write_page
    from tfctr.frameworks.ecdctr.rollout import Rollout

    path = output or Path("rollouts.html")
    folders = [Rollout(load_rollout(file), work).folder for file in files]
    write_page([EvaluatedRollout.read(folder) for folder in folders], path)
    return path


def _as_day(text: str | None) -> datetime.date | None:
    try:
        return text and datetime.date.fromisoformat(text)  # type: ignore[return-value]
    except ValueError:
        from tfctr.config import ConfigError

        raise ConfigError(f"--through: found {text!r}; give a day such as 2024-01-31") from None
