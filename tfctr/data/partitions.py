"""Columns that the names of folders give, such as `day=2024-01-01/part-0.parquet`: Hive's layout,
which Spark, pandas and DuckDB write too."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import dataset

from tfctr.config import ConfigError
from tfctr.data.delimited import Rows
from tfctr.data.readers import Piece, Reader, TypedReader


@dataclass(frozen=True)
class PartitionedReader:
    """Files in such folders, with a text column for each of `keys`, which the files lack.

    Text is what the folder's name holds: a feature says whether it is an integer. Percent signs are
    decoded, and `__HIVE_DEFAULT_PARTITION__` is a missing value.
    """

    inner: Reader
    keys: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        found: tuple[str, ...] = getattr(self.inner, "paths", ())
        return found

    def names(self) -> tuple[str, ...]:
        return (*self.inner.names(), *self.keys)

    def pieces(self) -> list[Piece]:
        return self.inner.pieces()

    def count(self, piece: Piece) -> int:
        return self.inner.count(piece)

    def read(self, piece: Piece, wanted: Sequence[str]) -> Rows:
        rows = self.inner.read(piece, self._in_files(wanted) or self.inner.names()[:1])
        values = _values(piece.path, self.keys)
        columns = {
            name: pa.repeat(pa.scalar(values[name], pa.string()), len(rows.numbers))
            if name in self.keys
            else rows.table[name]
            for name in wanted
        }
        rows.table = pa.table(columns)
        return rows

    def types(self, wanted: Sequence[str]) -> Iterator[tuple[str, pa.Schema]]:
        if isinstance(self.inner, TypedReader):
            for path, schema in self.inner.types(self._in_files(wanted)):
                keys = [pa.field(name, pa.string()) for name in wanted if name in self.keys]
                yield path, pa.schema([*schema, *keys])

    def is_missing(self, path: str, name: str) -> bool:
        return isinstance(self.inner, TypedReader) and self.inner.is_missing(path, name)

    def _in_files(self, wanted: Sequence[str]) -> list[str]:
        return [name for name in wanted if name not in self.keys]


def common_keys(paths: Iterable[str], folders: Iterable[PurePath]) -> tuple[str, ...]:
    """The keys that are in the path of every file.

    Args:
        paths: of the files.
        folders: a path below one of them counts from there: it is what a config says.
    """
    found: list[list[str]] = []
    for path in paths:
        below = (folder for folder in folders if PurePath(path).is_relative_to(folder))
        folder = next(below, None)
        parts = _folders(path if folder is None else str(PurePath(path).relative_to(folder)))
        found.append([unquote(part.partition("=")[0]) for part in parts if "=" in part])
    return tuple(key for key in dict.fromkeys(found[0]) if all(key in keys for keys in found))


def _values(path: str, keys: Iterable[str]) -> dict[str, str | None]:
    schema = pa.schema([(key, pa.string()) for key in keys])
    layout = dataset.partitioning(schema, flavor="hive")
    # Of two folders with one key the inner one counts; Arrow takes the first.
    inner_first = "/".join(reversed(_folders(path)))
    try:
        found = dataset.get_partition_keys(layout.parse(f"{inner_first}/file"))
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{path}: {error}") from None
    return {key: found[key] for key in schema.names}


def _folders(path: str) -> tuple[str, ...]:
    if "://" in path:
        path = unquote(urlsplit(path).path)
    return PurePosixPath(path.replace(".zip!", ".zip/")).parent.parts
