"""The stage before the student: a table of vectors by id."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from tfctr.data.manifest import DataError, read_manifest
from tfctr.frameworks.vectors.config import VectorTable
from tfctr.schema import FIRST_TOKEN_ID
from tfctr.stages import Prepare, Stage


class VectorsById(Stage):
    """`vectors.npy`: float32 `[ids, W]`, 0 for ids without a vector. It is scaled so that the
    numbers of all vectors have a mean square of 1."""

    name = "vectors"
    is_data = True

    def __init__(self, config: VectorTable, dataset: Prepare, work: Path) -> None:
        self.config = config
        self.dataset = dataset
        self.folder = work / config.name
        self.path = self.folder / "vectors.npy"
        self.reads = (dataset,)

    @property
    def made_from(self) -> Any:
        from tfctr.data import files

        prints = [files.fingerprint(path) for path in self._paths()]
        return [self.config.feature, self.config.key, self.config.column, prints]

    @property
    def width(self) -> int:
        """`W`."""
        return int((read_manifest(self.manifest_path) or {})["width"])

    def check(self) -> None:
        self._paths()

    def load(self) -> np.ndarray:
        """The table."""
        found: np.ndarray = np.load(self.path)
        return found

    def make(self, console: Console) -> dict[str, Any]:
        from tfctr.data.dataset import Dataset
        from tfctr.data.listed_tokens import tokens_of
        from tfctr.data.readers import ParquetReader
        from tfctr.data.vocabulary import Vocabulary

        config = self.config
        console.print(f"[bold]{self.name}[/] {config.name} -> {self.path}", soft_wrap=True)
        data = Dataset.open(self.dataset.path)
        feature = data.schema[config.feature]
        reader = ParquetReader(tuple(self._paths()))
        key = config.key or feature.source_column
        path = Path(data.vocabulary_file(feature.vocabulary))
        vocabulary = Vocabulary.open(path, feature.dtype)
        table: np.ndarray | None = None
        strays = 0
        given = np.zeros(feature.num_ids, bool)
        for piece in reader.pieces():
            found = reader.read(piece, [key, config.column]).table
            ids = vocabulary.ids(tokens_of(feature, found[key], piece.path, key))
            vectors = _vectors(found[config.column], piece.path, config.column)
            if table is None:
                table = np.zeros((feature.num_ids, vectors.shape[1]), np.float32)
            if vectors.shape[1] != table.shape[1]:
                raise DataError(
                    f"{piece.path}: column {config.column!r}: found a vector of "
                    f"{vectors.shape[1]} numbers after those of {table.shape[1]}"
                )
            known = np.flatnonzero(ids >= FIRST_TOKEN_ID)
            strays += len(ids) - len(known)
            places, counts = np.unique(ids[known], return_counts=True)
            twice = places[(counts > 1) | given[places]]
            if len(twice):
                row = int(np.flatnonzero(ids == twice[0])[-1])
                raise DataError(
                    f"{piece.path}: column {key!r}: {found[key][row].as_py()!r} has two vectors; "
                    "give one of each"
                )
            given[places] = True
            table[ids[known]] = vectors[known]
        tokens = feature.num_ids - FIRST_TOKEN_ID
        if table is None or not given.any():
            raise DataError(
                f"{reader.paths[0]}: column {key!r}: none of its {strays:,} tokens is one of "
                f"{config.feature}, which has {tokens:,}"
            )
        scale = np.sqrt(np.mean(np.square(table[given], dtype=np.float64)))
        table /= scale if scale > 0 else 1.0
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(self.path, table)
        console.print(
            f"vectors of {table.shape[1]} numbers for {given.sum():,} of {tokens:,} "
            f"{config.feature}; {strays:,} are of no token of the training rows",
            highlight=False,
        )
        return {"width": table.shape[1], "vectors": int(given.sum()), "strays": strays}

    def _paths(self) -> list[str]:
        from tfctr.data.sources import paths_of

        return paths_of(self.config)


def _vectors(column: Any, path: str, name: str) -> np.ndarray:
    """Float32 `[N, W]` of a column of lists."""
    column = column.combine_chunks()
    kind = column.type
    is_list = any(
        check(kind)
        for check in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    )
    if not is_list or not (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    ):
        raise DataError(f"{path}: column {name!r} holds {kind}, and lists of numbers are needed")
    numbers = column.flatten()
    width = len(numbers) // max(len(column), 1)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    if (lengths != width).any():
        row = int(np.flatnonzero(lengths != width)[0])
        raise DataError(
            f"{path}: column {name!r}: row {row} has {lengths[row]} numbers, and not all rows do"
        )
    found = numbers.cast(pa.float64()).to_numpy(zero_copy_only=False).reshape(-1, width)
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found).all(1))[0])
        raise DataError(f"{path}: column {name!r}: row {row} has a number that is not finite")
    return found.astype(np.float32)
