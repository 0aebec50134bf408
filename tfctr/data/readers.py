"""Readers of logs and tables, in pieces that any number of workers take."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfctr.config import ConfigError
from tfctr.data import files
from tfctr.data.delimited import Delimited, Rows
from tfctr.data.world import World

MIN_PIECE, MAX_PIECE = 2 << 20, 256 << 20  # bytes


@dataclass(frozen=True)
class Piece:
    """What one worker reads at a time: bytes, a row group, or rows `[start, stop)` of a file.

    Pieces follow from the files alone, never from the workers, so outputs named after `index` are
    the same however many there are.
    """

    index: int
    path: str
    start: int
    stop: int


class Reader(Protocol):
    """A log or a table."""

    def names(self) -> tuple[str, ...]:
        """Its columns."""

    def pieces(self) -> list[Piece]: ...

    def count(self, piece: Piece) -> int:
        """Rows in a piece, bad ones included."""

    def read(self, piece: Piece, wanted: Sequence[str]) -> Rows: ...


@runtime_checkable
class TypedReader(Reader, Protocol):
    """A log or a table of files whose columns have types."""

    def types(self, wanted: Sequence[str]) -> Iterator[tuple[str, pa.Schema]]:
        """Each file's path, and its types of the wanted columns.

        Raises:
            ConfigError: a file lacks a column, or has two of one name.
        """

    def is_missing(self, path: str, name: str) -> bool:
        """Whether a column of a file holds no value."""


@dataclass(frozen=True)
class DelimitedReader:
    """CSV and its kin."""

    paths: tuple[str, ...]
    format: Delimited

    def names(self) -> tuple[str, ...]:
        return self.format.header(self.paths[0])

    def pieces(self) -> list[Piece]:
        expected = self.names()
        for path in self.paths[1:]:
            if (found := self.format.header(path)) != expected:
                raise ConfigError(
                    f"{path}: columns {', '.join(found)} differ from those of {self.paths[0]}: "
                    f"{', '.join(expected)}"
                )
        return byte_ranges(self.paths)

    def count(self, piece: Piece) -> int:
        has_header = self.format.columns is None
        return _num_lines(files.read_lines(piece.path, piece.start, piece.stop, has_header))

    def read(self, piece: Piece, wanted: Sequence[str]) -> Rows:
        lines = self.format.lines(piece.path, piece.start, piece.stop)
        return self.format.parse(lines, self.names(), wanted)


@dataclass(frozen=True)
class JsonLinesReader:
    """One JSON object a line; a key that a line lacks is "no value".

    `separators`: of the columns that hold several values; a text there is split, so that one
    column may hold texts and lists.
    """

    paths: tuple[str, ...]
    separators: dict[str, str] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """The keys of the first 1,000 lines that are objects.

        Raises:
            ConfigError: there are none.
        """
        names: dict[str, None] = {}
        with files.open_to_read(self.paths[0]) as file:
            for line in file.read(1 << 22).removeprefix(files.BOM).split(b"\n")[:1000]:
                try:
                    names |= dict.fromkeys(_json_object(line))
                except ValueError:
                    continue
        if not names:
            raise ConfigError(
                f"{self.paths[0]}: none of its first lines is a JSON object with keys; write one "
                "object a line"
            )
        return tuple(names)

    def pieces(self) -> list[Piece]:
        return byte_ranges(self.paths)

    def count(self, piece: Piece) -> int:
        return _num_lines(files.read_lines(piece.path, piece.start, piece.stop))

    def read(self, piece: Piece, wanted: Sequence[str]) -> Rows:
        lines = files.read_lines(piece.path, piece.start, piece.stop).split(b"\n")
        if not lines[-1]:
            lines.pop()
        numbers, bad = [], []
        columns: dict[str, list[Any]] = {name: [] for name in wanted}
        for number, line in enumerate(lines):
            try:
                record = _json_object(line)
                values = [self._value(name, record.get(name)) for name in wanted]
            except ValueError as error:
                bad.append((number, str(error), line.decode("utf-8", "backslashreplace")))
                continue
            numbers.append(number)
            for name, value in zip(wanted, values, strict=True):
                columns[name].append(value)
        kinds = {name: pa.binary() for name in wanted}
        kinds |= {name: pa.list_(pa.binary()) for name in wanted if name in self.separators}
        arrays = {name: pa.array(values, kinds[name]) for name, values in columns.items()}
        return Rows(pa.table(arrays), np.array(numbers, dtype=np.int64), bad)

    def _value(self, name: str, value: Any) -> bytes | list[bytes | None] | None:
        """A value as the text it would be in a delimited file: one set of rules reads both."""
        if name not in self.separators:
            return _json_scalar(name, value)
        if isinstance(value, str):
            value = value.split(self.separators[name])
        values = value if isinstance(value, list) else [value]
        return [_json_scalar(name, element) for element in values]


@dataclass(frozen=True)
class ParquetReader:
    """Parquet files, a row group at a time."""

    paths: tuple[str, ...]

    def names(self) -> tuple[str, ...]:
        return tuple(self._schema(self.paths[0]).names)

    def pieces(self) -> list[Piece]:
        found: list[Piece] = []
        for path in self.paths:
            groups = self._metadata(path).num_row_groups
            found += [Piece(len(found) + i, path, i, i + 1) for i in range(groups)]
        return found

    def types(self, wanted: Sequence[str]) -> Iterator[tuple[str, pa.Schema]]:
        for path in self.paths:
            schema = self._schema(path)
            _check_columns(path, schema, wanted)
            yield (
                path,
                pa.schema([(name, _without_views(schema.field(name).type)) for name in wanted]),
            )

    def is_missing(self, path: str, name: str) -> bool:
        with files.open_to_read(path) as file:
            column = pq.read_table(file, columns=[name])[name]
        return bool(pc.all(pc.is_null(column, nan_is_null=True)).as_py())

    def _schema(self, path: str) -> pa.Schema:
        schema = self._metadata(path).schema.to_arrow_schema()
        if len(set(schema.names)) < len(schema.names):
            twice = next(name for name in schema.names if schema.names.count(name) > 1)
            raise ConfigError(f"{path}: two columns are named {twice!r}; rename one")
        return schema

    def _metadata(self, path: str) -> pq.FileMetaData:
        with files.open_to_read(path) as file:
            try:
                return pq.read_metadata(file)
            except (pa.ArrowException, OSError) as error:
                why = str(error).rstrip(".")
                raise ConfigError(
                    f"{path}: not Parquet: {why}; copy it again, or let its name end in its format"
                ) from None

    def count(self, piece: Piece) -> int:
        return int(self._metadata(piece.path).row_group(piece.start).num_rows)

    def read(self, piece: Piece, wanted: Sequence[str]) -> Rows:
        with files.open_to_read(piece.path) as file:
            try:
                parquet = pq.ParquetFile(file)
                table = parquet.read_row_group(piece.start, columns=list(wanted))
            except (pa.ArrowException, OSError) as error:
                raise ConfigError(
                    f"{piece.path}: row group {piece.start} is damaged, or Arrow cannot read its "
                    f"columns {', '.join(wanted)}: {error}"
                ) from None
        _check_columns(piece.path, parquet.schema_arrow, wanted)
        plain = pa.schema([(column.name, _without_views(column.type)) for column in table.schema])
        return Rows(table.cast(plain).combine_chunks(), np.arange(table.num_rows))


def _check_columns(path: str, schema: pa.Schema, wanted: Sequence[str]) -> None:
    if missing := [name for name in wanted if name not in schema.names]:
        raise ConfigError(f"{path}: no column {missing[0]!r}; columns: {', '.join(schema.names)}")


def _without_views(kind: pa.DataType) -> pa.DataType:
    """The type whose values are the same, and which all of Arrow's functions know: files of recent
    versions of Polars hold views of strings."""
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind):
        return pa.list_(_without_views(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_without_views(kind.value_type))
    return kind


@dataclass(frozen=True)
class WorldReader:
    """The generated world's log, or its users or items."""

    world: World
    what: str = "events"  # events, users, items
    domain: str | None = None

    ROWS = 1 << 17

    def _table(self, start: int, stop: int) -> pa.Table:
        if self.what == "events":
            return self.world.events(start, stop)
        return (self.world.users() if self.what == "users" else self.world.items())[start:stop]

    def names(self) -> tuple[str, ...]:
        return tuple(self._table(0, 1).column_names)

    def pieces(self) -> list[Piece]:
        rows: int = getattr(self.world, f"num_{self.what}")
        cuts = range(0, rows, self.ROWS)
        return [
            Piece(i, f"world/{self.what}", start, min(start + self.ROWS, rows))
            for i, start in enumerate(cuts)
        ]

    def count(self, piece: Piece) -> int:
        return piece.stop - piece.start

    def read(self, piece: Piece, wanted: Sequence[str]) -> Rows:
        table = self._table(piece.start, piece.stop)
        numbers = np.arange(table.num_rows)
        if self.domain is not None:
            inside = pc.equal(table["domain"], self.domain)
            table = table.filter(inside)
            numbers = numbers[inside.to_numpy()]
        return Rows(table.select(list(wanted)).combine_chunks(), numbers)


def num_bytes(reader: Reader) -> int:
    """Of its files, as they are on disk; 0 of what is made, not read."""
    return sum(files.size(path) for path in getattr(reader, "paths", ()))


@dataclass(frozen=True)
class Source:
    """Events, and the tables joined to them: name -> (reader, key)."""

    events: Reader
    tables: dict[str, tuple[Reader, str]]

    def fingerprint(self) -> list[list[Any]]:
        """What would change if the data did: each file's name, size and checksum, or, of a large
        one, its time of change."""
        readers = [self.events] + [reader for reader, _ in self.tables.values()]
        paths = [path for reader in readers for path in getattr(reader, "paths", ())]
        of_files = dict.fromkeys(files.split_member(path)[0] for path in paths)
        return [files.fingerprint(path) for path in of_files]


def byte_ranges(paths: Sequence[str]) -> list[Piece]:
    """Files in ranges of 1/64 of them all, but none below `MIN_PIECE` or above `MAX_PIECE`.

    A packed file (gzip) cannot be entered in the middle and is one piece.
    """
    sizes = [files.size(path) for path in paths]
    step = min(max(sum(sizes) // 64, MIN_PIECE), MAX_PIECE)
    found: list[Piece] = []
    for path, size in zip(paths, sizes, strict=True):
        if files.is_packed(path):
            found.append(Piece(len(found), path, 0, files.END))
            continue
        for start in range(0, size, step):
            found.append(Piece(len(found), path, start, min(start + step, size)))
    return found


def _num_lines(data: bytes) -> int:
    return data.count(b"\n") + bool(data and not data.endswith(b"\n"))


def _json_object(line: bytes) -> dict[str, Any]:
    if not line.strip():
        raise ValueError("empty line")
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not JSON: nested too deep") from None
    if not isinstance(record, dict):
        raise ValueError(f"a JSON {type(record).__name__} where an object is needed")
    return record


def _json_scalar(name: str, value: Any) -> bytes | None:
    if value is None or value != value:  # NaN, as Python writes it
        return None
    if isinstance(value, list | dict):
        found = "a list" if isinstance(value, list) else "an object"
        raise ValueError(f"{name}: {found} where a single value is needed")
    if isinstance(value, bool):
        return b"1" if value else b"0"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return str(value).encode("utf-8", "surrogatepass")
