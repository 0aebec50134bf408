"""The configs of a log by days and of a rollout, whose models are trained day by day."""

import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, ValidationError, model_validator

from tfctr.config.base import ConfigError, FolderName, chosen, digest, from_file, load
from tfctr.config.data import CategoricalOfLog, DataConfig, FileSource, Split
from tfctr.config.method import Method, registered
from tfctr.config.run import BackboneConfig, Export, RunConfig
from tfctr.config.training import PartTraining
from tfctr.schema import Categorical, Strict

ANY_DAY = "{day}"  # in paths; replaced by a day such as 2024-01-31
Days = Annotated[int, Field(ge=1)]


class Domain(Strict):
    """The feature that tells organic rows from ads, and its value for each of the two domains."""

    feature: str
    organic: str = "organic"
    ads: str = "ads"

    @property
    def values(self) -> dict[str, str]:
        return {"organic": self.organic, "ads": self.ads}


class DaysConfig(Strict):
    """A log of two domains, kept by day (UTC), with vocabularies that only grow.

    The source is one log of all days. With `{day}` in `events`, each day has its own files.
    """

    name: FolderName
    data: Annotated[DataConfig, from_file(lambda: DataConfig)]  # without its split
    domain: Domain
    first: datetime.date  # the first day of the log
    measured_days: Days = 28  # first days, on which means and buckets of numbers are measured
    ready: str | None = None  # path, with {day}, of a file that exists once the day is complete

    @model_validator(mode="after")
    def _fits_the_data(self) -> "DaysConfig":
        data = self.data
        if data.name == self.name:
            raise ValueError(f"name: {self.name!r} is the data's name too; they share a folder")
        names = [feature.name for feature in data.features if isinstance(feature, Categorical)]
        if self.domain.feature not in names:
            raise ValueError(
                f"domain.feature: {self.domain.feature!r} is not a categorical feature; those are: "
                f"{', '.join(names)}"
            )
        if data.time is None or data.time.unit == "none":
            raise ValueError("data: days are of dates, which need time.unit: s, ms or us")
        if data.user is None or data.item is None:
            raise ValueError("data: needs the keys 'user' and 'item', whose vectors are kept")
        if data.min_history:
            raise ValueError(
                f"data: min_history is {data.min_history}; a log by day does not count the events "
                "of earlier days, so leave it out"
            )
        if isinstance(data.split, Split) and data.split.hold_out is not None:
            raise ValueError(
                "data: split.hold_out leaves out training rows; a log by day has no split, so "
                "leave it out"
            )
        for feature in data.features:
            if isinstance(feature, CategoricalOfLog) and feature.tokens is not None:
                raise ValueError(
                    f"data: feature {feature.name!r} has tokens of files; vocabularies of a log by "
                    "day grow by the tokens of each day's rows only, so leave the key out"
                )
        if self.ready is not None and ANY_DAY not in self.ready:
            raise ValueError(f"ready: needs {ANY_DAY} in the path, found {self.ready!r}")
        return self

    @property
    def has_files_by_day(self) -> bool:
        """Whether each day has files of its own."""
        return isinstance(self.data.source, FileSource) and ANY_DAY in str(self.data.source.events)

    def days_through(self, last: datetime.date) -> list[datetime.date]:
        """The days from `first` to `last`, both included.

        Raises:
            ConfigError: `last` is before `first`.
        """
        if last < self.first:
            raise ConfigError(f"{self.name}: found the day {last}; the log starts on {self.first}")
        number = (last - self.first).days + 1
        return [self.first + datetime.timedelta(days=i) for i in range(number)]

    def for_days(self, days: Iterable[datetime.date]) -> DataConfig:
        """The data config with a source that holds these days; it may hold others too."""
        if not self.has_files_by_day:
            return self.data
        assert isinstance(self.data.source, FileSource)
        events = self.data.source.events
        patterns = (events,) if isinstance(events, str) else events
        paths = tuple(pattern.replace(ANY_DAY, str(day)) for day in days for pattern in patterns)
        source = self.data.source.model_copy(update={"events": paths})
        return self.data.model_copy(update={"source": source})

    def rows_of(self, days: Sequence[datetime.date]) -> DataConfig:
        """The data config of the rows of some days, ascending; all are training rows."""
        data = self.for_days(days)
        assert data.time is not None  # `_fits_the_data`
        within = {"since": days[0], "before": days[-1] + datetime.timedelta(days=1)}
        split = Split(by="random", valid=0, test=0)
        return data.model_copy(update={"time": data.time.model_copy(update=within), "split": split})


class TinyConfig(Strict):
    """The tiny model of all organic rows so far (TPM), and its snapshots."""

    model: BackboneConfig
    training: PartTraining = PartTraining(epochs=1)
    every: Days = 28  # days between two trainings; each one ends with a snapshot
    snapshots: int = Field(3, ge=1)  # number of latest ones that the other models read


class CompleteConfig(Strict):
    """The model of organic rows (CPM) that the ads model starts from; both are built alike."""

    training: PartTraining = PartTraining(epochs=1)
    every: Days | None = 7  # days between two trainings; None: only one, before the first day
    window: Days = 28  # latest days whose rows it is trained on
    reset_statistics: bool = True  # of batch normalisations, when the ads model starts


class AdsConfig(Strict):
    """The model that is served (A-CTR)."""

    training: PartTraining = PartTraining(epochs=1)
    window: Days | None = 14  # latest days to train on if it does not continue; None: all
    domains: Literal["ads", "both"] = "ads"  # domains of its training rows
    restarts: bool = False  # trained from scratch every day, on the whole window


class RolloutConfig(Strict):
    """An ads model retrained every day (E-CDCTR, arXiv:2408.16238): `tfctr rollout FILE`."""

    name: FolderName
    days: Annotated[DaysConfig, from_file(lambda: DaysConfig)]
    start: datetime.date  # the first day that is served
    end: datetime.date | None = None  # the last day
    model: BackboneConfig  # of the complete model and of the ads model
    # Methods around that model, the innermost first; the snapshots are read inside all of them.
    frameworks: tuple[Annotated[SerializeAsAny[Method], chosen(registered)], ...] = ()
    methods_every: Days = 7  # days after which the methods' tables are made again
    tiny: TinyConfig | None = None
    complete: CompleteConfig | None = None
    ads: AdsConfig = AdsConfig()
    missing: Literal["wait", "skip"] = "wait"  # what to do if a day is missing
    inactive_days: Days = 14  # a user is inactive after so many days without a row
    export: Export | None = Export()  # None: nothing is exported

    @model_validator(mode="after")
    def _is_in_order(self) -> "RolloutConfig":
        if self.name == self.days.name:
            raise ValueError(f"name: {self.name!r} is the days' name too; they share a folder")
        measured = self.days.first + datetime.timedelta(days=self.days.measured_days)
        if self.start < measured:
            raise ValueError(
                f"start: found {self.start}; numbers are measured on the days before {measured} "
                "(days.first, days.measured_days)"
            )
        if self.end is not None and self.end < self.start:
            raise ValueError(f"end: found {self.end}, which is before start, {self.start}")
        if self.tiny is not None:
            data = self.days.data
            read = self.tiny.model.features
            missing = [key for key in (data.user, data.item) if read and key not in read]
            if missing:
                raise ValueError(
                    f"tiny.model.features: {missing[0]!r} is missing; snapshots hold its vectors"
                )
        return self

    @model_validator(mode="after")
    def _fits_the_methods(self) -> "RolloutConfig":
        for method in self.frameworks:
            if not method.by_days:
                known = [name for name, cls in registered().items() if cls.by_days]
                raise ValueError(
                    f"frameworks: {method.name!r} needs a whole dataset, which a log by days is "
                    f"not; a rollout can use: {', '.join(known)}"
                )
            method.check_rollout()
        try:
            self.as_run()
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        return self

    def as_run(self) -> RunConfig:
        """The ads model as a run on all rows of the log."""
        return RunConfig(
            name=self.name,
            frameworks=self.frameworks,
            data=self.days.data,
            model=self.model,
            training=self.ads.training,
        )


def with_data(config: Any, data: DataConfig, other: DataConfig) -> Any:
    """A config in which `other` takes the place of `data` wherever it is named."""
    if isinstance(config, DataConfig):
        return other if digest(config) == digest(data) else config
    if not isinstance(config, Strict):
        return config
    changed = {
        name: with_data(value, data, other) for name, value in config if isinstance(value, Strict)
    }
    return config.model_copy(update=changed)


def load_days(path: str | Path) -> DaysConfig:
    """Reads a days config; see `tfctr.config.base.load`."""
    return load(path, DaysConfig)


def load_rollout(path: str | Path, changes: Iterable[str] = ()) -> RolloutConfig:
    """Reads a rollout config; see `tfctr.config.base.load`."""
    return load(path, RolloutConfig, changes)
