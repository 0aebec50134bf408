"""The app, options and errors that all commands of `tfctr` share.

The files of commands import what only some commands need in the commands: `tfctr --help` imports
them all, and is quick.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tfctr.quiet import quieten

if not sys.warnoptions:  # the user's own setting
    for text in ("Gradients do not exist", "Skipping variable loading for optimizer"):
        # A trained part is a part only; a model is saved without its optimizer.
        warnings.filterwarnings("ignore", f".*{text}")

app = typer.Typer(
    help="Turns offline knowledge into click-through-rate models that are cheap to serve.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def before_any_command() -> None:
    quieten()


console = Console()
errors = Console(stderr=True)

ConfigFile = Annotated[
    str,
    typer.Argument(help="YAML file of a run, or a variant in it: file.yaml#name", metavar="CONFIG"),
]
Changes = Annotated[
    list[str] | None,
    typer.Argument(help="keys to change, e.g. training.seed=2", metavar="KEY=VALUE"),
]
Work = Annotated[Path, typer.Option(help="folder of datasets and runs")]
BeamArgs = Annotated[
    list[str] | None,
    typer.Option("--beam", help="an option for Beam, e.g. --beam=--runner=FlinkRunner; repeatable"),
]


@contextmanager
def clear_errors() -> Iterator[None]:
    """Prints a user's mistake as one line, without a traceback."""
    try:
        yield
    except Exception as error:
        from tfctr.config import ConfigError
        from tfctr.data import files
        from tfctr.data.archives import DownloadError
        from tfctr.data.manifest import DataError
        from tfctr.serving.errors import ServingError

        known = (ConfigError, DataError, DownloadError, ServingError, ConnectionError, TimeoutError)
        text = str(error)
        if not isinstance(error, known):
            if files.NO_SPACE not in text:
                raise
            line = next(line for line in text.splitlines() if files.NO_SPACE in line)
            text = f"{line.strip()}; free some space and run it again: it resumes"
        errors.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
