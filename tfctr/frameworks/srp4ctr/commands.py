"""The command `tfctr sequences`."""

from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.app import BeamArgs, Work, app, clear_errors, console
from tfctr.work import DEFAULT_WORK


@app.command()
def sequences(
    file: Annotated[Path, typer.Argument(help="YAML file of sequences", metavar="FILE")],
    work: Work = DEFAULT_WORK,
    beam: BeamArgs = None,
) -> None:
    """Cuts users' events into windows, the training data of a sequence encoder, by a Beam job."""
    with clear_errors():
        from tfctr.config import load
        from tfctr.frameworks.srp4ctr.config import SequencesConfig
        from tfctr.frameworks.srp4ctr.stages import Windows
        from tfctr.stages import Prepare, build

        config = load(file, SequencesConfig)
        dataset = Prepare(config.data, work / config.data.name, beam)
        build(Windows(config, dataset, work), console)
