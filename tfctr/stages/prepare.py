"""The first stage of every run: raw logs to a dataset directory."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from tfctr.config import DataConfig, NoInput, digest
from tfctr.data.manifest import FORMAT, read_manifest
from tfctr.data.summary import described, warnings
from tfctr.stages.stage import Stage, build

MANIFEST = "manifest.json"  # of a directory that a Beam job has written


class Prepare(Stage):
    """The dataset directory `<work>/<data's name>`, written by `beam_pipelines.prepare`.

    Args:
        config: of the data.
        folder: the directory.
        beam_args: options for Beam.
    """

    name = "prepare"
    manifest_name = MANIFEST
    is_data = True
    # Whether it has the rows and vocabularies of an earlier dataset of its folder, and more, as
    # `DaysSoFar` may; and the config of those rows that have come since, if only such have.
    grows: bool = False
    added: DataConfig | None = None

    def __init__(
        self, config: DataConfig, folder: Path, beam_args: Sequence[str] | None = None
    ) -> None:
        self.config = config
        self.folder = self.path = folder
        self.beam_args = None if beam_args is None else list(beam_args)

    @property
    def made_from(self) -> Any:
        """Like `tfctr.config.data_digest`: with the log's files as they are now or, if they are
        missing, as they were."""
        from tfctr.data.sources import inputs_of

        try:
            inputs = inputs_of(self.config)
        except NoInput:
            found = read_manifest(self.manifest_path) or {}
            if found.get("config_digest") != digest(self.config):
                raise
            inputs = found["inputs"]
        return [digest(self.config), inputs]

    def compute_key(self) -> str:
        return digest(self.made_from)

    def is_done(self) -> bool:
        found = read_manifest(self.manifest_path)
        if found is None or found.get("format") != FORMAT:
            return False
        return digest([found.get("config_digest"), found.get("inputs")]) == self.key()

    def make(self, console: Console) -> None:
        from beam_pipelines.prepare import prepare

        config, folder = self.config, self.folder
        console.print(f"[bold]prepare[/] {config.name} -> {folder}", soft_wrap=True)
        logging.getLogger("apache_beam").setLevel(logging.WARNING)
        start = time.perf_counter()
        with _pieces_done(config, folder, console):
            manifest = prepare(config, str(folder), self.beam_args)
        for line in described(manifest):
            console.print(line, highlight=False, soft_wrap=True)
        for warning in warnings(manifest):
            console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
        console.print(f"{time.perf_counter() - start:.0f} s")
        if manifest["counts"]["bad"]:
            console.print(f"bad rows are in {folder / 'dead_letters'}", soft_wrap=True)


def prepare(
    config: DataConfig,
    folder: Path,
    beam_args: Sequence[str] | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """The manifest of the dataset in `folder`, which is prepared first if needed."""
    stage = Prepare(config, folder, beam_args)
    build(stage, console or Console())
    return read_manifest(stage.manifest_path) or {}


class SideOutputs(Stage):
    """Side outputs of a dataset: shards with more fields of the same rows, written by a Beam job.

    A subclass implements the job (`write`) and the text that is printed for a split (`describe`).

    Args:
        config: of the job, with `name` and `data`.
        dataset: the stage of the dataset.
        work: the folder of the directory, `<work>/<config's name>`.
        reads: other stages that the job reads.
    """

    manifest_name = MANIFEST
    is_data = True

    def __init__(
        self, config: Any, dataset: Prepare, work: Path, reads: Sequence[Stage] = ()
    ) -> None:
        self.config = config
        self.dataset = dataset
        self.folder = self.path = work / config.name
        self.reads = (dataset, *reads)

    def write(self, beam_args: list[str] | None) -> dict[str, Any]:
        """Runs the job and returns the manifest that it has written."""
        raise NotImplementedError

    def describe(self, split: str, counts: dict[str, Any]) -> str:
        """The text to print for a split; "" for none."""
        return ""

    @property
    def made_from(self) -> Any:
        return digest(self.config)

    def is_done(self) -> bool:
        expected = {
            "format": FORMAT,
            "config_digest": self.made_from,
            "data": self.dataset.key(),
        }
        found = read_manifest(self.manifest_path) or {}
        return expected.items() <= found.items()

    def make(self, console: Console) -> None:
        console.print(f"[bold]{self.name}[/] {self.config.name} -> {self.folder}", soft_wrap=True)
        logging.getLogger("apache_beam").setLevel(logging.WARNING)
        start = time.perf_counter()
        manifest = self.write(self.dataset.beam_args)
        for split, counts in manifest["splits"].items():
            if text := self.describe(split, counts):
                console.print(text)
        rows = sum(counts["rows"] for counts in manifest["splits"].values())
        seconds = time.perf_counter() - start
        console.print(f"{rows:,} rows; {seconds:.0f} s, {rows / seconds:,.0f} rows/s")


@contextmanager
def _pieces_done(config: DataConfig, folder: Path, console: Console) -> Iterator[None]:
    """A progress bar that counts the workers' files in the temporary folder."""
    from tfctr.data.sources import open_source

    pieces = len(open_source(config).events.pieces())
    done = threading.Event()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("pieces cleaned, split, written", total=3 * pieces)

        def watch() -> None:
            while not done.wait(0.5):
                found = list(folder.parent.glob(f"{folder.name}.tmp-*"))
                if found:
                    names = {p.name for p in found[-1].glob("*/*")}  # the same in each split
                    ends = (".feather", ".split", ".tfrecord", ".tfrecord.gz")
                    bar.update(task, completed=sum(name.endswith(ends) for name in names))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
