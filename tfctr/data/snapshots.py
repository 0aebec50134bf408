"""Snapshots: a model's vectors of users and items at the end of a period, by token.

<folder>/2024-02-26/manifest.json     since, until (the first day that is not in it), dim
<folder>/2024-02-26/user.parquet      token, vector
<folder>/2024-02-26/item.parquet
"""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfctr.data import files
from tfctr.data.manifest import DataError, read_manifest, write_manifest
from tfctr.data.vocabulary import Vocabulary
from tfctr.schema import FIRST_TOKEN_ID

SIDES = ("user", "item")


@dataclass(frozen=True)
class Snapshot:
    """Vectors of the users and items that had a row before the end of a period.

    Args:
        since: first day of the rows that the model was trained on.
        until: the day after the last; rows of this day and later days may read the snapshot.
        dim: int. Width of a vector.
        tokens: by side.
        vectors: by side, float32 `[N, dim]`.
    """

    since: datetime.date
    until: datetime.date
    dim: int
    tokens: dict[str, pa.Array]
    vectors: dict[str, np.ndarray]

    def write(self, folder: str | Path) -> None:
        """Writes the files, the manifest last."""
        for side in SIDES:
            flat = pa.array(self.vectors[side].astype(np.float32).ravel())
            vectors = pa.FixedSizeListArray.from_arrays(flat, self.dim)
            table = pa.table({"token": self.tokens[side], "vector": vectors})
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink)
            files.write(f"{folder}/{side}.parquet", sink.getvalue())
        about = {"since": str(self.since), "until": str(self.until), "dim": self.dim}
        rows = {side: len(self.tokens[side]) for side in SIDES}
        write_manifest(about | {"rows": rows}, f"{folder}/manifest.json")

    @classmethod
    def read(cls, folder: str | Path) -> "Snapshot":
        """Reads what `write` wrote.

        Raises:
            DataError: there is no complete snapshot.
        """
        manifest = read_manifest(f"{folder}/manifest.json")
        if manifest is None:
            raise DataError(f"{folder}: no snapshot here (no manifest.json)")
        tokens, vectors = {}, {}
        for side in SIDES:
            with files.open_to_read(f"{folder}/{side}.parquet") as file:
                table = pq.read_table(file).combine_chunks()
            tokens[side] = table["token"].combine_chunks()
            flat = table["vector"].combine_chunks().flatten().to_numpy()
            vectors[side] = flat.reshape(-1, manifest["dim"])
        since, until = (datetime.date.fromisoformat(manifest[k]) for k in ("since", "until"))
        return cls(since, until, manifest["dim"], tokens, vectors)

    def rows(self, side: str, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
        """Vectors float32 `[ids, dim]` by id, zeros for ids without one, and bool `[ids]`: which
        ids have one."""
        vectors = np.zeros((vocabulary.size, self.dim), np.float32)
        exists = np.zeros(vocabulary.size, bool)
        places = pc.index_in(self.tokens[side], value_set=vocabulary.tokens)
        known = places.is_valid().to_numpy(zero_copy_only=False)
        ids = places.fill_null(0).to_numpy()[known] + FIRST_TOKEN_ID
        vectors[ids], exists[ids] = self.vectors[side][known], True
        return vectors, exists


def finished_before(
    ends: Iterable[datetime.date], day: datetime.date, number: int
) -> list[datetime.date]:
    """The `until` days of the snapshots that `day` may read: at most `number`, the latest first."""
    return sorted((end for end in ends if end <= day), reverse=True)[:number]
