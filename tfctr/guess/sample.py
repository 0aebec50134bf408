"""A sample of a table's rows, from places all over its files."""

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tfctr.data import files
from tfctr.data.conform import is_text
from tfctr.data.one_value import NUMBER
from tfctr.data.partitions import PartitionedReader
from tfctr.data.readers import JsonLinesReader, ParquetReader, Piece, Reader

TEXT_BYTES = 8 << 20  # of text, in `PLACES` places
PLACES = 16
GROUPS, GROUP_ROWS = 4, 8192  # of Parquet

NO_VALUE = ("NULL", "null", "\\N", "N/A", "None")  # texts that are nothing else
MAYBE_NO_VALUE = ("NA", "-", "?", ".")  # if all others are numbers


@dataclass(frozen=True)
class Sample:
    """Rows of a table.

    Attributes:
        columns: by name, of equal lengths: binary or lists of binary of text files, and the types
            of the file else. Columns of objects are left out.
        objects: the names of those.
    """

    columns: dict[str, Any]
    objects: tuple[str, ...]

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def sample(reader: Any) -> Sample:
    """The sample of a reader's rows; bad rows are left out."""
    inner: Any = reader.inner if isinstance(reader, PartitionedReader) else reader
    pieces = sampled_pieces(reader)
    if isinstance(inner, ParquetReader):
        return _of_row_groups(reader, pieces)
    names, objects = list(reader.names()), set[str]()
    if isinstance(inner, JsonLinesReader):
        lists, objects = _nested(pieces)
        inner = dataclasses.replace(inner, separators=dict.fromkeys(lists, "|"))
        names = [name for name in names if name not in objects]
        reader = (
            dataclasses.replace(reader, inner=inner)
            if isinstance(reader, PartitionedReader)
            else inner
        )
    tables = [reader.read(piece, names).table for piece in pieces]
    whole = pa.concat_tables(tables).combine_chunks() if tables else pa.table({})
    columns = {name: _one(whole[name]) for name in whole.column_names}
    return Sample(columns, tuple(name for name in reader.names() if name in objects))


def sampled_pieces(reader: Any) -> list[Piece]:
    """The places of a sample: row groups, or ranges of bytes in text files.

    A packed file can only be read from its start.
    """
    inner: Any = reader.inner if isinstance(reader, PartitionedReader) else reader
    if isinstance(inner, ParquetReader):
        groups = [piece for piece in reader.pieces() if reader.count(piece)]
        return groups[:: max((len(groups) - 1) // (GROUPS - 1), 1)][:GROUPS]
    paths = inner.paths
    sizes = {path: files.size(path) for path in paths}
    packed = [path for path in paths if files.is_packed(path)]
    plain = [path for path in paths if path not in packed]
    size, ranges = TEXT_BYTES // PLACES, list[tuple[str, int, int]]()
    total = sum(sizes[path] for path in plain)
    if total <= TEXT_BYTES:
        ranges += [(path, 0, sizes[path]) for path in plain]
    else:
        starts = [i * (total - size) // (PLACES - 1) for i in range(PLACES)]
        before = 0
        for path in plain:
            here = [start - before for start in starts if 0 <= start - before < sizes[path]]
            ranges += [(path, start, min(start + size, sizes[path])) for start in here]
            before += sizes[path]
    step = max(len(packed) // PLACES, 1)
    chosen = packed[::step][:PLACES]
    few = TEXT_BYTES // max(len(chosen), 1)
    ranges += [(path, 0, few) for path in chosen]
    return [Piece(i, *found) for i, found in enumerate(ranges)]


def encoding(pieces: Sequence[Piece]) -> str:
    """ "utf-8", or "latin-1" if most lines that are not ASCII are no UTF-8."""
    right = wrong = 0
    for piece in pieces:
        data = files.read_lines(piece.path, piece.start, piece.stop)
        if data.isascii():
            continue
        for line in data.split(b"\n"):
            if not line.isascii():
                try:
                    line.decode()
                    right += 1
                except UnicodeDecodeError:
                    wrong += 1
    return "latin-1" if wrong > right else "utf-8"


def missing_texts(columns: dict[str, Any]) -> list[str]:
    """The texts that stand for no value in binary columns."""
    found: dict[str, None] = {}
    for values in columns.values():
        distinct = _texts(values)
        found |= dict.fromkeys(text for text in NO_VALUE if text in distinct)
        others = distinct - {*NO_VALUE, *MAYBE_NO_VALUE, ""}
        if others and all(map(NUMBER.fullmatch, others)):
            found |= dict.fromkeys(text for text in MAYBE_NO_VALUE if text in distinct)
    return list(found)


def has_decimal_commas(columns: dict[str, Any], missing: Sequence[str]) -> bool:
    """Whether a binary column holds numbers that are written `1,5`."""
    for values in columns.values():
        distinct = _texts(values) - {*missing, ""}
        is_number = all(re.fullmatch(r"[+-]?\d+(,\d+)?", text) for text in distinct)
        if is_number and any("," in text for text in distinct):
            return True
    return False


def _texts(values: Any) -> set[str]:
    """Distinct texts; empty for columns of other types."""
    if not is_text(values.type):
        return set()
    return {
        value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for value in pc.unique(values).drop_null().to_pylist()
    }


def _nested(pieces: Sequence[Piece]) -> tuple[set[str], set[str]]:
    """The keys of JSON Lines that hold lists of values, and those that hold objects."""
    lists, objects = set[str](), set[str]()
    for piece in pieces:
        for line in files.read_lines(piece.path, piece.start, piece.stop).split(b"\n"):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue  # a bad row
            for key, value in record.items() if isinstance(record, dict) else ():
                if isinstance(value, list):
                    is_plain = not any(isinstance(part, list | dict) for part in value)
                    (lists if is_plain else objects).add(key)
                elif isinstance(value, dict):
                    objects.add(key)
    return lists - objects, objects


def _of_row_groups(reader: Reader, chosen: Sequence[Piece]) -> Sample:
    columns: dict[str, Any] = {}
    objects: list[str] = []
    for name in reader.names():  # one at a time: all of a row group's may be large
        parts = [reader.read(piece, [name]).table[name].slice(0, GROUP_ROWS) for piece in chosen]
        kinds = {part.type for part in parts}
        if any(map(_is_object, kinds)):
            objects.append(name)
        elif parts:
            chunks = [_one(part) for part in parts]
            # Files may differ in the width of a number.
            columns[name] = _one(pa.chunked_array(chunks)) if len(kinds) == 1 else _alike(chunks)
    return Sample(columns, tuple(objects))


def _is_object(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind) or pa.types.is_map(kind):
        return True
    return bool(pa.types.is_nested(kind) and pa.types.is_nested(kind.value_type))


def _alike(chunks: Sequence[Any]) -> Any:
    tables = [pa.table({"values": chunk}) for chunk in chunks]
    try:
        return _one(pa.concat_tables(tables, promote_options="permissive")["values"])
    except pa.ArrowException:
        return _one(pa.chunked_array([chunk.cast(pa.string()) for chunk in chunks]))


def _one(column: Any) -> Any:
    if not isinstance(column, pa.ChunkedArray):
        return column
    found = column.combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found
