"""Which features a model needs: by how much it is worse where one of them is shuffled."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tfctr import metrics

ROWS = (8192, 4096, 2048, 1024, 512)  # the most whose predictions fit in `SECONDS`
SECONDS = 8.0  # of all cores together, so that a busy machine measures the same
REPEATS = 3


class Importance(NamedTuple):
    """By how much AUC falls where a feature is shuffled: over `REPEATS` permutations."""

    name: str
    mean: float
    low: float
    high: float


def importances(
    predict: Callable[[Mapping[str, np.ndarray]], np.ndarray],
    columns: Mapping[str, np.ndarray],
    labels: np.ndarray,
    repeats: int = REPEATS,
    seed: int = 0,
) -> list[Importance]:
    """The permutation importance (Breiman, 2001) of each feature, the greatest first.

    Args:
        predict: gives the scores `[N]` of columns.
        columns: by feature, `[N]` or `[N, M]`.
        labels: `[N]` of 0 and 1, with both.
        repeats: int, at least 1. Permutations of each feature.
        seed: int, of the permutations.
    """
    generator = np.random.default_rng(seed)
    whole = metrics.auc(labels, predict(columns))
    orders = [generator.permutation(len(labels)) for _ in range(repeats)]
    found = []
    for name, values in columns.items():
        falls = [
            whole - metrics.auc(labels, predict({**columns, name: values[order]}))
            for order in orders
        ]
        found.append(Importance(name, float(np.mean(falls)), min(falls), max(falls)))
    return sorted(found, key=lambda one: -one.mean)


def affordable_rows(
    predict: Callable[[Mapping[str, np.ndarray]], np.ndarray], columns: Mapping[str, np.ndarray]
) -> int | None:
    """How many of the rows of `columns` `importances` can use in `SECONDS`; None for too few."""
    number = len(next(iter(columns.values())))
    few = {name: values[: ROWS[-1]] for name, values in columns.items()}
    predict(few)  # for what is made once
    start = time.process_time()
    predict(few)
    a_row = (time.process_time() - start) / min(number, ROWS[-1])
    predictions = 1 + REPEATS * len(columns)
    fits = [rows for rows in ROWS if a_row * rows * predictions <= SECONDS]
    return min(fits[0], number) if fits else None


def predictor(model: Any) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """`predict` of a `tfctr.models.ClickModel`."""
    from keras import ops

    def predict(columns: Mapping[str, np.ndarray]) -> np.ndarray:
        tensors = {name: ops.convert_to_tensor(values) for name, values in columns.items()}
        return np.asarray(ops.convert_to_numpy(model(tensors, training=False)))

    return predict
