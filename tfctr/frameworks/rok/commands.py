"""The command `tfctr retrieve`."""

from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.app import BeamArgs, Work, app, clear_errors, console
from tfctr.work import DEFAULT_WORK


@app.command()
def retrieve(
    file: Annotated[Path, typer.Argument(help="YAML file of a retrieval", metavar="FILE")],
    work: Work = DEFAULT_WORK,
    beam: BeamArgs = None,
) -> None:
    """Finds the most similar earlier rows of every row, by a Beam job."""
    with clear_errors():
        from tfctr.config import load
        from tfctr.frameworks.rok.stages import Retrieve
        from tfctr.retrieval.config import RetrievalConfig
        from tfctr.stages import Prepare, build

        config = load(file, RetrievalConfig)
        dataset = Prepare(config.data, work / config.data.name, beam)
        build(Retrieve(config, dataset, work, console), console)
