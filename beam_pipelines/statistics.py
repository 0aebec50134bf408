"""Makes tables of items from what users said of them in the training period.

    python -m beam_pipelines.statistics --config configs/movielens-1m/statistics/tables.yaml \\
        --data work/movielens-1m-long --output work/movielens-1m-tables

It takes Beam's options too. The output is `tables.npz`, arrays by an item's id for three
populations of users, one half, the other half, and all; `docs/statistics.md` describes them.

The events are first grouped by user, and stored. Then each step of expectation maximisation
(`tfctr.frameworks.statistics.factor_model`) is a pipeline: every group of users gives sums for the
items in it, the sums of an item are added, and the items' new parameters are written for the next
step. A worker holds the events of one group, and the parameters of all items.

The groups, `events/`, and the parameters, `state.npz`, stay beside the tables, so that a later log
can be added to them (`--add`): only its events are read and sorted, and few steps are needed.
"""

import argparse
import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import PurePath
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.compute as pc

import tfctr
from beam_pipelines.running import job
from beam_pipelines.transforms.broadcast import Gather
from beam_pipelines.transforms.clean_pieces import Clean
from beam_pipelines.transforms.fit import read_vocabularies
from beam_pipelines.transforms.histories import EventReader
from beam_pipelines.transforms.side_outputs import open_manifest_of, open_manifest_with_log
from beam_pipelines.transforms.split import DROPPED, KNOWN, SPLITS, AssignSplits, SplitPiece
from tfctr.config import ConfigError, DataConfig, data_digest, digest, load, load_data
from tfctr.data import files
from tfctr.data.arrived import check_arrived
from tfctr.data.manifest import FORMAT, DataError, read_manifest, write_manifest
from tfctr.data.sources import open_source
from tfctr.data.users import rows_by_bucket, sorted_rows
from tfctr.data.vocabulary import Vocabulary
from tfctr.frameworks.statistics import factor_model, neighbours
from tfctr.frameworks.statistics.config import (
    ALL_USERS,
    APART,
    POPULATIONS,
    TablesConfig,
    attribute_columns,
)
from tfctr.frameworks.statistics.factor_model import Factors, Sums
from tfctr.schema import FIRST_TOKEN_ID, Schema

# In a group of users, about. A group sends the sums of its items, so fewer groups are less to send.
GROUP_EVENTS = 1 << 20
GROUPS = 8  # at least, so that as many workers share few events
BLOCK = 1 << 12  # items whose parameters are computed together
ADDED_STEPS = 3  # of expectation maximisation, from the parameters of before
# Arrays of a group, sorted by the users' keys, then by time.
GROUP = ("keys", "times", "half", "items", "grades")
NEAREST = ("items", "neighbours", "similarities")  # arrays of a block, of each population
COUNTS = -1  # the key of row counts, in place of a group of users
POPULARITY_UNIT = 1e5  # popularity is log(1 + events among so many)


@dataclass(frozen=True)
class WrittenUsers:
    """The events of a group of users: for each half of them, how many have each grade's id."""

    path: str
    events: int
    grades: tuple[tuple[int, ...], ...]


class ReadEvents(beam.PTransform):
    """Nothing -> one dict: the written groups of users, and sums over all grades.

    Args:
        config: of the tables, with the log's data config.
        data: path or URI of the dataset directory.
        folder: of the job.
        splits: whose events are read.
        earlier: paths of groups of users, by number, that the log's events are added to.
    """

    def __init__(
        self,
        config: TablesConfig,
        data: str,
        folder: str,
        splits: Sequence[int],
        earlier: Mapping[int, str],
    ) -> None:
        super().__init__()
        self.config = config
        self.data = data
        self.folder = folder
        self.splits = splits
        self.earlier = earlier

    def expand(self, pipeline: Any) -> beam.PCollection:
        data = self.config.data
        clean = Clean(data, self.folder)
        number = len(clean.pieces)
        pieces, _ = (
            pipeline
            | "Clean" >> clean
            | "AssignSplits" >> AssignSplits(data.split, data.user, number)
        )
        reader = GradeReader(self.config, self.data, self.splits)
        attributes = (
            pieces
            | "Attributes" >> beam.FlatMap(_attributes, AttributeReader(self.config, self.data))
            | "GatherItems" >> beam.GroupByKey()
            | "WriteAttributes" >> beam.Map(_write_attributes, self.folder)
        )
        events = pieces | "UserEvents" >> beam.FlatMap(_by_user_bucket, reader)
        earlier = pipeline | "Earlier" >> beam.Create([*self.earlier.items()])
        found = (
            (events, earlier)
            | "WithEarlier" >> beam.Flatten()
            | "GatherUsers" >> beam.GroupByKey()
            | "WriteUsers" >> beam.FlatMap(_write_users, self.folder)
        )
        return (
            {"found": found, "attributes": attributes}
            | "Gather" >> Gather()
            | "Summarise" >> beam.Map(lambda found: _summarise(number, [*self.earlier], **found))
        )


class GradeReader:
    """Reads the graded events of some splits in a piece."""

    def __init__(self, config: TablesConfig, data: str, splits: Sequence[int]) -> None:
        self.events = EventReader(config.data, data)
        names = [history.name for history in self.events.histories]
        self.places = [names.index(config.items), names.index(config.grades)]
        self.user = config.user
        self.data = data
        self.splits = splits
        self._users: Vocabulary | None = None

    def read(self, piece: SplitPiece) -> tuple[np.ndarray, ...]:
        """`keys, times, ids of users, items and grades` of the events, and their places."""
        keys, times, _, is_event, tokens = self.events.read(piece)
        items, grades = (tokens[:, place] for place in self.places)
        is_event &= np.isin(piece.split() % DROPPED, self.splits)
        rows = np.flatnonzero(is_event & (items >= FIRST_TOKEN_ID) & (grades >= FIRST_TOKEN_ID))
        if self._users is None:
            self._users = read_vocabularies([self.user], self.data)[self.user.vocabulary]
        column = piece.columns([self.user.name])[self.user.name].combine_chunks()
        users = self._users.ids(column)
        return rows, keys[rows], times[rows], users[rows], items[rows], grades[rows]


class AttributeReader:
    """Reads the attributes of the items in a piece."""

    def __init__(self, config: TablesConfig, data: str) -> None:
        schema = config.data.feature_schema
        self.item = config.item
        self.attributes = [schema[name] for name in config.attributes]
        self.data = data
        self._vocabularies: dict[str, Vocabulary] = {}

    def read(self, piece: SplitPiece) -> tuple[np.ndarray, np.ndarray]:
        """The items that occur, `[n]`, and for each pair of an item's place and an attribute's id
        `(place, attribute's number, id)`, `[pairs, 3]`."""
        if not self._vocabularies:
            self._vocabularies = read_vocabularies([self.item, *self.attributes], self.data)
        table = piece.columns([self.item.name, *(f.name for f in self.attributes)])
        tokens = table[self.item.name].combine_chunks()
        items, first = np.unique(
            self._vocabularies[self.item.vocabulary].ids(tokens), return_index=True
        )
        kept = items >= FIRST_TOKEN_ID
        items, first = items[kept], first[kept]
        pairs = [np.zeros((0, 3), np.int64)]
        for number, feature in enumerate(self.attributes):
            column = table[feature.name].combine_chunks().take(first)
            places = np.arange(len(items))
            if feature.is_list:
                lengths = pc.fill_null(pc.list_value_length(column), 0)
                places = np.repeat(places, lengths.to_numpy())
                column = column.flatten()
            ids = self._vocabularies[feature.vocabulary].ids(column)
            pairs.append(np.stack([places, np.full(len(ids), number), ids], axis=1))
        found = np.concatenate(pairs)
        return items, found[found[:, 2] >= FIRST_TOKEN_ID]


def _attributes(piece: SplitPiece, reader: AttributeReader) -> Iterator[tuple[int, Any]]:
    if not reader.attributes:
        return
    items, pairs = reader.read(piece)
    blocks = items // BLOCK
    for block in np.unique(blocks):
        start, stop = np.searchsorted(blocks, [block, block + 1])
        own = pairs[(pairs[:, 0] >= start) & (pairs[:, 0] < stop)] - [start, 0, 0]
        yield int(block), (piece.index, items[start:stop], own)


def _write_attributes(block: tuple[int, Iterable[Any]], folder: str) -> str:
    """Each item's attributes, as its first piece has them -> the path of `(item, number, id)`."""
    number, parts = block
    known: set[int] = set()
    found = []
    for _, items, pairs in sorted(parts, key=lambda part: part[0]):
        is_new = np.array([item not in known for item in items.tolist()], bool)
        known.update(items.tolist())
        pairs = pairs[is_new[pairs[:, 0]]]
        found.append(np.stack([items[pairs[:, 0]], pairs[:, 1], pairs[:, 2]], axis=1))
    content = io.BytesIO()
    np.save(content, np.concatenate(found))
    path = f"{folder}/blocks/attributes-{number:05d}.npy"
    files.write(path, content.getbuffer())
    return path


def _by_user_bucket(piece: SplitPiece, reader: GradeReader) -> Iterator[tuple[int, Any]]:
    rows, keys, *columns = reader.read(piece)
    yield COUNTS, job.RowCounts(pieces=1, sent=len(rows))
    for bucket, found in rows_by_bucket(keys):
        yield bucket, (piece.index, rows[found], keys[found], *(c[found] for c in columns))


def _write_users(
    bucket: tuple[int, Iterable[Any]], folder: str
) -> Iterator[WrittenUsers | job.RowCounts]:
    number, parts = bucket
    if number == COUNTS:
        yield from parts
        return
    parts = list(parts)
    groups = [files.read_arrays(part) for part in parts if isinstance(part, str)]
    if rows := [part for part in parts if not isinstance(part, str)]:
        _, _, keys, times, users, items, grades = sorted_rows(rows)
        yield job.RowCounts(arrived=len(keys))
        groups.append(
            {"keys": keys, "times": times, "half": users % 2, "items": items, "grades": grades}
        )
    found = {name: np.concatenate([group[name] for group in groups]) for name in GROUP}
    order = np.lexsort((found["times"], found["keys"]))  # stable
    found = {name: values[order] for name, values in found.items()}
    half, grades = found["half"].astype(np.int8), found["grades"]
    path = f"{folder}/events/{number:05d}.npz"
    files.write_arrays(path, found | {"half": half})
    counts = [tuple(np.bincount(grades[half == h]).tolist()) for h in range(2)]
    yield WrittenUsers(path, len(half), tuple(counts))


def _summarise(
    pieces: int,
    earlier: list[int],
    found: list[WrittenUsers | job.RowCounts],
    attributes: list[str],
) -> dict[str, Any]:
    counts = [part for part in found if isinstance(part, job.RowCounts)]
    job.check_rows_arrived("events", counts, pieces)
    written = sorted((p for p in found if isinstance(p, WrittenUsers)), key=lambda p: p.path)
    numbers = [int(PurePath(part.path).stem) for part in written]
    check_arrived("events: groups of before", len({*numbers} & {*earlier}), len(earlier))
    number = max((len(counts) for part in written for counts in part.grades), default=0)
    grades = np.zeros((2, number), np.int64)
    for part in written:
        for half, counts_of_half in enumerate(part.grades):
            grades[half, : len(counts_of_half)] += np.array(counts_of_half, np.int64)
    return {
        "groups": [[part.path, part.events] for part in written],
        "numbers": numbers,
        "events": sum(part.events for part in written),
        "grades": grades.tolist(),
        "attributes": sorted(attributes),
    }


class Step(beam.PTransform):
    """Nothing -> one dict: for each population the variance of the noise.

    Args:
        groups: paths of groups of users.
        state: path of the parameters of the step before.
        grades: float `[G]`. The value of each grade's id.
        output: path of the new parameters.
    """

    def __init__(
        self, groups: Sequence[Sequence[str]], state: str, grades: np.ndarray, output: str
    ) -> None:
        super().__init__()
        self.groups = groups
        self.state = state
        self.grades = grades
        self.output = output

    def expand(self, pipeline: Any) -> beam.PCollection:
        found = (
            pipeline
            | "Groups" >> beam.Create(self.groups)
            | "Spread" >> beam.Reshuffle()
            | "Expect" >> beam.FlatMap(_expect, self.state, self.grades)
            | "Add" >> beam.CombinePerKey(_added)
            | "Maximise" >> beam.Map(_maximise, self.state)
        )
        return (
            {"found": found}
            | "Gather" >> Gather()
            | "Write" >> beam.Map(_write_state, self.state, self.output)
        )


def _expect(
    paths: Sequence[str], state: str, grades: np.ndarray
) -> Iterator[tuple[tuple[int, int], Sums]]:
    """Groups of users -> their sums, by population and block of items."""
    models = read_state(state)
    users, half, items, ids = read_users(paths)
    for population, model in enumerate(models):
        chosen = slice(None) if population == ALL_USERS else half == population
        if not len(users[chosen]):
            continue
        sums = factor_model.expected(users[chosen], items[chosen], grades[ids[chosen]], model)
        edges = np.searchsorted(sums.items, np.arange(0, len(model.weights) + BLOCK, BLOCK))
        for block, (start, stop) in enumerate(pairwise(edges)):
            if start < stop:
                part = slice(start, stop)
                yield (population, block), Sums(sums.items[part], sums.sums[part])


def read_users(paths: Sequence[str]) -> list[np.ndarray]:
    """Users, ascending, and the halves, items and grades of their events, oldest first."""
    columns = []
    for number, path in enumerate(paths):
        found = files.read_arrays(path)
        _, users = np.unique(found["keys"], return_inverse=True)
        columns.append((np.full(len(users), number), users, *(found[n] for n in GROUP[2:])))
    numbers, users, *events = (np.concatenate(part) for part in zip(*columns, strict=True))
    users += numbers * (1 + users.max(initial=0))  # no user is in two groups
    return [users, *events]


def _added(parts: Iterable[Sums]) -> Sums:
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    items = np.concatenate([part.items for part in parts])
    present, places = np.unique(items, return_inverse=True)
    sums = np.zeros((len(present), parts[0].sums.shape[1]))
    start = 0
    for part in parts:  # an item is once in a part
        stop = start + len(part.items)
        sums[places[start:stop]] += part.sums
        start = stop
    return Sums(present, sums)


def _maximise(block: tuple[tuple[int, int], Sums], state: str) -> tuple[Any, ...]:
    (population, _), sums = block
    weights, errors = factor_model.maximised(sums, read_state(state)[population].center)
    return population, sums.items, weights, sums.sums[:, 0], errors


def _write_state(found: dict[str, list[Any]], state: str, output: str) -> dict[str, Any]:
    models: list[Factors] = []
    before = read_state(state)
    arrays: dict[str, Any] = {}
    for population, model in enumerate(before):
        blocks = sorted((b for b in found["found"] if b[0] == population), key=lambda b: b[1][0])
        counts = np.zeros(len(model.weights))
        if blocks:
            items, weights, events = (np.concatenate([b[i] for b in blocks]) for i in (1, 2, 3))
            counts[items] = events
            model = factor_model.combined(
                len(model.weights),
                items,
                weights,
                events,
                sum(block[4] for block in blocks),
                before[population].center[0],
            )
        models.append(model)
        arrays[f"counts_{population}"] = counts
    write_state(output, models, **arrays)
    return {"noise": [model.noise for model in models]}


class Similar(beam.PTransform):
    """Nothing -> one dict: the paths of blocks of items' neighbours.

    The pairs of all users are those of both halves, each with the means of its own.

    Args:
        groups, grades: as for `Step`.
        state: path of the parameters of the last step.
        num_items: int. Ids of items.
        number: of neighbours.
        folder: of the job.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[str]],
        state: str,
        grades: np.ndarray,
        num_items: int,
        number: int,
        folder: str,
    ) -> None:
        super().__init__()
        self.groups = groups
        self.state = state
        self.grades = grades
        self.num_items = num_items
        self.number = number
        self.folder = folder

    def expand(self, pipeline: Any) -> beam.PCollection:
        found = (
            pipeline
            | "Groups" >> beam.Create(self.groups)
            | "Spread" >> beam.Reshuffle()
            | "Pair" >> beam.FlatMap(_pairs, self.state, self.grades)
            | "Add" >> beam.CombinePerKey(_added)
            | "ByBlock" >> beam.Map(lambda found: (found[0][1], (found[0][0], found[1])))
            | "GatherHalves" >> beam.GroupByKey()
            | "Write" >> beam.Map(_write_nearest, self.num_items, self.number, self.folder)
        )
        return {"paths": found} | "Gather" >> Gather()


def _pairs(
    paths: Sequence[str], state: str, grades: np.ndarray
) -> Iterator[tuple[tuple[int, int], Sums]]:
    """Groups of users -> sums of pairs of items, by half of the users and block of items."""
    models = read_state(state)
    users, half, items, ids = read_users(paths)
    for population in range(ALL_USERS):
        chosen = half == population
        means = models[population].weights[:, 0]
        deviations = grades[ids[chosen]] - means[items[chosen]]
        found = neighbours.pair_sums(users[chosen], items[chosen], deviations, len(means))
        for block, sums in found:
            yield (population, block), sums


def _write_nearest(
    block: tuple[int, Iterable[tuple[int, Sums]]], num_items: int, number: int, folder: str
) -> str:
    """Writes items, neighbours and similarities of each population -> the path."""
    block_number, parts = block
    halves = dict(parts)
    populations = halves | {ALL_USERS: _added([halves[half] for half in sorted(halves)])}
    arrays = {}
    for population, sums in populations.items():
        found = neighbours.nearest(sums, num_items, number)
        for name, values in zip(NEAREST, found, strict=True):
            arrays[f"{name}_{population}"] = values
    path = f"{folder}/blocks/nearest-{block_number:05d}.npz"
    files.write_arrays(path, arrays)
    return path


def read_state(path: str) -> list[Factors]:
    """The parameters of each population."""
    found = files.read_arrays(path)
    return [
        Factors(found[f"weights_{p}"], float(found[f"noise_{p}"]), found[f"center_{p}"])
        for p in range(POPULATIONS)
    ]


def write_state(path: str, models: Sequence[Factors], **more: Any) -> None:
    """Writes what `read_state` reads, and further arrays."""
    arrays: dict[str, Any] = dict(more)
    for population, model in enumerate(models):
        arrays[f"weights_{population}"] = model.weights
        arrays[f"noise_{population}"] = np.float64(model.noise)
        arrays[f"center_{population}"] = model.center
    files.write_arrays(path, arrays)


def write_statistics(
    config: TablesConfig,
    data: str,
    output: str,
    key: str = "",
    beam_args: list[str] | None = None,
    log: DataConfig | None = None,
    add_to: str | None = None,
) -> dict[str, Any]:
    """Writes the tables of items to a directory at `output`, whole or not at all.

    Args:
        config: of the tables.
        data: path or URI of the dataset directory.
        output: path or URI of the directory; an existing one is replaced.
        key: identifies the inputs; it is copied to the manifest.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.
        log: the config of a later log with the same features. All of its events are read, whatever
            its split, in place of those of the dataset's training period.
        add_to: path or URI of tables of the same dataset, which may be `output`. The events of
            `log` are added to theirs.

    Returns:
        The manifest.

    Raises:
        DataError: `data` is not a dataset of this config; its log has changed since, if it is read;
            a grade is not a number; no event has a grade, or all grades are equal; the tables at
            `add_to` are others, or know the events of `log` already.
    """
    data = data.rstrip("/")
    if log is None:
        manifest = open_manifest_with_log(config.data, data)
    else:
        manifest = open_manifest_of(config.data, data)
        config = config.model_copy(update={"data": log})
    schema = Schema.model_validate(manifest["schema"])
    about = {
        "made_with": digest(config, without=["data", "steps"]),
        "data": data_digest(manifest),
        "logs": [digest([digest(config.data.source), open_source(config.data).fingerprint()])],
    }
    earlier: dict[int, str] = {}
    if add_to is not None:
        add_to = add_to.rstrip("/")
        before = _tables_to_add_to(add_to, about)
        about["logs"] = [*before["logs"], *about["logs"]]
        earlier = {number: f"{add_to}/events/{number:05d}.npz" for number in before["groups"]}
    grades = grade_values(config, schema, data)
    try:
        columns = attribute_columns(config, schema)
    except ValueError as error:
        raise DataError(f"{config.name}: {error}") from None
    with job.directory(output) as folder:
        args, name = beam_args or [], config.name
        splits = range(len(SPLITS)) if log else KNOWN
        events = ReadEvents(config, data, folder, splits, earlier)
        read = job.run(events, "statistics", name, folder, args)
        counts = np.zeros((POPULATIONS, len(grades)))
        halves = np.array(read["grades"])
        counts[:2, : halves.shape[1]] = halves
        counts[ALL_USERS] = counts.sum(0)
        # A half without events has no rows to train either.
        counts[counts.sum(1) == 0] = counts[ALL_USERS]
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        means = shares @ grades
        variances = (shares * (grades - means[:, None]) ** 2).sum(1)
        if not variances[ALL_USERS]:
            raise DataError(
                f"{name}: {config.grades} has {np.count_nonzero(counts[ALL_USERS])} grades in "
                f"{read['events']:,} events of the training period; statistics need two"
            )
        variances = np.where(variances > 0, variances, variances[ALL_USERS])
        number = schema[config.items].num_ids
        first = [
            factor_model.initial(number, config.factors, mean, variance)
            for mean, variance in zip(means, variances, strict=True)
        ]
        if add_to is not None:
            models = read_state(f"{add_to}/state.npz")
            first = [
                replace(model, center=np.r_[new.center[0], model.center[1:]])
                for model, new in zip(models, first, strict=True)
            ]
        steps = config.steps if add_to is None else ADDED_STEPS
        state = f"{folder}/steps/first.npz"
        write_state(state, first)
        groups = grouped(read["groups"])
        rmse = [float(variances[ALL_USERS] ** 0.5)]
        for step in range(steps):
            after = f"{folder}/steps/{step % 2}.npz" if step + 1 < steps else f"{folder}/state.npz"
            done = job.run(Step(groups, state, grades, after), "statistics", name, folder, args)
            rmse.append(done["noise"][ALL_USERS] ** 0.5)
            state = after
        tables = _tables(state, grades, shares[ALL_USERS])
        if config.neighbours:
            similar = Similar(groups, state, grades, number, config.neighbours, folder)
            found = job.run(similar, "statistics", name, folder, args)
            tables |= _neighbour_tables(found["paths"], number, config.neighbours)
        if config.attributes:
            found = _attribute_table(read["attributes"], columns, number)
            if add_to is not None:
                known = files.read_arrays(f"{add_to}/tables.npz")["attributes"]
                found = np.where(known.any(1, keepdims=True), known, found)
            tables["attributes"] = found
        files.write_arrays(f"{folder}/tables.npz", tables)
        # What only the job reads.
        job.delete_folders(folder, "staged", "dead_letters", "steps", "blocks")
        result = {
            "format": FORMAT,
            "config_digest": digest(config),
            **about,
            "key": key,
            "versions": {"tfctr": tfctr.__version__, "beam": beam.__version__},
            "events": read["events"],
            "groups": read["numbers"],
            "items": int((tables["popularity"][ALL_USERS] > 0).sum()),
            "rmse": rmse,
        }
        write_manifest(result, f"{folder}/manifest.json")
        return result


def _tables_to_add_to(folder: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of tables that a log's events can be added to.

    Raises:
        DataError: there are none, they are others, or they know these events.
    """
    before = read_manifest(f"{folder}/manifest.json")
    if before is None or before.get("format") != FORMAT:
        raise DataError(f"{folder}: no tables to add to; make them of the whole log first")
    if any(before[name] != about[name] for name in ("made_with", "data")):
        raise DataError(
            f"{folder}: made with another config or for another dataset, so ids stand for other "
            "tokens; make them of the whole log first"
        )
    if {*before["logs"]} & {*about["logs"]}:
        raise DataError(f"{folder}: has the events of this log already; give a log of later ones")
    return before


def grade_values(config: TablesConfig, schema: Schema, data: str) -> np.ndarray:
    """The value of each grade's id, float64 `[G]`; 0 for the special ids.

    Raises:
        DataError: a token is not a number.
    """
    feature = schema[config.grades]
    vocabulary = read_vocabularies([feature], data)[feature.vocabulary]
    try:
        values = [float(token) for token in vocabulary.tokens.to_pylist()]
        if not np.isfinite(values).all():
            raise ValueError(f"{values[np.argmin(np.isfinite(values))]} is not finite")
    except ValueError as error:
        raise DataError(
            f"{config.name}: grades: {config.grades} has a token that is no number: {error}"
        ) from None
    return np.r_[np.zeros(FIRST_TOKEN_ID), values]


def grouped(groups: Sequence[tuple[str, int]]) -> list[list[str]]:
    """Paths of groups of users, together at most about `GROUP_EVENTS` events each."""
    found: list[list[str]] = []
    most = min(GROUP_EVENTS, sum(events for _, events in groups) / GROUPS)
    held = most
    for path, events in groups:
        if held + events > most:
            found.append([])
            held = 0
        found[-1].append(path)
        held += events
    return found


def _tables(state: str, grades: np.ndarray, share: np.ndarray) -> dict[str, Any]:
    models = read_state(state)
    found = files.read_arrays(state)
    counts = np.stack([found[f"counts_{p}"] for p in range(POPULATIONS)])
    total = np.maximum(counts.sum(1, keepdims=True), 1)
    weights = np.stack([model.weights for model in models])
    mean = share @ grades
    deviation = (share @ (grades - mean) ** 2) ** 0.5
    standard = (grades - mean) / deviation
    return {
        "means": weights[:, :, 0].astype(np.float32),
        "loadings": weights[:, :, 1:].astype(np.float32),
        "popularity": np.log1p(POPULARITY_UNIT * counts / total).astype(np.float32),
        "noise": np.array([model.noise for model in models], np.float32),
        "grades": grades.astype(np.float32),
        "is_grade": (np.arange(len(grades)) >= FIRST_TOKEN_ID).astype(np.float32),
        "shares": np.array([share @ (standard > APART), share @ (standard < -APART)], np.float32),
        "grade_scale": np.array([mean, deviation], np.float32),
    }


def _neighbour_tables(paths: list[str], num_items: int, number: int) -> dict[str, np.ndarray]:
    """`neighbours` int32 and `similarities` float32, `[3, items, number]`."""
    shape = (POPULATIONS, num_items, number)
    tables = {"neighbours": np.zeros(shape, np.int32), "similarities": np.zeros(shape, np.float32)}
    for path in paths:
        found = files.read_arrays(path)
        for population in range(POPULATIONS):
            if f"items_{population}" in found:
                items = found[f"items_{population}"]
                for name, table in tables.items():
                    table[population, items] = found[f"{name}_{population}"]
    return tables


def _attribute_table(paths: list[str], columns: dict[str, int], num_items: int) -> np.ndarray:
    """Which attributes an item has: 1 or 0, `[items, values]`."""
    *first, number = columns.values()
    table = np.zeros((num_items, number), np.float32)
    for path in paths:
        items, attributes, ids = np.load(io.BytesIO(files.read(path))).T
        table[items, np.array(first)[attributes] + ids] = 1
    return table


class StatisticsOptions(job.JobOptions):
    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        job.add_output(parser, __doc__)
        parser.add_argument("--config", required=True, help="YAML file: a tables config")
        parser.add_argument("--data", required=True, help="the dataset directory")
        parser.add_argument("--log", help="YAML file of a later log, to be read in its place")
        parser.add_argument(
            "--add", action="store_true", help="add the log's events to the tables at the output"
        )


def _write(options: StatisticsOptions) -> str:
    config = load(options.config, TablesConfig)
    paths = (options.data, options.output)
    log = load_data(options.log) if options.log else None
    if options.add and log is None:
        raise ConfigError("--add: adds the events of a log; give --log too")
    add_to = options.output if options.add else None
    about = write_statistics(config, *paths, beam_args=options.beam_args, log=log, add_to=add_to)
    return f"{options.output}: tables of {about['items']:,} items, of {about['events']:,} events"


def main(argv: list[str] | None = None) -> int:
    return job.command(StatisticsOptions, argv, _write)


if __name__ == "__main__":
    sys.exit(job.run_main(__spec__))
