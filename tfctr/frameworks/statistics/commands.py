"""The command `tfctr statistics`."""

from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.app import BeamArgs, Work, app, clear_errors, console
from tfctr.work import DEFAULT_WORK


@app.command()
def statistics(
    file: Annotated[Path, typer.Argument(help="YAML file of tables", metavar="FILE")],
    work: Work = DEFAULT_WORK,
    beam: BeamArgs = None,
) -> None:
    """Makes tables of items from what users said of them, by a Beam job."""
    with clear_errors():
        from tfctr.config import load
        from tfctr.frameworks.statistics.config import TablesConfig
        from tfctr.frameworks.statistics.stages import Tables
        from tfctr.stages import Prepare, build

        config = load(file, TablesConfig)
        dataset = Prepare(config.data, work / config.data.name, beam)
        build(Tables(config, dataset, work), console)
