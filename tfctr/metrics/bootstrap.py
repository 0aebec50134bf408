"""How far a metric could be off because these are the rows that happened to be logged."""

import math

import numpy as np

from tfctr.metrics.calibration import row_log_losses
from tfctr.metrics.ranking import check_rows, rank_positives, ranked_auc, user_aucs


def bootstrap_interval(
    labels: np.ndarray,
    logits: np.ndarray,
    users: np.ndarray | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """95% percentile interval of each metric (Efron and Tibshirani, 1993, chapter 13).

    AUC and log loss resample rows. Rows are sorted once; a resample is the count of each row, used
    as its weight, and both metrics share it.

    GAUC resamples users: users are what it averages over, rows of one user are not independent,
    and drawing rows would thin a user of few impressions until it loses a class and drops out,
    which is another metric. A user's AUC stays as it is, so a resample costs one weighted mean.
    Users without both classes are not in GAUC and are not drawn.

    Args:
        labels: `[N]` of 0 and 1.
        logits: `[N]`, finite.
        users: `[N]` of keys as for `gauc`, or None for no GAUC.
        resamples: int, at least 1.
        seed: int. The same seed and rows give the same intervals.

    Returns:
        `{"auc": (low, high), "log_loss": ..., "gauc": ...}`, "gauc" only with users. Resamples that
        lack a class are left out of AUC's interval; an undefined metric has `(nan, nan)`.

    Raises:
        ValueError: as for `log_loss` and `gauc`; no resamples.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, found {resamples}")
    generator = np.random.default_rng(seed)
    positive, scores = check_rows(labels, logits, "logits")
    ranking = rank_positives(positive, scores)
    losses = row_log_losses(labels, logits)[ranking.order]
    aucs, means = [], []
    for _ in range(resamples):
        counts = _draw(generator, len(losses))
        aucs.append(ranked_auc(ranking, counts))
        means.append(counts @ losses / len(losses))
    intervals = {"auc": _middle(aucs), "log_loss": _middle(means)}
    if users is not None:
        values, impressions = user_aucs(labels, scores, users)
        gaucs = []
        for _ in range(resamples if len(values) else 0):
            weights = _draw(generator, len(values)) * impressions
            gaucs.append(weights @ values / weights.sum())
        intervals["gauc"] = _middle(gaucs)
    return intervals


def _draw(generator: np.random.Generator, size: int) -> np.ndarray:
    """How often each of `size` things comes up in `size` draws with replacement: int `[size]`."""
    return np.bincount(generator.integers(size, size=size), minlength=size)


def _middle(values: list[float]) -> tuple[float, float]:
    """The range of the middle 95% of the values that are defined."""
    defined = np.array([value for value in values if not math.isnan(value)])
    if not len(defined):
        return math.nan, math.nan
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)
