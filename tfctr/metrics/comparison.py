"""Tests whether one model is better than another, over users, days and training seeds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfctr.metrics.bootstrap import Prepared, draw, middle, prepare, sizes, stacked
from tfctr.metrics.ranking import number_users

WEEK = 7
RESAMPLES = 1_000


class Difference(NamedTuple):
    """The difference of a metric, first model minus second.

    Attributes:
        mean: over the seeds, on the rows as they are.
        low, high: ends of the 95% percentile interval.
        p: two-sided p-value of no difference.
    """

    mean: float
    low: float
    high: float
    p: float


def paired_difference(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    users: np.ndarray | None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Compares two models on the same rows by a bootstrap over users and over training seeds.

    A resample draws users with all their rows (the cluster bootstrap; Field and Welsh, 2007), the
    same for both models, so that the difficulty of a user cancels. It also draws seeds, separately
    for each model: equal seeds give different weights in the two models, so they are no pairs. Of
    `S` seeds it draws `S - 1`: the mean of `S` draws would vary too little, by `(S - 1) / S` in
    variance, which matters for few seeds (Rao and Wu, 1988). With one seed, the interval is for
    these weights only.

    `p` is twice the share of resamples on the smaller side of 0, with those at 0 on both sides, and
    at least `2 / (resamples + 1)` (Davison and Hinkley, 1997, section 4.2).

    Args:
        labels: `[N]` of 0 and 1.
        first: logits `[S, N]`, finite, one row per training seed of the first model.
        second: logits `[T, N]` of the second model on the same rows.
        users: `[N]` of keys as for `gauc`; None for independent rows, without GAUC.
        resamples: int, at least 1.
        seed: int, of the bootstrap.

    Returns:
        A `Difference`, first minus second, by "auc", "log_loss" and, with users, "gauc". A greater
        AUC or GAUC is better, and a smaller log loss. NaN where a metric is undefined.

    Raises:
        ValueError: as for `bootstrap_interval`; logits that are not `[S, N]`, or without a seed.

    Examples:
        >>> labels, users = np.array([1, 0, 1, 0]), np.array([1, 1, 2, 2])
        >>> better, worse = np.array([[2.0, 1.0, 2.0, 1.0]]), np.array([[2.0, 1.0, 1.0, 2.0]])
        >>> paired_difference(labels, better, worse, users)["gauc"].mean
        0.5
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, found {resamples}")
    for name, logits in (("first", first), ("second", second)):
        if np.ndim(logits) != 2 or not len(logits):
            raise ValueError(f"{name} must be [seeds, rows], found shape {np.shape(logits)}")
    if users is not None:
        users = number_users(users, len(labels))  # once: ints are the fastest
    generator = np.random.default_rng(seed)
    models = [[prepare(labels, row, users) for row in logits] for logits in (first, second)]
    rows = models[0][0].rows

    drawn = []
    for size in sizes(resamples, len(rows)):
        counts, times = [], []
        for _ in range(size):
            counts.append(draw(generator, len(rows)))
            times.append([draw(generator, len(m), max(len(m) - 1, 1)) for m in models])
        of_users = stacked(counts)
        of_seeds = (np.array(of_model) for of_model in zip(*times, strict=True))
        found = (_resampled(m, n, of_users) for m, n in zip(models, of_seeds, strict=True))
        drawn.append(_over(*found))
    measured = [[one.measure() for one in model] for model in models]
    mean = _over(*({n: np.mean([of[n] for of in model]) for n in model[0]} for model in measured))
    return {
        name: _difference(float(mean[name]), np.concatenate([found[name] for found in drawn]))
        for name in mean
    }


def _resampled(
    model: Sequence[Prepared], times: np.ndarray, counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Means over drawn seeds, `[R]`: resamples hold each seed `times` times, `[R, S]`, and each
    user `counts` times, `[U, R]`."""
    means: dict[str, np.ndarray] = {}
    for one, drawn in zip(model, times.T, strict=True):
        held = drawn > 0
        for name, values in one.resampled(counts[:, held]).items():
            of_all = means.setdefault(name, np.zeros(len(times)))
            of_all[held] += drawn[held] / times[held].sum(axis=1) * values
    return means


def _over(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    return {name: first[name] - second[name] for name in first}


def _difference(mean: float, drawn: np.ndarray) -> Difference:
    drawn = drawn[~np.isnan(drawn)]
    side = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p = min(1.0, 2 * (side + 1) / (len(drawn) + 1)) if len(drawn) else math.nan
    return Difference(float(mean), *middle(drawn), p)


class DailyDifference(NamedTuple):
    """The difference of a daily measure between two rollouts.

    Attributes:
        mean: over days and seeds.
        days: ends of the 95% interval over days, for these seeds.
        seeds: ends of the 95% interval over seeds, for these days; NaN with one seed.
    """

    mean: float
    days: tuple[float, float]
    seeds: tuple[float, float]


def daily_difference(
    differences: np.ndarray, block: int = WEEK, resamples: int = RESAMPLES, seed: int = 0
) -> DailyDifference:
    """Intervals of a series of daily differences, over days and over seeds.

    Days: blocks of consecutive days are resampled from the mean of the seeds, the last day followed
    by the first (the circular block bootstrap; Politis and Romano, 1992). Days are not independent:
    a model that is trained further every day keeps a good or a bad start. A block is a week, so
    that each holds every day of the week once and a series of some weeks has several blocks; at
    most half the series. It draws one block fewer than fill the series, because blocks vary about
    the mean of the observed days: otherwise the intervals of four weeks of independent days would
    be too narrow by an eighth.

    Seeds: Student's t of the seeds' means. A few seeds are too few to resample.

    Args:
        differences: float `[S, D]`, one row per seed and one column per day, NaN where undefined.
            A day that is undefined for all seeds is left out.
        block: int, at least 1. Days.
        resamples: int, at least 1.
        seed: int, of the bootstrap.

    Raises:
        ValueError: `differences` are not `[S, D]`; no block, no resamples.

    Examples:
        >>> daily_difference(np.full((2, 28), 0.5)).days
        (0.5, 0.5)
    """
    if np.ndim(differences) != 2 or not np.size(differences):
        raise ValueError(f"differences must be [seeds, days], found {np.shape(differences)}")
    if block < 1 or resamples < 1:
        raise ValueError(f"block and resamples must be at least 1, found {block} and {resamples}")
    differences = np.asarray(differences, np.float64)
    differences = differences[:, ~np.isnan(differences).all(axis=0)]
    days = differences.shape[1]
    if not days:
        return DailyDifference(math.nan, (math.nan, math.nan), (math.nan, math.nan))
    series = np.nanmean(differences, axis=0)
    block = max(min(block, days // 2), 1)
    blocks = max(round(days / block) - 1, 1)
    starts = np.random.default_rng(seed).integers(days, size=(resamples, blocks, 1))
    drawn = series[(starts + np.arange(block)) % days].mean(axis=(1, 2))
    means = [float(np.nanmean(of_seed)) for of_seed in differences if not np.isnan(of_seed).all()]
    return DailyDifference(float(series.mean()), middle(drawn), t_interval(means))


def t_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The 95% interval of a mean by Student's t; NaN for fewer than two values.

    Args:
        values: `[S]`, independent, e.g. one per seed.

    Examples:
        >>> low, high = t_interval([1.0, 3.0])  # 2 -+ 12.706
    """
    from scipy.stats import t  # imported here, because training and serving do not need it

    count = len(values)
    if count < 2:
        return math.nan, math.nan
    half = t.ppf(0.975, count - 1) * np.std(values, ddof=1) / math.sqrt(count)
    return float(np.mean(values) - half), float(np.mean(values) + half)
