"""Vocabularies: tokens and their ids."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.data.hashed import to_buckets
from tfctr.schema import FIRST_TOKEN_ID, OOV_ID, PAD_ID


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a feature in the order of their ids, the first being `FIRST_TOKEN_ID`.

    Its file holds one token per line, most frequent first, without `PAD`, `OOV` and `MASK`; tokens
    that were only listed in files come last. Of a feature with `hash_buckets` the tokens are the
    numbers of buckets.
    """

    tokens: pa.Array  # string or int64
    hash_buckets: int | None = None

    @property
    def size(self) -> int:
        """Number of ids, special ones included."""
        return len(self.tokens) + FIRST_TOKEN_ID

    def ids(self, values: pa.Array) -> np.ndarray:
        """Ids int64 `[N]`: `PAD_ID` for null, `OOV_ID` for values out of vocabulary."""
        if pa.types.is_dictionary(values.type):
            ids = np.append(self.ids(values.dictionary), PAD_ID)
            return ids[values.indices.fill_null(len(ids) - 1).to_numpy()]
        return self._ids(to_buckets(values, self.hash_buckets) if self.hash_buckets else values)

    def _ids(self, values: pa.Array) -> np.ndarray:
        places = pc.index_in(values, value_set=self.tokens).fill_null(OOV_ID - FIRST_TOKEN_ID)
        ids = places.to_numpy().astype(np.int64) + FIRST_TOKEN_ID
        if values.null_count:
            ids[values.is_null().to_numpy(zero_copy_only=False)] = PAD_ID
        return ids

    def places_in(self, other: "Vocabulary") -> np.ndarray:
        """Int64 `[size]`: the id of each token in another vocabulary, -1 for none.

        The special ids stay as they are.
        """
        found = other._ids(self.tokens)
        return np.concatenate([np.arange(FIRST_TOKEN_ID), np.where(found == OOV_ID, -1, found)])

    @classmethod
    def parse(cls, text: bytes, dtype: str, hash_buckets: int | None = None) -> "Vocabulary":
        lines = text.decode("utf-8").split("\n")[:-1]
        tokens = pa.array(lines, pa.string())
        return cls(tokens if dtype == "string" else tokens.cast(pa.int64()), hash_buckets)

    @classmethod
    def open(cls, path: Path, dtype: str, hash_buckets: int | None = None) -> "Vocabulary":
        """Reads the file; `dtype` ("string" or "int") and `hash_buckets` are the feature's."""
        return cls.parse(path.read_bytes(), dtype, hash_buckets)

    def to_bytes(self) -> bytes:
        return "".join(f"{token}\n" for token in self.tokens.to_pylist()).encode()
