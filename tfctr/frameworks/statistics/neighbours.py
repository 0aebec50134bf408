"""Similarities of items, from grades of the same users.

The similarity of `i` and `j` is the cosine of `x_ui` and `x_uj` over the users who graded both,
`Σ x_ui x_uj / (sqrt(Σ x_ui² Σ x_uj²) + 20)`. `x` is a grade less its item's mean, less the mean of
that over the user's events (shrunk by 5).
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from scipy import sparse

from tfctr.frameworks.statistics.factor_model import ROUNDED_TO, Sums

USER_EVENTS = 500  # latest of a user that count: pairs grow with their square
USER_PRIOR = 5.0  # events of deviation 0 that a user's mean is shrunk by
PRIOR = 20.0  # added to the length of both vectors
ROWS = 256  # items whose pairs are summed together


def pair_sums(
    users: np.ndarray, items: np.ndarray, deviations: np.ndarray, num_items: int
) -> Iterator[tuple[int, Sums]]:
    """Sums over users of each pair of different items that one user graded.

    Args:
        users: int `[N]`, ascending; a user's events are oldest first. Of an item that a user
            graded twice only the latest event counts.
        items: int `[N]`.
        deviations: float `[N]`, grades less the means of their items.
        num_items: int.

    Yields:
        By block of `ROWS` items `i`, the numbers `i * num_items + j` of pairs, and
        `Σ x_i x_j`, `Σ x_i²` and `Σ x_j²` of each.
    """
    kept = _latest(users, items.astype(np.int64) + num_items * users.astype(np.int64))
    users, items, deviations = users[kept], items[kept], deviations[kept]
    present, columns = np.unique(items, return_inverse=True)
    _, rows = np.unique(users, return_inverse=True)
    events = np.bincount(rows)
    means = np.bincount(rows, deviations) / (events + USER_PRIOR)
    shape = (len(events), len(present))

    def matrix(values: np.ndarray) -> sparse.csr_array:
        return sparse.csr_array((values, (rows, columns)), shape)

    x = deviations - means[rows]
    graded, squares, ones = matrix(x), matrix(x**2), matrix(np.ones(len(x)))
    products = [
        (left.T.tocsr(), right)
        for left, right in ((graded, graded), (squares, ones), (ones, squares))
    ]
    edges = np.searchsorted(present, np.arange(0, num_items + ROWS, ROWS))
    for block, (start, stop) in enumerate(pairwise(edges)):
        if start == stop:
            continue
        # All three have a value for each pair that occurs, also where it is 0.
        of_pairs = [left[start:stop] @ right for left, right in products]
        for part in of_pairs:
            part.sort_indices()
        i = np.repeat(np.arange(start, stop), np.diff(of_pairs[0].indptr))
        j = of_pairs[0].indices
        sums = np.stack([part.data for part in of_pairs], axis=1)[i != j]
        pairs = (present[i].astype(np.int64) * num_items + present[j])[i != j]
        if len(pairs):
            yield block, Sums(pairs, np.round(sums * ROUNDED_TO) / ROUNDED_TO)


def nearest(
    sums: Sums, num_items: int, neighbours: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The most similar items of some items, in either direction.

    Returns:
        The items `[n]`; their neighbours `[n, K]`, ids by falling absolute similarity, 0 behind the
        last; the similarities float `[n, K]`.
    """
    i, j = np.divmod(sums.items, num_items)
    both, own, other = sums.sums.T
    similarity = both / (np.sqrt(own * other) + PRIOR)
    kept = _among_greatest(i, np.abs(similarity), neighbours)  # few are left to be sorted
    i, j, similarity = i[kept], j[kept], similarity[kept]
    order = np.lexsort((j, -np.abs(similarity), i))
    i, j, similarity = i[order], j[order], similarity[order]
    items, first, rows = np.unique(i, return_index=True, return_inverse=True)
    places = np.arange(len(i)) - first[rows]
    kept = places < neighbours
    ids = np.zeros((len(items), neighbours), np.int32)
    values = np.zeros((len(items), neighbours), np.float32)
    ids[rows[kept], places[kept]] = j[kept]
    values[rows[kept], places[kept]] = similarity[kept]
    return items, ids, values


def _among_greatest(rows: np.ndarray, values: np.ndarray, number: int) -> np.ndarray:
    """Whether a value is not below the greatest `number` of its row, whose values are together."""
    kept = np.ones(len(values), bool)
    edges = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1], True]) if len(rows) else np.zeros(1)
    for start, stop in pairwise(edges.tolist()):
        if stop - start > number:
            of_row = values[start:stop]
            kept[start:stop] = of_row >= np.partition(of_row, -number)[-number]
    return kept


def _latest(users: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Places of each user's latest event of an item, of the latest `USER_EVENTS` events.

    `pairs` numbers users and items.
    """
    if not len(users):
        return np.zeros(0, np.int64)
    last = np.flatnonzero(np.r_[users[1:] != users[:-1], True])
    lag = last[np.searchsorted(last, np.arange(len(users)))] - np.arange(len(users))
    _, places = np.unique(pairs[::-1], return_index=True)
    found = np.zeros(len(users), bool)
    found[len(users) - 1 - places] = True
    return np.flatnonzero(found & (lag < USER_EVENTS))
