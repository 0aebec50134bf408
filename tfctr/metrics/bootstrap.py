"""Bootstrap intervals: the variation of a metric over the sample of users."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tfctr.metrics.calibration import row_log_losses
from tfctr.metrics.ranking import (
    Ranking,
    check_rows,
    mean_auc,
    number_users,
    rank_positives,
    user_aucs,
)

AT_ONCE = 20  # resamples
COUNTS_AT_ONCE = 1 << 28  # bytes


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
    GAUC and log loss. Some resamples at a time go through the rows.

    Args:
        labels: `[N]` of 0 and 1.
        logits: `[N]`, finite.
        users: `[N]` of keys as for `gauc`; None for independent rows, without GAUC.
        resamples: int, at least 1.
        seed: int. The same seed and rows give the same intervals.

    Returns:
        `{"auc": (low, high), "gauc": ..., "log_loss": ...}`, "gauc" only with users. Resamples in
        which a metric is undefined are left out of its interval; without any other, `(nan, nan)`.

    Raises:
        ValueError: as for `log_loss` and `gauc`; no resamples.

    Examples:
        >>> bootstrap_interval(np.array([1, 0]), np.array([2.0, 1.0]))["auc"]
        (1.0, 1.0)
    """
    return prepare(labels, logits, users).intervals(resamples, seed)


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

    def measure(self) -> dict[str, float]:
        """The metrics of the rows as they are."""
        found = {"auc": self.ranking.auc()}
        if self.aucs is not None and self.weights is not None:
            found["gauc"] = mean_auc(self.aucs, self.weights)
        return found | {"log_loss": float(self.losses.sum() / self.rows.sum())}

    def resampled(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics, float64 `[R]`, of resamples that hold each user `counts` times, int
        `[U, R]`."""
        found = {"auc": self.ranking.resampled_aucs(self.user, counts)}
        if self.aucs is not None and self.weights is not None:
            sums = _sums(counts, self.weights * self.aucs)
            with np.errstate(invalid="ignore"):
                found["gauc"] = sums / _sums(counts, self.weights)
        return found | {"log_loss": _sums(counts, self.losses) / _sums(counts, self.rows)}

    def intervals(self, resamples: int, seed: int) -> dict[str, tuple[float, float]]:
        """As `bootstrap_interval` returns them.

        Raises:
            ValueError: no resamples.
        """
        if resamples < 1:
            raise ValueError(f"resamples must be at least 1, found {resamples}")
        generator = np.random.default_rng(seed)
        users = len(self.rows)
        drawn = [
            self.resampled(stacked([draw(generator, users) for _ in range(size)]))
            for size in sizes(resamples, users)
        ]
        return {name: middle(np.concatenate([found[name] for found in drawn])) for name in drawn[0]}


def prepare(labels: np.ndarray, logits: np.ndarray, users: np.ndarray | None) -> Prepared:
    """Arranges predictions; arguments and errors as for `bootstrap_interval`.

    Without users, each row is its own user.
    """
    positive, scores = check_rows(labels, logits, "logits")
    losses = row_log_losses(labels, logits)
    ascending = np.argsort(scores)
    if users is None:
        ranking, ones = rank_positives(positive, scores, ascending), np.ones(len(scores), np.int64)
        return Prepared(ranking, ranking.order, ones, losses, None, None)
    user = number_users(users, len(scores))
    losses = np.bincount(user, weights=losses)
    aucs, weights = user_aucs(positive, scores, ascending, user)
    ranking = rank_positives(positive, scores, ascending)
    return Prepared(ranking, user[ranking.order], np.bincount(user), losses, aucs, weights)


def _sums(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Of values `[U]`, weighted by each of `counts`, `[U, R]`: float64 `[R]`."""
    return np.array([float(of_one @ values) for of_one in counts.T])


def draw(generator: np.random.Generator, size: int, draws: int | None = None) -> np.ndarray:
    """The counts of `size` things in `draws` draws with replacement, by default `size`: int
    `[size]`."""
    return np.bincount(generator.integers(size, size=draws or size), minlength=size)


def sizes(resamples: int, users: int) -> Iterator[int]:
    """The numbers of resamples that are measured together, whose sum is `resamples`."""
    at_once = max(min(AT_ONCE, COUNTS_AT_ONCE // users), 1)
    for start in range(0, resamples, at_once):
        yield min(at_once, resamples - start)


def stacked(draws: Sequence[np.ndarray]) -> np.ndarray:
    """Counts `[U]` of resamples as `[U, R]`, in the smallest type that holds them."""
    largest = max(int(counts.max()) for counts in draws)
    return np.stack(draws, axis=1, dtype=np.min_scalar_type(largest), casting="unsafe")


def middle(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The range of the middle 95% of the defined values."""
    found = np.asarray(values, np.float64)
    found = found[~np.isnan(found)]
    if not len(found):
        return math.nan, math.nan
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
