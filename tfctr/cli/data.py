"""Commands around data."""

from pathlib import Path
from typing import Annotated

import typer

from tfctr.cli.app import BeamArgs, ConfigFile, Work, app, clear_errors, console
from tfctr.data.archives import ARCHIVES, download
from tfctr.work import DEFAULT_WORK


@app.command("prepare")
def prepare_data(config: ConfigFile, work: Work = DEFAULT_WORK, beam: BeamArgs = None) -> None:
    """Makes a dataset directory of raw logs, and a run's side outputs, by Beam jobs.

    Also takes a data config."""
    with clear_errors():
        from tfctr.config import load_data, load_run, read
        from tfctr.stages import Prepare, Run, build

        if "model" in read(config):
            Run(load_run(config), work, console, beam).prepare()
            return
        data = load_data(config)
        build(Prepare(data, work / data.name, beam), console)


@app.command()
def textify(
    file: Annotated[Path, typer.Argument(help="YAML file of texts", metavar="FILE")],
    work: Work = DEFAULT_WORK,
    beam: BeamArgs = None,
) -> None:
    """Writes every row's texts in the tokens of an encoder, by a Beam job."""
    with clear_errors():
        from tfctr.config import load
        from tfctr.language.config import TextConfig
        from tfctr.stages import Prepare, build
        from tfctr.stages.texts import Textify

        config = load(file, TextConfig)
        dataset = Prepare(config.data, work / config.data.name, beam)
        build(Textify(config, dataset, work), console)


@app.command()
def embed(
    file: Annotated[Path, typer.Argument(help="YAML file of texts", metavar="FILE")],
    feature: Annotated[
        str | None, typer.Option(help="whose tokens get vectors; default: the data's item")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="name of the text; default: the only one of items")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="folder to write; default: WORK/<file's name>-vectors")
    ] = None,
    work: Work = DEFAULT_WORK,
    beam: BeamArgs = None,
) -> None:
    """Writes vectors of the texts of all items of a log, by a Beam job, for `vectors`."""
    with clear_errors():
        from tfctr.config import load
        from tfctr.language.config import TextConfig
        from tfctr.stages import Prepare, build
        from tfctr.stages.texts import Embed

        config = load(file, TextConfig)
        dataset = Prepare(config.data, work / config.data.name, beam)
        build(Embed(config, feature, text, dataset, work, output), console)


@app.command("download")
def download_archive(
    name: Annotated[str, typer.Argument(help=", ".join(ARCHIVES))],
    directory: Annotated[
        Path | None, typer.Option(help="folder to keep it in; default: TFCTR_DATA_HOME")
    ] = None,
) -> None:
    """Downloads a public data set from its publisher and verifies its checksum."""
    with clear_errors():
        if name not in ARCHIVES:
            from tfctr.config import ConfigError

            raise ConfigError(f"found {name!r}; allowed: {', '.join(ARCHIVES)}")
        console.print(str(download(name, directory)), soft_wrap=True)
