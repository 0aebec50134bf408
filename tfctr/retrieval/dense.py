"""The nearest earlier rows by a trained model's vectors of their fields."""

from typing import Any

import numpy as np

from tfctr.retrieval.bm25 import PLACES, UNIT

BLOCK_ROWS = 1 << 15  # rows of a block of the pool; blocks before a target's share an index
QUERIES = 128  # number of targets searched at a time


class DenseIndex:
    """Searches a pool, exactly, for the rows with the greatest cosine that are before a target.

    The pool is sorted by time and cut into blocks. `tensorflow_recommenders`' `BruteForce` searches
    all blocks before the block of the target's time; this block is searched row by row. Among equal
    scores the newer row is better.

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
            `(rows, scores)` int64 `[T, k]`: positions in the index's arrays, padded with -1, and
            scores from 1, padded with 0.
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
        """An index of the first rows, newest first: it returns the first of equal scores."""
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
    """One number per row, greater for better rows: its score, from 1, then its place."""
    scores = np.rint((cosines.astype(np.float64) + 1) / 2 * UNIT).astype(np.int64) + 1
    return np.maximum(scores, 1) << PLACES | places
