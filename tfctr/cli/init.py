"""A first config for one's own log."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.app import app, clear_errors, console


@app.command("init")
def init_config(
    log: Annotated[
        list[str], typer.Argument(help="files of the log: paths, a folder or globs", metavar="LOG")
    ],
    output: Annotated[
        Path | None, typer.Option(help="file to write; default: LOG's name with .yaml")
    ] = None,
    items: Annotated[str | None, typer.Option(help="files of a table of items")] = None,
    users: Annotated[str | None, typer.Option(help="files of a table of users")] = None,
) -> None:
    """Writes the config of a run on a log of your own, as a sample of its rows suggests it.

    What the sample cannot tell is a question in a comment. Reads CSV, TSV, JSON Lines and
    Parquet."""
    with clear_errors():
        from tfctr.config import ConfigError
        from tfctr.guess import default_output, guess

        path = default_output(log) if output is None else output
        if path.exists():
            raise ConfigError(f"{path}: is there already; name another file with --output")
        if not path.parent.is_dir():
            raise ConfigError(f"{path}: no folder {path.parent}; make it first")
        guessed = guess(log, path, {"users": users, "items": items})
        with path.open("x", encoding="utf-8") as file:
            file.write(guessed.text)
        line = f"{path}: from a sample of {guessed.rows:,} rows, with "
        line += _number(guessed.questions, "question") + " in comments"
        if guessed.left_out:
            line += f"; {_number(guessed.left_out, 'column')} left out"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
        for decision in guessed.decisions:
            console.print(f"to decide: {decision}", markup=False, highlight=False, soft_wrap=True)
        run = f"next: tfctr run {shlex.quote(str(path))}"
        console.print(run, markup=False, highlight=False, soft_wrap=True)


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
