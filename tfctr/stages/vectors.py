"""The stage that finds the ids of vectors in files: a table of vectors by id."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tfctr.config.vectors import VectorTable
from tfctr.data.manifest import DataError, read_manifest
from tfctr.data.vector_files import blocks, paths
from tfctr.schema import FIRST_TOKEN_ID
from tfctr.stages.prepare import Prepare
from tfctr.stages.stage import Stage


class VectorsById(Stage):
    """`vectors.npy`: float32 `[ids, W]` of a feature's ids, 0 for those without a vector."""

    name = "vectors"
    is_data = True

    def __init__(self, config: VectorTable, feature: str, dataset: Prepare, work: Path) -> None:
        self.config = config
        self.feature = feature
        self.dataset = dataset
        self.folder = work / config.name
        self.path = self.folder / "vectors.npy"
        self.reads = (dataset,)

    @property
    def made_from(self) -> Any:
        from tfctr.data import files

        found, keys = paths(self.config)
        prints = [files.fingerprint(path) for path in (*found, *([keys] if keys else []))]
        config = self.config
        return [self.feature, config.key, config.keys, config.column, prints]

    @property
    def width(self) -> int:
        """`W`."""
        return int((read_manifest(self.manifest_path) or {})["width"])

    @property
    def scale(self) -> float:
        """What the numbers are multiplied by in training: their mean square is 1 then."""
        return float((read_manifest(self.manifest_path) or {})["scale"])

    def check(self) -> None:
        paths(self.config)

    def load(self, num_ids: int) -> np.ndarray:
        """The table; ids that entered the vocabulary after it was made have no vector."""
        found: np.ndarray = np.load(self.path)
        return np.pad(found, ((0, num_ids - len(found)), (0, 0)))

    def make(self, console: Console) -> dict[str, Any]:
        from tfctr.data.dataset import Dataset
        from tfctr.data.listed_tokens import tokens_of
        from tfctr.data.vocabulary import Vocabulary

        config = self.config
        console.print(f"[bold]{self.name}[/] {config.name} -> {self.path}", soft_wrap=True)
        data = Dataset.open(self.dataset.path)
        feature = data.schema[self.feature]
        key = config.key or feature.source_column
        path = Path(data.vocabulary_file(feature.vocabulary))
        vocabulary = Vocabulary.open(path, feature.dtype)
        table: np.ndarray | None = None
        strays = 0
        given = np.zeros(feature.num_ids, bool)
        for block in blocks(config, key):
            ids = vocabulary.ids(tokens_of(feature, block.tokens, block.of_tokens))
            vectors = block.vectors
            if table is None:
                table = np.zeros((feature.num_ids, vectors.shape[1]), np.float32)
            if vectors.shape[1] != table.shape[1]:
                raise DataError(
                    f"{block.of_vectors}: found a vector of {vectors.shape[1]} numbers after those "
                    f"of {table.shape[1]}"
                )
            known = np.flatnonzero(ids >= FIRST_TOKEN_ID)
            strays += len(ids) - len(known)
            places, counts = np.unique(ids[known], return_counts=True)
            twice = places[(counts > 1) | given[places]]
            if len(twice):
                row = int(np.flatnonzero(ids == twice[0])[-1])
                raise DataError(
                    f"{block.of_tokens}: {block.tokens[row].as_py()!r} has two vectors; give one "
                    "of each"
                )
            given[places] = True
            table[ids[known]] = vectors[known]
        tokens = feature.num_ids - FIRST_TOKEN_ID
        if table is None or not given.any():
            raise DataError(
                f"tables: {config.name}: {', '.join(config.files)}: none of the {strays:,} tokens "
                f"is one of {self.feature}, which has {tokens:,}"
            )
        size = np.sqrt(np.mean(np.square(table[given], dtype=np.float64)))
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(self.path, table)
        console.print(
            f"vectors of {table.shape[1]} numbers for {given.sum():,} of {tokens:,} "
            f"{self.feature}; {strays:,} are of no token of the training rows",
            highlight=False,
        )
        return {
            "width": table.shape[1],
            "scale": 1 / size if size > 0 else 1.0,
            "vectors": int(given.sum()),
            "strays": strays,
        }


class LatestVectors(VectorsById):
    """The table of the files as they are now, for a student that was trained before."""

    def __init__(self, config: VectorTable, feature: str, dataset: Prepare, work: Path) -> None:
        super().__init__(config, feature, dataset, work)
        self.folder = work / f"{config.name}-latest"
        self.path = self.folder / "vectors.npy"
