"""A factor model of users' grades of items, fitted by expectation maximisation.

A user's grade of item `i` is `mean_i + loadings_i . z + noise`, with `z ~ N(0, I)` of `f` numbers a
user (probabilistic factor analysis; Tipping & Bishop, 1999, with missing values). So what a user
says of some items tells what to expect of others, and how sure that is.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

MEAN_PRIOR = 5.0  # events that an item's mean is shrunk by, to the mean of all grades
LOADING_PRIOR = 30.0  # events that its loadings are shrunk by, to the mean loadings
KNOWN_ITEM = 20  # events from which on an item's loadings count for the mean
FIRST_LOADING, FIRST_DEVIATION = 0.4, 0.1  # before the first step
FIRST_NOISE = 0.85  # the same, as a share of the variance of all grades
# Multiples of 1 / 2^24 are added without error up to 2^29: sums are equal in any order.
ROUNDED_TO = 2.0**24


@dataclass(frozen=True)
class Factors:
    """The parameters of `I` items.

    `weights` float64 `[I, 1 + f]`: mean and loadings. `noise`: variance. `center` `[1 + f]`: that
    of an item that nobody has graded.
    """

    weights: np.ndarray
    noise: float
    center: np.ndarray


@dataclass(frozen=True)
class Sums:
    """What some events say of the items that occur in them.

    `items` int64 `[n]`, ascending; `sums` float64 `[n, width]`: of each item's events the lower
    triangle of `E[u u']` for `u = [1, z]`, then `grade * E[u]`, then `grade²`.
    """

    items: np.ndarray
    sums: np.ndarray


def initial(num_items: int, factors: int, mean: float, variance: float, seed: int = 0) -> Factors:
    """Where the first step starts: equal means, random loadings."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, FIRST_DEVIATION, (num_items, 1 + factors))
    weights[:, 0] = mean
    weights[:, 1] = FIRST_LOADING
    center = np.r_[mean, FIRST_LOADING, np.zeros(factors - 1)]
    return Factors(weights, FIRST_NOISE * variance, center)


def expected(users: np.ndarray, items: np.ndarray, grades: np.ndarray, model: Factors) -> Sums:
    """The expectation step, for all events of some users.

    Args:
        users: int `[N]`, ascending.
        items: int `[N]`, places in `model.weights`.
        grades: float `[N]`.
        model: of the step before.
    """
    present, places = np.unique(items, return_inverse=True)
    first = np.flatnonzero(np.r_[True, users[1:] != users[:-1]])
    weights = model.weights[present]
    means, loadings = weights[:, 0], weights[:, 1:]
    factors = loadings.shape[1]
    starts = np.r_[first, len(users)]

    def events(values: np.ndarray) -> sparse.csr_array:
        return sparse.csr_array((values, places, starts), (len(first), len(present)))

    lower = np.tril_indices(factors)
    of_pairs = loadings[:, lower[0]] * loadings[:, lower[1]] / model.noise
    precision = _symmetric(events(np.ones(len(users))) @ of_pairs, factors)
    precision[:, range(factors), range(factors)] += 1
    inverse = np.linalg.inv(precision)
    pull = events((grades - means[places]) / model.noise) @ loadings
    z = np.einsum("ufg,ug->uf", inverse, pull)
    unit = np.concatenate([np.ones((len(z), 1)), z], axis=1)
    second = unit[:, :, None] * unit[:, None]
    second[:, 1:, 1:] += inverse
    lower = np.tril_indices(1 + factors)
    seen = events(np.ones(len(users))).T @ second[:, lower[0], lower[1]]
    graded = events(grades).T @ unit
    squares = np.bincount(places, grades**2, len(present))
    sums = np.concatenate([seen, graded, squares[:, None]], axis=1)
    return Sums(present, np.round(sums * ROUNDED_TO) / ROUNDED_TO)


def maximised(sums: Sums, center: np.ndarray) -> tuple[np.ndarray, float]:
    """The maximisation step of some items.

    Returns:
        Their weights `[n, 1 + f]`, and the sum of the squared errors of their events.
    """
    width = len(center)
    pairs = width * (width + 1) // 2
    left = _symmetric(sums.sums[:, :pairs], width)
    right, squares = sums.sums[:, pairs:-1], sums.sums[:, -1]
    prior = np.r_[MEAN_PRIOR, np.full(width - 1, LOADING_PRIOR)]
    shrunk = left + np.diag(prior)
    weights = np.linalg.solve(shrunk, (right + prior * center)[:, :, None])[:, :, 0]
    errors = squares - 2 * (weights * right).sum(1)
    errors += np.einsum("if,ifg,ig->i", weights, left, weights)
    return weights, float(errors.sum())


def combined(
    num_items: int,
    items: np.ndarray,
    weights: np.ndarray,
    counts: np.ndarray,
    errors: float,
    mean: float,
) -> Factors:
    """The model of all items, from those that have events `[n]`.

    Args:
        num_items: int. `I`.
        items, weights, counts: places `[n]`, weights `[n, 1 + f]`, numbers of events `[n]`.
        errors: the sum of all squared errors.
        mean: of all grades.
    """
    known = counts > KNOWN_ITEM
    loadings = weights[known if known.any() else slice(None), 1:].mean(0)
    center = np.r_[mean, loadings]
    made = np.tile(center, (num_items, 1))
    made[items] = weights
    return Factors(made, max(errors / counts.sum(), 1e-6), center)


def _symmetric(lower: np.ndarray, width: int) -> np.ndarray:
    """`[n, width, width]` of the lower triangles `[n, width (width + 1) / 2]`."""
    rows, columns = np.tril_indices(width)
    full = np.empty((len(lower), width, width))
    full[:, rows, columns] = lower
    full[:, columns, rows] = lower
    return full
