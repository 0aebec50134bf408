"""The stages before the student: tables of items, and the scale of the numbers."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tfctr.config import digest
from tfctr.frameworks.statistics.config import Statistics, TablesConfig, attribute_columns
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

    def make(self, console: Console) -> None:
        from beam_pipelines.statistics import write_statistics

        console.print(f"[bold]{self.name}[/] {self.config.name} -> {self.path}", soft_wrap=True)
        logging.getLogger("apache_beam").setLevel(logging.WARNING)
        args = self.dataset.beam_args
        about = write_statistics(
            self.config,
            str(self.dataset.path),
            str(self.path),
            self.key(),
            None if args is None else list(args),
        )
        console.print(
            f"{about['events']:,} events of {about['items']:,} items; a grade is expected to "
            f"{about['rmse'][-1]:.4f} (from {about['rmse'][0]:.4f})"
        )

    def load(self) -> dict[str, np.ndarray]:
        """The arrays of `tables.npz`."""
        with np.load(self.path / "tables.npz") as found:
            return dict(found)


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
        return [self.config.knots, self.config.fading]

    def make(self, console: Console) -> dict[str, Any]:
        from tfctr.data.dataset import Dataset
        from tfctr.frameworks.statistics.user_statistics import knots_of

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
        """Gives `UserStatistics` its tables and scale."""
        statistics.set_tables(self.tables.load())
        with np.load(self.path) as found:
            statistics.set_scale(**found)


def create_statistics(config: Statistics, schema: Schema) -> Any:
    """`UserStatistics` without tables. `schema` is the dataset's."""
    from tfctr.frameworks.statistics.user_statistics import UserStatistics

    tables = config.tables
    return UserStatistics(
        schema[tables.items].num_ids,
        schema[tables.grades].num_ids,
        attribute_columns(tables, schema)[""],
        tables.factors,
        config.knots,
        config.fading,
    )


def numbers_of_rows(
    statistics: Any, config: TablesConfig, features: Mapping[str, Any], training: bool
) -> np.ndarray:
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
    return np.asarray(statistics.of_candidates(user, items, population)[:, 0])
