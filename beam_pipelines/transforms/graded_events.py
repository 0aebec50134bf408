"""The graded events of a log by groups of users, and the attributes of its items."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.compute as pc

from beam_pipelines.running import job
from beam_pipelines.transforms.broadcast import Gather
from beam_pipelines.transforms.clean_pieces import Clean
from beam_pipelines.transforms.fit import read_vocabularies
from beam_pipelines.transforms.histories import EventReader
from beam_pipelines.transforms.split import DROPPED, AssignSplits, SplitPiece
from tfctr.data import files
from tfctr.data.arrived import check_arrived
from tfctr.data.users import rows_by_bucket, sorted_rows
from tfctr.data.vocabulary import Vocabulary
from tfctr.frameworks.statistics.config import TablesConfig
from tfctr.schema import FIRST_TOKEN_ID

ITEMS = 1 << 12  # whose attributes are written together
# Arrays of a group, sorted by the users' keys, then by time.
OF_EVENTS = ("half", "items", "grades")
GROUP = ("keys", "times", *OF_EVENTS)
COUNTS = -1  # the key of row counts, in place of a group of users


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
    blocks = items // ITEMS
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


def read_users(paths: Sequence[str]) -> list[np.ndarray]:
    """Users, ascending, and the halves, items and grades of their events, oldest first."""
    columns = []
    first = 0
    for path in paths:
        found = files.read_arrays(path, ["keys", *OF_EVENTS])
        keys = found["keys"]
        users = first + np.cumsum(keys[1:] != keys[:-1], dtype=np.int64)
        users = np.r_[first, users][: len(keys)]
        columns.append((users, *(found[name] for name in OF_EVENTS)))
        first = int(users.max(initial=first)) + 1
    return [np.concatenate(parts) for parts in zip(*columns, strict=True)]
