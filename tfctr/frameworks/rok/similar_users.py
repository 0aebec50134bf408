"""What the users most similar to a user did with a candidate, strictly earlier.

This is a search among all earlier rows of the candidate, which a batch job can make for each row
and a request cannot. Two users are as similar as the cosine of their tastes, the factors that a
factor model expects of their earlier events.
"""

import numpy as np

from tfctr.data.histories import earlier_events
from tfctr.schema import FIRST_TOKEN_ID

NUMBERS = 8
FEW = 5  # of the most similar users, for a mean of their own
MEAN_PRIOR = 5.0  # rows, half of them clicks, that the mean of an item is shrunk by
PRIOR = 0.5  # added to the similarities that a mean is divided by: it shrinks to 0
BLOCK = 256  # rows searched at a time


def of_similar_users(
    items: np.ndarray,
    times: np.ndarray,
    clicks: np.ndarray,
    usual: np.ndarray,
    tastes: np.ndarray,
    population: np.ndarray,
    users: int,
    latest: int,
) -> np.ndarray:
    """The numbers of each row, float32 `[N, NUMBERS]`.

    Of a row, the latest earlier rows of its item are searched for the users most similar to its
    own; only positive similarities `s` count. `m` is the mean click of all rows that are searched,
    and `d` a click less `m`. The numbers are: `m`; the logarithm of the number of rows searched;
    the mean of `d` weighted by `s`, by `s²`, and by `s` of the most similar users alone; the mean
    of `usual` weighted by `s`; `Σ s`; and the greatest `s`.

    Args:
        items, times: int `[N]`, rows by item, then by time. Rows of an unknown item find nothing.
        clicks: float `[N]`, 0 or 1.
        usual: float `[N, P]`. What the row's user deviates by as a rule, in each population's
            tables.
        tastes: float `[N, P, f]`. The factors of the row's user before the row, in the same.
        population: int `[N]`. The tables that a row reads; all similarities of a row are in them.
        users: int. Most similar ones that count.
        latest: int. Rows of an item that are searched.
    """
    found = np.zeros((len(items), NUMBERS), np.float32)
    is_known = items >= FIRST_TOKEN_ID
    start, end = earlier_events(items, times, is_known, latest)
    known = np.flatnonzero(is_known)
    length = np.sqrt((tastes**2).sum(axis=2, keepdims=True))
    unit = tastes / np.maximum(length, 1e-12)
    for first in range(0, len(items), BLOCK):
        for number in np.unique(population[first : first + BLOCK]):
            rows = first + np.flatnonzero(population[first : first + BLOCK] == number)
            # Rows are by item and time, so neighbouring ones search nearly the same rows.
            places = np.arange(start[rows].min(), end[rows].max())
            is_earlier = (places >= start[rows][:, None]) & (places < end[rows][:, None])
            searched = known[places]
            similarity = unit[rows, number] @ unit[searched, number].T
            found[rows] = _numbers(
                np.where(is_earlier, similarity, 0),
                is_earlier,
                clicks[searched],
                usual[searched, number],
                users,
            )
    return found


def _numbers(
    similarity: np.ndarray,
    is_earlier: np.ndarray,
    clicks: np.ndarray,
    usual: np.ndarray,
    users: int,
) -> np.ndarray:
    """The numbers `[R, NUMBERS]` of rows that search `S` others: `[R, S]`, `[R, S]`, `[S]`,
    `[S]`."""
    number = is_earlier.sum(axis=1)
    mean = (is_earlier @ clicks + 0.5 * MEAN_PRIOR) / (number + MEAN_PRIOR)
    # The most similar first; of equal ones the latest, which is the last.
    best = np.argsort(-similarity[:, ::-1], axis=1, kind="stable")[:, :users]
    best = len(clicks) - 1 - best
    s = np.maximum(np.take_along_axis(similarity, best, axis=1), 0)
    d = clicks[best] - mean[:, None]

    def weighted(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        found: np.ndarray = (weights * values).sum(axis=1) / (weights.sum(axis=1) + PRIOR)
        return found

    return np.stack(
        [
            mean,
            np.log1p(number),
            weighted(d, s),
            weighted(d, s**2),
            weighted(d[:, :FEW], s[:, :FEW]),
            weighted(usual[best], s),
            s.sum(axis=1),
            s.max(axis=1, initial=0),
        ],
        axis=1,
    )
