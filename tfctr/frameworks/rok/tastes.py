"""What a batch job needs of many users' events: deviations, and tastes by a factor model.

The numbers are those of `tfctr.frameworks.statistics.UserStatistics`, of which a request computes
one user's at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from tfctr.frameworks.statistics.user_statistics import DEVIATION_PRIOR, USUAL, WINDOWS
from tfctr.schema import FIRST_TOKEN_ID, PAD_ID


@dataclass(frozen=True)
class Events:
    """The events of `N` users, oldest first, as a population's tables have them.

    `known` bool `[N, L]`: events with a known item and grade; `lag` int `[N, L]`: later events;
    `deviation` float `[N, L]`: grade less the item's mean, 0 if not known; `usual` float `[N]`:
    the mean deviation of the latest 50 events; `tastes` float `[N, f]`: the expected factors.
    """

    known: np.ndarray
    lag: np.ndarray
    deviation: np.ndarray
    usual: np.ndarray
    tastes: np.ndarray


def read_events(
    items: np.ndarray, grades: np.ndarray, tables: Mapping[str, np.ndarray], population: int
) -> Events:
    """Reads users' events by the tables of a population.

    Args:
        items, grades: ids `[N, L]` of the same events, padded at the end.
        tables: arrays of `tables.npz`.
        population: int.
    """
    means, loadings = tables["means"][population], tables["loadings"][population]
    known = (items >= FIRST_TOKEN_ID) & (tables["is_grade"][grades] > 0)
    deviation = np.where(known, tables["grades"][grades] - means[items], 0)
    places = np.arange(1, items.shape[1] + 1)
    is_event = (items != PAD_ID) | (grades != PAD_ID)
    lag = np.maximum(np.where(is_event, places, 0).max(axis=1, keepdims=True) - places, 0)
    latest = known & (lag < WINDOWS[USUAL])
    usual = (deviation * latest).sum(axis=1) / (latest.sum(axis=1) + DEVIATION_PRIOR)
    tastes = _tastes(items, known, deviation, loadings, tables["noise"][population])
    return Events(known, lag, deviation, usual.astype(np.float32), tastes)


def _tastes(
    items: np.ndarray,
    known: np.ndarray,
    deviation: np.ndarray,
    loadings: np.ndarray,
    noise: float,
) -> np.ndarray:
    """`A⁻¹ Σ v d / s²` with `A = I + Σ v v' / s²`, sums over a user's events, float32 `[N, f]`."""
    starts = np.r_[0, np.cumsum(known.sum(axis=1))]
    shape = (len(items), len(loadings))

    def total(values: np.ndarray, of_items: np.ndarray) -> np.ndarray:
        found: np.ndarray = sparse.csr_array((values, items[known], starts), shape) @ of_items
        return found

    weight = known[known].astype(np.float32) / noise
    rows, columns = np.tril_indices(loadings.shape[1])
    lower = total(weight, loadings[:, rows] * loadings[:, columns])
    precision = np.empty((len(items), loadings.shape[1], loadings.shape[1]))
    precision[:, rows, columns] = precision[:, columns, rows] = lower
    precision += np.eye(loadings.shape[1])
    pull = total(weight * deviation[known], loadings)
    found: np.ndarray = np.linalg.solve(precision, pull[:, :, None])[:, :, 0]
    return found.astype(np.float32)
