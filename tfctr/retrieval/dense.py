"""The nearest earlier rows by the vectors that a trained model has for their fields."""

from typing import Any

import numpy as np

from tfctr.retrieval.bm25 import PLACES, UNIT

BLOCK_ROWS = 1 << 15  # of the pool; of rows before a target's block, an index is made
QUERIES = 128  # searched for at a time


class DenseIndex:
    """Searches a pool for the rows of the greatest cosine with a target, earlier than it, exactly.

    The pool lies in the order of time, in blocks. All blocks before the one that a target's time
    falls into are searched by `tensorflow_recommenders`' `BruteForce`, that block row by row. Of
    equal scores the newer row is better.

    Args:
        vectors: float32 `[P, d]`, of the pool's rows.
        times: int64 `[P]`.
        row_ids: int64 `[P]`, all different.
    """

    def __init__(self, vectors: np.ndarray, times: np.ndarray, row_ids: np.ndarray) -> None:
        self.order = np.lexsort((row_ids, times))
        self.times = times[self.order]
        self.vectors = unit(vectors[self.order])

    def search(
        self, vectors: np.ndarray, times: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best `k` rows earlier than each of `T` targets, the best first.

        Args:
            vectors: float32 `[T, d]`.
            times: int64 `[T]`. Rows of this time or a later one are not found.
            k: int.

        Returns:
            `(rows, scores)` int64 `[T, k]`: positions in the arrays that the index was made of, -1
            where there is no further row, and scores from 1, 0 there.
        """
        rows = np.full((len(times), k), -1, np.int64)
        scores = np.zeros((len(times), k), np.int64)
        earlier = np.searchsorted(self.times, times, side="left")
        queries = unit(vectors)
        blocks = earlier // BLOCK_ROWS
        for block in np.unique(blocks[earlier > 0]):
            first = int(block) * BLOCK_ROWS
            index = self._index(first, k)
            asked = np.flatnonzero((blocks == block) & (earlier > 0))
            for start in range(0, len(asked), QUERIES):
                part = asked[start : start + QUERIES]
                keys = self._keys_of_block(queries[part], first, earlier[part])
                if index is not None:
                    cosines, places = (found.numpy() for found in index(queries[part]))
                    keys = np.concatenate([keys, _keys(cosines, places)], axis=1)
                keys = -np.sort(-keys, axis=1)[:, :k]
                exists = keys > 0
                found = self.order[np.where(exists, keys & ((1 << PLACES) - 1), 0)]
                width = keys.shape[1]
                rows[part, :width] = np.where(exists, found, -1)
                scores[part, :width] = np.where(exists, keys >> PLACES, 0)
        return rows, scores

    def _index(self, size: int, k: int) -> Any:
        """Of the first rows; the newest lies first, which is what comes first of equal ones."""
        if not size:
            return None
        import tensorflow_recommenders as tfrs

        index = tfrs.layers.factorized_top_k.BruteForce(k=min(k, size))
        return index.index(self.vectors[:size][::-1].copy(), np.arange(size)[::-1].copy())

    def _keys_of_block(self, queries: np.ndarray, first: int, limits: np.ndarray) -> np.ndarray:
        block = self.vectors[first : first + BLOCK_ROWS]
        places = np.arange(first, first + len(block))
        keys = _keys(queries @ block.T, np.broadcast_to(places, (len(queries), len(places))))
        return np.where(places < limits[:, None], keys, 0)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1; zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(length, 1e-12)).astype(np.float32)


def _keys(cosines: np.ndarray, places: np.ndarray) -> np.ndarray:
    """One number a row, greater where it is better: its score, from 1, then its place."""
    scores = np.rint((cosines.astype(np.float64) + 1) / 2 * UNIT).astype(np.int64) + 1
    return np.maximum(scores, 1) << PLACES | places
