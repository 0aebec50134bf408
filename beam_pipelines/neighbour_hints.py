"""Writes what neighbours say of every row: similar items of its user, similar users of its item.

    python -m beam_pipelines.neighbour_hints \\
        --config configs/movielens-1m/rok/second-form/neighbours.yaml \\
        --data work/movielens-1m-long --tables work/movielens-1m-tables --output work/neighbours

It takes Beam's options too. The output has a shard for each shard of the dataset, with the same
rows in the same order: `row_id` and `hint`, the numbers of both retrievals, from strictly earlier
rows only.

A shard is read once, for the numbers of its rows' own histories and for their users' tastes. Then
the rows are grouped by item, and searched for similar users. A worker holds the rows of one group
of items.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np

from beam_pipelines.hints import WrittenHints, summarise, write_hints_of_shard
from beam_pipelines.running import job
from beam_pipelines.statistics import check_tables
from beam_pipelines.transforms.broadcast import Gather
from beam_pipelines.transforms.side_outputs import describe, fields_of, open_manifest_of
from beam_pipelines.transforms.split import IN_TRAINING
from tfctr.config import digest, load
from tfctr.data import files
from tfctr.data.arrived import check_arrived
from tfctr.data.clean import LABEL, TIME
from tfctr.data.records import read_columns
from tfctr.data.typed_rows import ROW
from tfctr.data.users import rows_by_bucket
from tfctr.frameworks.rok.config import NeighboursConfig
from tfctr.frameworks.rok.similar_users import NUMBERS, of_similar_users
from tfctr.frameworks.statistics.config import ALL_USERS, POPULATIONS
from tfctr.retrieval.similar_rows import HINT

BATCH = 2048  # rows whose histories are read at a time


class NeighbourHints(beam.PTransform):
    """Nothing -> one dict: the summary, for the manifest, of the shards in `folder`.

    Args:
        config: of the neighbours.
        data: path or URI of the dataset directory.
        manifest: its manifest.
        tables: path of `tables.npz`.
        folder: to write to.
    """

    def __init__(
        self,
        config: NeighboursConfig,
        data: str,
        manifest: dict[str, Any],
        tables: str,
        folder: str,
    ) -> None:
        super().__init__()
        splits = manifest["splits"].values()
        shards = [(shard["name"], shard["rows"]) for found in splits for shard in found["shards"]]
        self.shards = list(enumerate(shards))
        self.read = _ReadRows(config, data, manifest, tables, folder)
        self.config = config
        self.folder = folder

    def expand(self, pipeline: Any) -> beam.PCollection:
        config, folder = self.config, self.folder
        shards = pipeline | "Shards" >> beam.Create(self.shards)
        parts = (
            shards
            | "Spread" >> beam.Reshuffle()
            | "ReadRows" >> beam.ParDo(self.read)
            | "GatherItems" >> beam.GroupByKey()
            | "Search" >> beam.FlatMap(_search, config.users, config.latest)
        )
        written = (
            {"shard": shards, "parts": parts}
            | "GatherShards" >> beam.CoGroupByKey()
            | "Write" >> beam.Map(_write_shard, folder)
        )
        return (
            {"shards": written}
            | "Gather" >> Gather(shards=len(self.shards))
            | "Summarise" >> beam.Map(lambda found: summarise(found["shards"]))
        )


class _ReadRows(beam.DoFn):
    """`(number, (name, rows))` of a shard -> its rows by group of items.

    What their own histories tell is written to a file. Each worker loads the tables once.
    """

    def __init__(
        self,
        config: NeighboursConfig,
        data: str,
        manifest: dict[str, Any],
        tables: str,
        folder: str,
    ) -> None:
        self.config, self.data, self.tables, self.folder = config.tables, data, tables, folder
        self.layout = manifest["layout"]

    def setup(self) -> None:
        from tfctr.frameworks.statistics.neighbour_statistics import NeighbourStatistics

        self.found = files.read_arrays(self.tables)
        shape = (-1, self.config.neighbours)
        self.of_items = NeighbourStatistics(self.found["means"].size, self.config.neighbours)
        self.of_items.build()
        ids, similarities = self.found["neighbours"], self.found["similarities"]
        self.of_items.set_tables(ids.reshape(shape), similarities.reshape(shape))

    def process(self, shard: tuple[int, tuple[str, int]]) -> Iterator[tuple[int, Any]]:
        number, (name, _) = shard
        config = self.config
        names = [ROW, TIME, LABEL, *config.reads]
        columns = read_columns(f"{self.data}/{name}", self.layout, names)
        rows, times, clicks, users, items = (columns[name][:, 0] for name in names[:5])
        in_training = name.partition("/")[0] in IN_TRAINING
        population = 1 - users % 2 if in_training else np.full(len(users), ALL_USERS)
        batches = [
            self._of_histories(
                columns[config.items][start : start + BATCH],
                columns[config.grades][start : start + BATCH],
                items[start : start + BATCH],
                population[start : start + BATCH],
            )
            for start in range(0, len(rows), BATCH)
        ]
        numbers, usual, tastes = (np.concatenate(part) for part in zip(*batches, strict=True))
        path = _path_of_numbers(self.folder, name)
        files.write_arrays(path, {"rows": rows, "numbers": numbers})
        for group, found in rows_by_bucket(items):
            columns_of_group = (items, times, clicks, usual, tastes, population)
            yield group, (number, found, *(column[found] for column in columns_of_group))

    def _of_histories(
        self, items: np.ndarray, grades: np.ndarray, candidates: np.ndarray, population: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """Of rows: the numbers of events with neighbours of the candidate `[N, n]`; the usual
        deviation `[N, P]` and the tastes `[N, P, f]` of the user."""
        from tfctr.frameworks.rok.tastes import read_events
        from tfctr.frameworks.statistics.neighbour_statistics import NUMBERS as OF_ITEMS

        usual, tastes = [], []
        numbers = np.zeros((len(items), OF_ITEMS), np.float32)
        for number in range(POPULATIONS):
            events = read_events(items, grades, self.found, number)
            usual.append(events.usual)
            tastes.append(events.tastes)
            own = np.flatnonzero(population == number)
            if len(own):
                read = [events.deviation, events.usual[:, None], events.known, events.lag]
                by_item, sums = self.of_items.encode(
                    items[own], *(values[own].astype(np.float32) for values in read)
                )
                rows = number * self.found["means"].shape[1] + candidates[own][:, None]
                found = self.of_items.of_candidates(by_item, sums, rows)
                numbers[own] = np.concatenate(found, axis=2)[:, 0]
        return numbers, np.stack(usual, axis=1), np.stack(tastes, axis=1)


def _search(
    group: tuple[int, Iterable[tuple[Any, ...]]], users: int, latest: int
) -> Iterator[tuple[int, Any]]:
    """All rows of a group of items -> for each shard, places of its rows, and their numbers."""
    numbers, *columns = zip(*sorted(group[1], key=lambda part: part[0]), strict=True)
    shard = np.repeat(numbers, [len(places) for places in columns[0]])
    places, items, times, *more = (np.concatenate(column) for column in columns)
    order = np.lexsort((times, items))  # stable
    clicks, usual, tastes, population = (column[order] for column in more)
    found = np.empty((len(places), NUMBERS), np.float32)
    found[order] = of_similar_users(
        items[order], times[order], clicks, usual, tastes, population, users, latest
    )
    for number in numbers:
        own = shard == number
        yield number, (places[own], found[own])


def _write_shard(joined: tuple[int, dict[str, list[Any]]], folder: str) -> WrittenHints:
    """What both retrievals found for the rows of a shard -> the written shard."""
    _, found = joined
    ((name, rows),) = found["shard"]
    parts = found["parts"]
    check_arrived(f"{name}: rows", sum(len(places) for places, _ in parts), rows)
    own = files.read_arrays(_path_of_numbers(folder, name))
    of_users = np.empty((rows, NUMBERS), np.float32)
    for places, numbers in parts:
        of_users[places] = numbers
    hints = np.concatenate([own["numbers"], of_users], axis=1)
    return write_hints_of_shard(folder, name, own["rows"], hints)


def _path_of_numbers(folder: str, shard: str) -> str:
    return f"{folder}/found/{shard}.npz"


def write_neighbour_hints(
    config: NeighboursConfig,
    data: str,
    tables: str,
    output: str,
    beam_args: list[str] | None = None,
) -> dict[str, Any]:
    """Writes the hints of all rows to a directory at `output`, whole or not at all.

    Args:
        config: of the neighbours.
        data: path or URI of the dataset directory.
        tables: path or URI of the directory of its tables, by `beam_pipelines.statistics`.
        output: path or URI of the directory; an existing one is replaced.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.

    Returns:
        The manifest.

    Raises:
        DataError: `data` is not a dataset of this config; `tables` are not those of this config and
            dataset.
    """
    data, tables = data.rstrip("/"), tables.rstrip("/")
    manifest = open_manifest_of(config.data, data)
    check_tables(tables, config.tables, manifest, data)
    with job.directory(output) as folder:
        found = NeighbourHints(config, data, manifest, f"{tables}/tables.npz", folder)
        summary = job.run(found, "neighbours", config.name, folder, beam_args or [])
        job.delete_folders(folder, "found")
        fields = fields_of(HINT, summary.pop("size"))
        return describe(folder, manifest, fields, config_digest=digest(config), **summary)


class NeighbourHintsOptions(job.JobOptions):
    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        job.add_output(parser, __doc__)
        parser.add_argument("--config", required=True, help="YAML file: a neighbours config")
        parser.add_argument("--data", required=True, help="the dataset directory")
        parser.add_argument("--tables", required=True, help="the directory of its tables")


def _write(options: NeighbourHintsOptions) -> str:
    config = load(options.config, NeighboursConfig)
    paths = (options.data, options.tables, options.output)
    return job.summary_line(write_neighbour_hints(config, *paths, options.beam_args))


def main(argv: list[str] | None = None) -> int:
    return job.command(NeighbourHintsOptions, argv, _write)


if __name__ == "__main__":
    sys.exit(job.run_main(__spec__))
