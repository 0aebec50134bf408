"""The stages of a rollout's methods, made of the days so far."""

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tfctr.config import DataConfig, digest
from tfctr.data.day_log import DOMAINS, DayLog
from tfctr.data.manifest import FORMAT, write_manifest
from tfctr.frameworks.ecdctr.config import RolloutConfig, with_data
from tfctr.stages import Prepare, Run, Stage
from tfctr.stages.stage import build_missing

FOLDER = "methods"  # in the rollout's


class DaysSoFar(Prepare):
    """The days of a log up to one, as the dataset that a method's stages read.

    All rows are training rows. They are not copied: it has only the vocabularies of its own, which
    are those of its last day.

    Args:
        config: of the log's rows of these days.
        folder: the directory.
        beam_args: options for Beam.
        log: the log by days.
        days: whose rows it has, ascending.
        through: number, in the log, of the day whose vocabularies it has.
        grows: whether there was an earlier dataset of the same folder.
        added: the config of those rows that have come since it; None if there was none, or other
            rows have come too.
    """

    name = "days"

    def __init__(
        self,
        config: DataConfig,
        folder: Path,
        beam_args: Sequence[str] | None,
        log: DayLog,
        days: Sequence[datetime.date],
        through: int,
        grows: bool,
        added: DataConfig | None,
    ) -> None:
        super().__init__(config, folder, beam_args)
        self.log = log
        self.days = days
        self.through = through
        self.grows = grows
        self.added = added

    def make(self, console: Console) -> None:
        from tfctr.data.days import DaysDataset
        from tfctr.data.sources import inputs_of

        rows = [(day, domain) for day in self.days for domain in DOMAINS]
        data = DaysDataset(self.log, {"train": rows, "valid": [], "test": []}, self.through)
        data.write_vocabularies(self.folder / "vocabularies")
        way = os.path.relpath(self.log.folder, self.folder)
        train = data.manifest["splits"]["train"]
        shards = [{**shard, "name": f"{way}/{shard['name']}"} for shard in train["shards"]]
        manifest = {
            **data.manifest,
            "format": FORMAT,
            "config": self.config.model_dump(mode="json"),
            "config_digest": digest(self.config),
            "inputs": inputs_of(self.config),
            "grows_from": digest(self.log.config),
            "splits": {**data.manifest["splits"], "train": {**train, "shards": shards}},
        }
        write_manifest(manifest, str(self.manifest_path))


class _MethodsRun(Run):
    """The graph of the ads model as if it were a run on the days so far."""

    def __init__(self, config: Any, work: Path, console: Console, dataset: DaysSoFar) -> None:
        super().__init__(config, work, console, dataset.beam_args)
        self.days = dataset

    @property
    def dataset(self) -> Prepare:
        return self.days


def methods_of(
    config: RolloutConfig,
    log: DayLog,
    day: datetime.date,
    folder: Path,
    console: Console,
    beam_args: Sequence[str] | None = None,
    since: tuple[datetime.date, int] | None = None,
) -> Mapping[str, Mapping[str, Stage]]:
    """The stages of a rollout's methods, by method and role.

    Args:
        config: of the rollout.
        log: the log by days.
        day: the last one whose rows the stages read.
        folder: of the rollout.
        console: for progress.
        beam_args: options for Beam.
        since: if they were built before, the day after the last one then, and the number in the log
            of the day whose vocabularies they had.
    """
    days = [d for d in config.days.days_through(day) if d in log.days]
    data = config.days.rows_of(days)
    added = None
    if since is not None:
        come = [d for d in days if log.days[d]["number"] > since[1]]
        if come and all(d >= since[0] for d in come):  # none was late
            added = config.days.rows_of(come)
    through = max(log.days[d]["number"] for d in days)
    work = folder / FOLDER
    dataset = DaysSoFar(
        data, work / data.name, beam_args, log, days, through, since is not None, added
    )
    methods = tuple(with_data(method, config.days.data, data) for method in config.frameworks)
    run = config.as_run().model_copy(update={"data": data, "frameworks": methods})
    return _MethodsRun(run, work, console, dataset).before


def build_methods(
    config: RolloutConfig,
    stages: Mapping[str, Mapping[str, Stage]],
    console: Console,
    starts: bool,
) -> None:
    """Builds what the models of a day need.

    Args:
        config: of the rollout.
        stages: those of `methods_of`.
        console: for progress.
        starts: whether a model starts from scratch; else only its data is needed.
    """
    wanted: list[Stage] = []
    for method in config.frameworks:
        made = stages[method.name]
        wanted += made.values() if starts else method.data_stages(made)
    build_missing(wanted, console)
