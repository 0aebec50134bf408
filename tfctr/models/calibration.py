"""Maps from a model's logits to calibrated ones, fitted on rows that it has not learned."""

from typing import NamedTuple

import numpy as np
from scipy.special import logit

from tfctr.schema import FIRST_TOKEN_ID

GROUPS = 256  # of validation rows, at most
ROWS_OF_GROUP = 50  # at least
SMALLEST_SLOPE = 0.01  # so that the order of scores stays what it was


class Map(NamedTuple):
    """A strictly increasing map of logits, linear between knots.

    Args:
        x: float `[K]`, ascending: logits.
        y: float `[K]`, ascending: what they become.
        slope: below the first knot, and above the last one.
    """

    x: np.ndarray
    y: np.ndarray
    slope: float = 1.0


IDENTITY = Map(np.zeros(1), np.zeros(1))


def fit(
    method: str,
    logits: np.ndarray,
    labels: np.ndarray,
    ids: np.ndarray | None = None,
    least_rows: int = 1,
) -> tuple[list[Map], dict[int, int]]:
    """Fits a map on all rows, and one on those of each token that has enough of them.

    Args:
        method: "isotonic" or "platt".
        logits: float `[N]`.
        labels: `[N]` of 0 and 1.
        ids: int `[N]` of a feature. Defaults to none.
        least_rows: int. Rows from which on a token has a map of its own, if they have both classes.
            Defaults to 1.

    Returns:
        The maps, the first one of all rows: `IDENTITY`, and no others, if these have one class. And
        the number of its map for each id that has one of its own; ids of no token have none.
    """
    if not _has_both(labels):
        return [IDENTITY], {}
    make = {"isotonic": isotonic, "platt": platt}[method]
    maps, map_of_id = [make(logits, labels)], {}
    for id_ in () if ids is None else np.flatnonzero(np.bincount(ids) >= least_rows).tolist():
        rows = ids == id_
        if id_ >= FIRST_TOKEN_ID and _has_both(labels[rows]):
            map_of_id[id_] = len(maps)
            maps.append(make(logits[rows], labels[rows]))
    return maps, map_of_id


def _has_both(labels: np.ndarray) -> bool:
    return bool(np.any(labels == 1) and np.any(labels == 0))


def platt(logits: np.ndarray, labels: np.ndarray) -> Map:
    """`a z + b` with the least log loss, `a` at least `SMALLEST_SLOPE` (Platt, 1999).

    Args:
        logits: float `[N]`.
        labels: `[N]` of 0 and 1, both present.

    Example:
        >>> platt(logits, labels).slope  # doctest: +SKIP
        0.8
    """
    from sklearn.linear_model import LogisticRegression

    center, spread = float(np.mean(logits)), float(np.std(logits)) or 1.0
    fitted = LogisticRegression(C=1e9).fit(((logits - center) / spread)[:, None], labels)
    slope = max(float(fitted.coef_[0, 0]) / spread, SMALLEST_SLOPE)
    return Map(np.array([center]), fitted.intercept_.astype(np.float64), slope)


def isotonic(logits: np.ndarray, labels: np.ndarray) -> Map:
    """A centred isotonic regression (Oron and Flournoy, 2017, arXiv:1701.05964), in logits.

    Rows are put in groups, as many in each, in the order of their logits. A group's rate is
    smoothed by one row at the rate of all, so that it is neither 0 nor 1. Where isotonic regression
    gives several groups one rate, a tie, they become one knot at their mean logit, and the map
    rises between the knots. Beyond them, a logit is shifted.

    Args:
        logits: float `[N]`.
        labels: `[N]` of 0 and 1, both present.
    """
    from sklearn.isotonic import IsotonicRegression

    order = np.argsort(logits, kind="stable")
    number = int(np.clip(len(order) // ROWS_OF_GROUP, 1, GROUPS))
    groups = np.array_split(order, number)
    rows = np.array([len(group) for group in groups], np.float64)
    x = np.array([np.mean(logits[group], dtype=np.float64) for group in groups])
    clicks = np.array([np.sum(labels[group], dtype=np.float64) for group in groups])
    rates = (clicks + np.mean(labels, dtype=np.float64)) / (rows + 1)
    fitted = IsotonicRegression().fit(x, rates, sample_weight=rows).predict(x)
    _, block = np.unique(np.round(fitted, 12), return_inverse=True)
    of_block = np.bincount(block, rows)
    knots = np.bincount(block, rows * x) / of_block
    found = logit(np.bincount(block, rows * fitted) / of_block)
    for k in range(1, len(found)):
        least = found[k - 1] + SMALLEST_SLOPE * (knots[k] - knots[k - 1])
        found[k] = max(found[k], least)
    return Map(knots, found)
