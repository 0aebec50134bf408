"""Tokens and their vectors, from Parquet files or arrays of NumPy."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.config import ConfigError
from tfctr.config.vectors import VectorTable
from tfctr.data import files
from tfctr.data.manifest import DataError
from tfctr.data.readers import ParquetReader
from tfctr.data.sources import matching, paths_of


@dataclass(frozen=True)
class Block:
    """Some rows: tokens as they are stored, an Arrow array `[N]`, and vectors float32 `[N, W]`,
    each with its place for errors."""

    tokens: Any
    vectors: np.ndarray
    of_tokens: str
    of_vectors: str


def paths(table: VectorTable) -> tuple[list[str], str | None]:
    """The files of vectors, and the one of their tokens if that is another.

    Raises:
        ConfigError: a file is not there; the files are of several formats; `.npy` files of vectors
            and of their tokens are not one of each.
    """
    found = paths_of(table)
    kinds = sorted({_kind(path) for path in found})
    if len(kinds) > 1:
        raise ConfigError(
            f"tables: {table.name}: files: found {', '.join(kinds)} files; give files of one format"
        )
    if table.keys is None:
        if kinds == [".npy"]:
            raise ConfigError(
                f"tables: {table.name}: keys: not given; {found[0]} has no tokens, so name a .npy "
                "file of them, in the order of the vectors"
            )
        return found, None
    if named := {"key", "column"} & table.model_fields_set:
        raise ConfigError(
            f"tables: {table.name}: {', '.join(sorted(named))}: names a column or an array of "
            "files that hold their tokens; beside keys leave it out"
        )
    keys = matching(table.keys, table.directory)
    if kinds != [".npy"] or len(found) > 1 or len(keys) > 1 or _kind(keys[0]) != ".npy":
        raise ConfigError(
            f"tables: {table.name}: keys: found {', '.join(keys)} for {', '.join(found)}; one .npy "
            "file of tokens belongs to one .npy file of vectors; other files hold their tokens"
        )
    return found, keys[0]


def blocks(table: VectorTable, key: str) -> Iterator[Block]:
    """The rows of all files; `key` is the name of the column or array of tokens.

    Raises:
        ConfigError: as for `paths`; no such column or array.
        DataError: vectors are not lists of numbers of one length a file, or not finite; there are
            more or fewer tokens than vectors; an array cannot be read.
    """
    found, keys = paths(table)
    kind = _kind(found[0])
    if kind == ".parquet":
        yield from _of_parquet(found, key, table.column)
    elif keys is not None:
        yield _of_arrays(_load(keys), _load(found[0]), keys, found[0])
    else:
        for path in found:
            arrays = _load(path)
            for name in (key, table.column):
                if name not in arrays:
                    raise ConfigError(f"{path}: no array {name!r}; arrays: {', '.join(arrays)}")
            names = (f"{path}: array {name!r}" for name in (key, table.column))
            yield _of_arrays(arrays[key], arrays[table.column], *names)


def _kind(path: str) -> str:
    ending = PurePosixPath(path).suffix.lower()
    return ending if ending in (".npy", ".npz") else ".parquet"


def _of_parquet(paths: list[str], key: str, column: str) -> Iterator[Block]:
    reader = ParquetReader(tuple(paths))
    for piece in reader.pieces():
        rows = reader.read(piece, [key, column]).table
        place = f"{piece.path}: column {column!r}"
        vectors = _finite(_lists(rows[column], place), place)
        tokens = rows[key].combine_chunks()
        yield Block(tokens, vectors, f"{piece.path}: column {key!r}", place)


def _of_arrays(tokens: Any, vectors: Any, of_tokens: str, of_vectors: str) -> Block:
    for array, place, number, what in (
        (vectors, of_vectors, 2, "numbers [N, W]"),
        (tokens, of_tokens, 1, "tokens [N]"),
    ):
        if array.ndim != number or (number == 2 and array.dtype.kind not in "fiu"):
            raise DataError(
                f"{place} holds {array.dtype} of the shape {array.shape}, and {what} are needed"
            )
    if len(tokens) != len(vectors):
        raise DataError(
            f"{of_tokens} has {len(tokens):,} tokens for the {len(vectors):,} vectors of "
            f"{of_vectors}"
        )
    try:
        column = pa.array(tokens)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise DataError(f"{of_tokens} holds no tokens: {error}") from None
    return Block(column, _finite(vectors, of_vectors), of_tokens, of_vectors)


def _load(path: str) -> Any:
    """The array of a `.npy` file, or a dict of those of a `.npz` file."""
    try:
        with files.open_to_read(path) as file:
            found = np.load(file, allow_pickle=False)
            return dict(found) if isinstance(found, np.lib.npyio.NpzFile) else found
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, ConfigError):
            raise
        raise DataError(
            f"{path}: cannot be read as an array of NumPy without Python objects: {error}"
        ) from None


def _lists(column: Any, place: str) -> np.ndarray:
    """Float64 `[N, W]` of a column of lists."""
    column = column.combine_chunks()
    kind = column.type
    is_list = any(
        check(kind)
        for check in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    )
    if not is_list or not (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    ):
        raise DataError(f"{place} holds {kind}, and lists of numbers are needed")
    numbers = column.flatten()
    width = len(numbers) // max(len(column), 1)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    if (lengths != width).any():
        row = int(np.flatnonzero(lengths != width)[0])
        raise DataError(f"{place}: row {row} has {lengths[row]} numbers, and not all rows do")
    found: np.ndarray = numbers.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return found.reshape(-1, width)


def _finite(numbers: np.ndarray, place: str) -> np.ndarray:
    """As float32."""
    with np.errstate(over="ignore"):
        found = numbers.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(bad):
        raise DataError(f"{place}: row {bad[0]} has a number that is not finite as a float32")
    return found
