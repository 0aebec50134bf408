"""Joins tables that are too large for a worker's memory to the events, by key."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.running.job import RowCounts, check_rows_arrived
from beam_pipelines.transforms.broadcast import Gather, by_index
from tfctr.data import files
from tfctr.data.arrived import check_arrived
from tfctr.data.clean import (
    Cleaner,
    Staged,
    read_staged,
    set_aside_table,
    write_staged,
)
from tfctr.data.fingerprint import row_keys
from tfctr.data.joined_tables import JoinedTables, check_not_empty
from tfctr.data.readers import Piece, Reader
from tfctr.data.typed_rows import ROW, BadRow
from tfctr.data.users import rows_by_bucket

KEY_BUCKETS = 1024  # number of groups of a table's rows; one is in memory at a time
TABLE = -1  # the table's place among the pieces' indices


@dataclass(frozen=True)
class TableCounts(RowCounts):
    """Counts of a table's good rows, and its bad rows."""

    bad: Sequence[BadRow] = ()


class WithFirstRows(beam.PTransform):
    """Pieces -> `(piece, place of its first row in the log)`, for the `number` of a reader."""

    def __init__(self, reader: Reader, number: int) -> None:
        super().__init__()
        self.reader = reader
        self.number = number

    def expand(self, pieces: beam.PCollection) -> beam.PCollection:
        count = self.reader.count
        first_rows = (
            {"pieces": pieces | "CountRows" >> beam.Map(lambda piece: (piece.index, count(piece)))}
            | "Gather" >> Gather(pieces=self.number)
            | "AddUp" >> beam.FlatMap(_first_rows)
        )
        return (
            {"piece": pieces | "Index" >> beam.Map(by_index), "first_row": first_rows}
            | "Meet" >> beam.CoGroupByKey()
            | "Pair" >> beam.MapTuple(_pair)
        )


def _first_rows(found: dict[str, list[tuple[int, int]]]) -> Iterator[tuple[int, int]]:
    first = 0
    for index, rows in sorted(found["pieces"]):
        yield index, first
        first += rows


def _pair(index: int, found: Mapping[str, Iterable[Any]]) -> tuple[Piece, int]:
    pieces, first_rows = list(found["piece"]), list(found["first_row"])
    check_arrived(f"piece {index}", len(pieces), 1)
    check_arrived(f"piece {index}: first row", len(first_rows), 1)
    return pieces[0], first_rows[0]


class JoinTable(beam.PTransform):
    """`Staged` -> `Staged` with a table's columns.

    The table's rows and the requested keys are grouped by key. A piece requests each of its keys
    once, so a key that most events have does not make its group larger. All groups and rows are
    counted, so that rows lost by a runner are not taken for rows without a match.

    Raises:
        DataError: the runner lost rows or groups.
    """

    def __init__(self, cleaner: Cleaner, name: str, folder: str) -> None:
        super().__init__()
        self.cleaner = cleaner
        self.name = name
        self.folder = folder

    def expand(self, staged: beam.PCollection) -> beam.PCollection:
        cleaner, joined, name = self.cleaner, self.cleaner.joined, self.name
        reader, _ = joined.source.tables[name]
        pieces = reader.pieces()
        rows = (
            staged.pipeline
            | "Pieces" >> beam.Create(pieces)
            | "FirstRows" >> WithFirstRows(reader, len(pieces))
            | "ReadTable" >> beam.FlatMap(_rows_by_bucket, joined, name)
        )
        keys = staged | "AskForKeys" >> beam.FlatMap(_keys_by_bucket, joined.key(name).name)
        found = (
            {"rows": rows, "keys": keys}
            | "GatherKeys" >> beam.CoGroupByKey()
            | "FindRows" >> beam.FlatMap(_find_rows, joined, name)
        )
        indexed = staged | "Index" >> beam.Map(by_index)
        return (
            {"piece": indexed, "found": found}
            | "Regroup" >> beam.CoGroupByKey()
            | "Join" >> beam.FlatMap(_join, cleaner, name, self.folder, len(pieces))
        )


def _rows_by_bucket(
    with_first_row: tuple[Piece, int], joined: JoinedTables, name: str
) -> Iterator[tuple[int, Any]]:
    """Good rows by group of their keys; for `TABLE` the counts of what was read."""
    table, bad = joined.read_table(name, *with_first_row)
    yield TABLE, TableCounts(pieces=1, sent=table.num_rows, bad=bad)
    keys = row_keys(table[joined.key(name).name].combine_chunks())
    for bucket, rows in rows_by_bucket(keys, KEY_BUCKETS):
        yield bucket, table.take(pa.array(rows))


def _keys_by_bucket(piece: Staged, key: str) -> Iterator[tuple[int, Any]]:
    for bucket, keys in _asked(_keys(read_staged(piece.path, [key]), key)):
        yield bucket, (piece.index, keys)


def _asked(keys: pa.Array) -> Iterator[tuple[int, pa.Array]]:
    """The requests of a piece: each of its keys once, by group."""
    keys = keys.unique()
    for bucket, rows in rows_by_bucket(row_keys(keys), KEY_BUCKETS):
        yield bucket, keys.take(pa.array(rows))


def _keys(table: pa.Table, key: str) -> pa.Array:
    keys = table[key].combine_chunks()
    return keys.dictionary_decode() if pa.types.is_dictionary(keys.type) else keys


def _find_rows(
    gathered: tuple[int, Mapping[str, Iterable[Any]]], joined: JoinedTables, name: str
) -> Iterator[tuple[int, Any]]:
    """For a group of keys: the requested rows to each piece, and the counts to `TABLE`."""
    bucket, found = gathered
    parts = list(found["rows"])
    if bucket == TABLE:
        yield from ((TABLE, counts) for counts in parts)
        return
    rows = pa.concat_tables([joined.no_rows(name), *parts]).sort_by(ROW)
    table, again = joined.first_of_keys(name, rows)
    yield TABLE, TableCounts(arrived=rows.num_rows, bad=again)
    for index, keys in found["keys"]:
        there = pc.is_in(table[joined.key(name).name], value_set=keys)
        yield index, table.filter(there)


def _join(
    gathered: tuple[int, Mapping[str, Iterable[Any]]],
    cleaner: Cleaner,
    name: str,
    folder: str,
    num_pieces: int,
) -> Iterator[Staged]:
    """A piece with the columns of the rows found. For the table, whose `num_pieces` were read, a
    file with its summary."""
    index, parts = gathered
    found = list(parts["found"])
    if index == TABLE:
        _write_summary(found, num_pieces, name, folder)
        return
    (piece,) = parts["piece"]
    joined = cleaner.joined
    key = joined.key(name)
    table = read_staged(piece.path)
    keys = _keys(table, key.name)
    asked = sum(1 for _ in _asked(keys))
    check_arrived(f"source.{name}: rows for piece {index} of the events", len(found), asked)
    table = table.set_column(table.column_names.index(key.name), key.name, keys)
    other = pa.concat_tables([joined.no_rows(name), *found])
    table, unmatched = cleaner.join(name, table, other)
    to_join = joined.large[joined.large.index(name) + 1 :]
    path = f"{folder}/staged/{piece.index:05d}.{name}.feather"
    write_staged(path, cleaner.in_order(table, to_join), cleaner.features)
    counts = piece.counts | {f"unmatched_{name}": unmatched}
    yield replace(piece, path=path, counts=counts)


def _write_summary(counts: list[TableCounts], num_pieces: int, name: str, folder: str) -> None:
    good = check_rows_arrived(f"source.{name}", counts, num_pieces)
    bad = sorted(row for part in counts for row in part.bad)
    rows = good + sum(len(part.bad) for part in counts if part.pieces)
    check_not_empty(name, rows - len(bad), bad)
    summary = set_aside_table(folder, name, rows, bad)
    files.write(_summary(folder, name), json.dumps(summary).encode())


def _summary(folder: str, name: str) -> str:
    return f"{folder}/staged/{name}.json"


def read_summary(folder: str, name: str) -> dict[str, Any]:
    """The summary of a finished join's table: `rows`, `bad`, `bad_reasons`."""
    found: dict[str, Any] = json.loads(files.read(_summary(folder, name)))
    return found
