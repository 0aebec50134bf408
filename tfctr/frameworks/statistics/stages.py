"""The stages before the student: tables of items, and the scale of the numbers."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tfctr.config import ConfigError, DataConfig, digest
from tfctr.data import files
from tfctr.data.manifest import DataError
from tfctr.frameworks.statistics.config import Statistics, TablesConfig, attribute_sizes
from tfctr.schema import Schema
from tfctr.stages import Prepare, Stage
from tfctr.stages.prepare import MANIFEST

SAMPLE = 200_000  # training rows whose numbers are measured
BATCH = 4096


class Tables(Stage):
    """The tables of items, by `beam_pipelines.statistics`."""

    name = "statistics"
    manifest_name = MANIFEST
    is_data = True

    def __init__(self, config: TablesConfig, dataset: Prepare, work: Path) -> None:
        self.config = config
        self.dataset = dataset
        self.folder = self.path = work / config.name
        self.reads = (dataset,)

    @property
    def made_from(self) -> Any:
        return digest(self.config)

    def events(self) -> tuple[DataConfig | None, bool]:
        """The log to read in place of the dataset's, if there is one, and whether its events are
        added to those of the tables that are there."""
        added = self.dataset.added if self.manifest_path.is_file() else None
        return added, added is not None

    def make(self, console: Console) -> None:
        from beam_pipelines.statistics import write_statistics

        console.print(f"[bold]{self.name}[/] {self.config.name} -> {self.path}", soft_wrap=True)
        logging.getLogger("apache_beam").setLevel(logging.WARNING)
        log, adds = self.events()
        about = write_statistics(
            self.config,
            str(self.dataset.path),
            str(self.path),
            self.key(),
            self.dataset.beam_args,
            log=log,
            add_to=str(self.path) if adds else None,
        )
        console.print(
            f"{about['events']:,} events of {about['items']:,} items; a grade is expected to "
            f"{about['rmse'][-1]:.4f} (from {about['rmse'][0]:.4f})"
        )

    def load(self) -> dict[str, np.ndarray]:
        """The arrays of `tables.npz`.

        Raises:
            DataError: they are of an earlier version.
        """
        return load_tables(str(self.path), self.config)


def load_tables(folder: str, config: TablesConfig) -> dict[str, np.ndarray]:
    """The arrays of `tables.npz` in a folder, which may be a URI.

    Raises:
        DataError: they are of an earlier version.
    """
    found = files.read_arrays(f"{folder}/tables.npz")
    if config.attributes and "attribute_sizes" not in found:
        raise DataError(
            f"{folder}: tables of an earlier version, without the sizes of attributes; delete the "
            "folder, and they are made again"
        )
    return found


class LatestTables(Tables):
    """The tables of a later log, of all its events, by the dataset's vocabularies.

    Args:
        config: of the tables that the student was trained with.
        log: the data config of the log, with the features of the dataset's.
        adds: bool. Whether its events are added to those of the latest tables.
        dataset, work: as for `Tables`.
    """

    def __init__(
        self, config: TablesConfig, log: DataConfig, adds: bool, dataset: Prepare, work: Path
    ) -> None:
        super().__init__(config, dataset, work)
        self.log = log
        self.adds = adds
        self.folder = self.path = work / f"{config.name}-latest"

    def events(self) -> tuple[DataConfig | None, bool]:
        return self.log, self.adds

    @property
    def made_from(self) -> Any:
        from tfctr.data.sources import open_source

        log = [digest(self.log), open_source(self.log).fingerprint()]
        return [super().made_from, *log, *(["added"] if self.adds else [])]

    def check(self) -> None:
        log, data = ({f.name: f for f in c.feature_schema} for c in (self.log, self.config.data))
        other = [name for name in {**data, **log} if log.get(name) != data.get(name)]
        if other:
            raise ConfigError(
                f"{self.log.name}: features: {', '.join(other)} are not those of "
                f"{self.config.data.name}, which the student was trained with"
            )


class Scale(Stage):
    """`scale.npz`: mean, deviation and quantiles of the numbers, over training rows."""

    name = "scale"

    def __init__(self, config: Statistics, tables: Tables) -> None:
        self.config = config
        self.tables = tables
        self.folder = tables.folder
        self.path = tables.folder / "scale.npz"
        self.reads = (tables,)

    @property
    def made_from(self) -> Any:
        return [self.config.knots, *self.config.of_numbers]

    def make(self, console: Console) -> dict[str, Any]:
        import tensorflow as tf

        from tfctr.data.dataset import Dataset
        from tfctr.frameworks.statistics.user_statistics import knots_of

        # The order of the shards depends on it, and a training before may have set it.
        tf.random.set_seed(0)
        config = self.config.tables
        data = Dataset.open(self.tables.dataset.path)
        statistics = create_statistics(self.config, data.schema)
        statistics.build()
        statistics.set_tables(self.tables.load())
        found = []
        for features, _ in data.train(BATCH, features=config.reads).take(-(-SAMPLE // BATCH)):
            found.append(numbers_of_rows(statistics, config, features, training=True))
        numbers = np.concatenate(found)
        spread = numbers.std(0)
        np.savez(
            self.path,
            center=numbers.mean(0),
            spread=np.where(spread > 1e-6, spread, 1.0),
            knots=knots_of(numbers, self.config.knots),
        )
        return {"rows": len(numbers)}

    def assign(self, statistics: Any) -> None:
        """Gives `UserStatistics` its scale."""
        with np.load(self.path) as found:
            statistics.set_scale(**found)


class Numbers(Stage):
    """The numbers of all rows of the dataset, by `beam_pipelines.numbers`."""

    name = "numbers"
    manifest_name = MANIFEST
    is_data = True

    def __init__(self, config: Statistics, tables: Tables) -> None:
        self.config = config
        self.tables = tables
        self.folder = self.path = tables.folder.with_name(f"{tables.folder.name}-of-rows")
        self.reads = (tables,)

    @property
    def made_from(self) -> Any:
        return self.config.of_numbers

    def make(self, console: Console) -> None:
        from beam_pipelines.numbers import write_numbers

        name = self.config.tables.name
        console.print(f"[bold]{self.name}[/] {name} -> {self.path}", soft_wrap=True)
        logging.getLogger("apache_beam").setLevel(logging.WARNING)
        write_numbers(
            self.config,
            str(self.tables.dataset.path),
            str(self.tables.path),
            str(self.path),
            self.key(),
            self.tables.dataset.beam_args,
        )


def create_statistics(config: Statistics, schema: Schema) -> Any:
    """`UserStatistics` without tables. `schema` is the dataset's."""
    from tfctr.frameworks.statistics.user_statistics import UserStatistics

    tables = config.tables
    return UserStatistics(
        schema[tables.items].num_ids,
        schema[tables.grades].num_ids,
        attribute_sizes(tables, schema),
        tables.neighbours,
        tables.factors,
        config.knots,
        config.fading,
        config.attribute_fadings,
    )


def numbers_of_rows(
    statistics: Any, config: TablesConfig, features: Mapping[str, Any], training: bool
) -> Any:
    """All numbers `[B, S]` of rows with one candidate each, not scaled.

    Args:
        statistics: `UserStatistics` with tables.
        config: of the tables.
        features: ids of `config.reads`, as the dataset gives them.
        training: whether the rows are training rows, which read the tables of the other half of the
            users.
    """
    population = statistics.population(features[config.user.name], training)
    user = statistics.encode(features[config.items], features[config.grades], population)
    items = features[config.item.name][:, None]
    return statistics.of_candidates(user, items, population)[:, 0]
