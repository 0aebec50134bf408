"""Random earlier rows: a baseline of the search for similar rows."""

import numpy as np

UNIT = 1 << 20  # of scores, as those of `tfctr.retrieval.bm25`


class RandomRows:
    """Draws earlier rows from a pool for each target, uniformly.

    Rows have random scores in descending order, such that the greatest scores over several parts of
    a pool are a uniform draw from the whole pool.

    Args:
        times: int64 `[P]`, of the pool's rows.
        seed: int. Equal seeds, equal draws.
    """

    def __init__(self, times: np.ndarray, seed: int) -> None:
        self.order = np.argsort(times, kind="stable")
        self.times = times[self.order]
        self.random = np.random.default_rng(seed)

    def search(self, times: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """`k` different rows earlier than each of `T` targets, or all if there are fewer.

        Args:
            times: int64 `[T]`. Rows of this time or a later one are not drawn.
            k: int.

        Returns:
            `(rows, scores)` int64 `[T, k]`: positions in the pool's arrays, padded with -1, and
            scores from 1 to `UNIT`, descending, padded with 0.
        """
        earlier = np.searchsorted(self.times, times, side="left")[:, None]
        place = np.arange(k)
        exists = place < earlier
        # The greatest of n numbers drawn between 0 and 1 is one to the power 1 / n, and so on.
        left = np.maximum(earlier - place, 1)
        powers = np.log(self.random.random((len(times), k))) / left
        scores = np.ceil(np.exp(np.cumsum(powers, axis=1)) * UNIT).astype(np.int64)
        rows = (self.random.random((len(times), k)) * left).astype(np.int64)
        rows = _without_repeats(rows)
        rows = self.order[np.where(exists, rows, 0)] if len(self.order) else rows
        return np.where(exists, rows, -1), np.where(exists, scores, 0)


def _without_repeats(draws: np.ndarray) -> np.ndarray:
    """Converts draw `i` of `[T, k]`, an index among the places that are left, to a place.

    Each earlier draw, in ascending order, moves it up by one if it is not above it.
    """
    rows = draws.copy()
    for i in range(1, draws.shape[1]):
        for taken in np.sort(rows[:, :i], axis=1).T:
            rows[:, i] += rows[:, i] >= taken
    return rows
