"""The command `tfctr refresh`."""

from typing import Annotated

import typer

from tfctr.cli.app import BeamArgs, ConfigFile, Work, app, clear_errors, console
from tfctr.config import ConfigError, load_data, load_run
from tfctr.frameworks.statistics.config import Statistics
from tfctr.stages import DEFAULT_WORK, Run, build


@app.command()
def refresh(
    config: ConfigFile,
    log: Annotated[str, typer.Option(help="YAML file of the data whose log is read, all of it")],
    add: Annotated[
        bool, typer.Option("--add", help="Add its events to those of the last refresh.")
    ] = False,
    work: Work = DEFAULT_WORK,
    beam: BeamArgs = None,
) -> None:
    """Exports a trained student again, with statistics of a later log."""
    with clear_errors():
        from tfctr.frameworks.statistics.stages import LatestTables, Refresh

        run = Run(load_run(config), work, console, beam)
        method = next((m for m in run.config.frameworks if isinstance(m, Statistics)), None)
        if method is None:
            raise ConfigError(f"{config}: frameworks: there are no statistics to refresh")
        run.trained.refuse_untrained()
        tables = LatestTables(method.tables, load_data(log), add, run.dataset, work)
        version = build(Refresh(run.trained, tables), console)
        console.print(f"SavedModel: {version}", soft_wrap=True)
