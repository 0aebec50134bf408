"""Bootstrap intervals: the variation of a metric over the sample of users."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfctr.metrics.calibration import row_log_losses
from tfctr.metrics.ranking import (
    Ranking,
    check_rows,
    number_users,
    rank_positives,
    ranked_auc,
    user_aucs,
)


def bootstrap_interval(
    labels: np.ndarray,
    logits: np.ndarray,
    users: np.ndarray | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """95% percentile interval of each metric (Efron and Tibshirani, 1993, chapter 13).

    Users are resampled, each with all its rows (the cluster bootstrap; Field and Welsh, 2007): rows
    of one user are not independent, so intervals of resampled rows are too narrow. All metrics use
    the same resamples. Without users, rows are resampled.

    Nothing is sorted again: a resample is a weight of each row for AUC, and of each user's sums for
    GAUC and log loss.

    Args:
        labels: `[N]` of 0 and 1.
        logits: `[N]`, finite.
        users: `[N]` of keys as for `gauc`; None for independent rows, without GAUC.
        resamples: int, at least 1.
        seed: int. The same seed and rows give the same intervals.

    Returns:
        `{"auc": (low, high), "log_loss": ..., "gauc": ...}`, "gauc" only with users. Resamples in
        which a metric is undefined are left out of its interval; without any other, `(nan, nan)`.

    Raises:
        ValueError: as for `log_loss` and `gauc`; no resamples.

    Examples:
        >>> bootstrap_interval(np.array([1, 0]), np.array([2.0, 1.0]))["auc"]
        (1.0, 1.0)
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, found {resamples}")
    generator = np.random.default_rng(seed)
    prepared = prepare(labels, logits, users)
    drawn = [prepared.measure(draw(generator, len(prepared.rows))) for _ in range(resamples)]
    return {name: middle([found[name] for found in drawn]) for name in drawn[0]}


class Prepared(NamedTuple):
    """A model's predictions, arranged so that a resample of users costs no sorting.

    Attributes:
        ranking: of the rows.
        user: int `[N]`. The rows' users, in the order of `ranking.order`.
        rows: int `[U]`. The number of each user's rows.
        losses: float64 `[U]`. The sum of each user's log losses.
        aucs: float64 `[U]`, of each user; None without GAUC.
        weights: int `[U]`, of each user's AUC; None without GAUC.
    """

    ranking: Ranking
    user: np.ndarray
    rows: np.ndarray
    losses: np.ndarray
    aucs: np.ndarray | None
    weights: np.ndarray | None

    def measure(self, counts: np.ndarray) -> dict[str, float]:
        """The metrics of a resample that holds each user `counts` times, int `[U]`."""
        found = {
            "auc": ranked_auc(self.ranking, counts[self.user]),
            "log_loss": float(counts @ self.losses / (counts @ self.rows)),
        }
        if self.aucs is not None and self.weights is not None:
            weights = counts * self.weights
            total = weights.sum()
            found["gauc"] = float(weights @ self.aucs / total) if total else math.nan
        return found


def prepare(labels: np.ndarray, logits: np.ndarray, users: np.ndarray | None) -> Prepared:
    """Arranges predictions; arguments and errors as for `bootstrap_interval`.

    Without users, each row is its own user.
    """
    positive, scores = check_rows(labels, logits, "logits")
    ranking = rank_positives(positive, scores)
    losses = row_log_losses(labels, logits)
    if users is None:
        ones = np.ones(len(scores), np.int64)
        return Prepared(ranking, ranking.order, ones, losses, None, None)
    user = number_users(users, len(scores))
    aucs, weights = user_aucs(labels, scores, user)
    losses = np.bincount(user, weights=losses)
    return Prepared(ranking, user[ranking.order], np.bincount(user), losses, aucs, weights)


def draw(generator: np.random.Generator, size: int, draws: int | None = None) -> np.ndarray:
    """The counts of `size` things in `draws` draws with replacement, by default `size`: int
    `[size]`."""
    return np.bincount(generator.integers(size, size=draws or size), minlength=size)


def middle(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The range of the middle 95% of the defined values."""
    found = np.asarray(values, np.float64)
    found = found[~np.isnan(found)]
    if not len(found):
        return math.nan, math.nan
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
