"""Any earlier rows: what a search for similar ones has to be better than."""

import numpy as np

UNIT = 1 << 20  # of scores, as those of `tfctr.retrieval.bm25`


class RandomRows:
    """Draws from a pool for each target rows earlier than it, each as likely as any other.

    Rows come with scores that grow falling by chance, such that of the rows drawn from several
    parts of a pool those of the greatest scores are drawn from the whole.

    Args:
        times: int64 `[P]`, of the pool's rows.
        seed: int. Equal seeds, equal draws.
    """

    def __init__(self, times: np.ndarray, seed: int) -> None:
        self.order = np.argsort(times, kind="stable")
        self.times = times[self.order]
        self.random = np.random.default_rng(seed)

    def search(self, times: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """`k` different rows earlier than each of `T` targets; all there are, if fewer.

        Args:
            times: int64 `[T]`. Rows of this time or a later one are not drawn.
            k: int.

        Returns:
            `(rows, scores)` int64 `[T, k]`: positions in the arrays that the pool was made of, -1
            where there is no further row, and scores from 1 to `UNIT`, falling, 0 there.
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
    """Draw `i` of `[T, k]`, among the places from 0 that are left, as a place among all.

    Each of the earlier draws, from the least, moves it up by one if it is not above it.
    """
    rows = draws.copy()
    for i in range(1, draws.shape[1]):
        for taken in np.sort(rows[:, :i], axis=1).T:
            rows[:, i] += rows[:, i] >= taken
    return rows
