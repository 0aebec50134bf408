"""Folds of rows: each is for a model that has not learned from it."""

import numpy as np

from tfctr.data.fingerprint import mix


def fold_of(rows: np.ndarray, folds: int) -> np.ndarray:
    """The fold of each row, int64 `[N]`, by a hash of its id: int64 `[N]`."""
    return (mix(rows, 1) % np.uint64(folds)).astype(np.int64)
