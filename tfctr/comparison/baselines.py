"""What a model must beat: the base rate, item popularity, and logistic regression.

They are made of NumPy and SciPy, in seconds.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfctr.schema import LARGEST_SCALED, PAD_ID, History, Numeric, Schema

PRIOR_ROWS = 10.0  # with the base rate, added to those of each item
L2 = 1.0  # of the sum of all rows' losses, as in scikit-learn's default
ITERATIONS = 60


def base_rate(clicks: np.ndarray) -> float:
    """The logit of the share of clicks among rows `[N]` of 0 and 1."""
    share = (clicks.sum() + 0.5) / (len(clicks) + 1)  # finite without clicks too
    return float(np.log(share / (1 - share)))


def popularity(items: np.ndarray, clicks: np.ndarray, num_items: int) -> np.ndarray:
    """The logit of each item's click rate, float64 `[num_items]`; that of few rows is close to the
    base rate.

    Args:
        items: ids `[N]`.
        clicks: `[N]` of 0 and 1.
        num_items: int.
    """
    logit = base_rate(clicks)
    prior = 1 / (1 + np.exp(-logit))
    rows = np.bincount(items, minlength=num_items)
    clicked = np.bincount(items, weights=clicks, minlength=num_items)
    rates = (clicked + PRIOR_ROWS * prior) / (rows + PRIOR_ROWS)
    found: np.ndarray = np.log(rates / (1 - rates))
    return found


def read_by_regression(schema: Schema) -> list[str]:
    """The features that `design` reads: all inputs but histories."""
    return [feature.name for feature in schema.inputs if not isinstance(feature, History)]


def design(schema: Schema, columns: Mapping[str, np.ndarray]) -> Any:
    """The design matrix of a regression, a sparse `[N, weights]`.

    An id, or a bucket of a number, has a weight; values of a list share one row's weight of 1. A
    number that is not bucketized has a weight, and another one for rows where it is missing.

    Args:
        schema: fitted.
        columns: `Dataset.columns` of `read_by_regression(schema)`.
    """
    from scipy import sparse

    parts = []
    for name in read_by_regression(schema):
        feature, values = schema[name], columns[name]
        rows = np.arange(len(values))
        ones = np.ones(len(values))
        if isinstance(feature, Numeric) and feature.transform != "bucketize":
            missing = np.isnan(values)
            parts.append(sparse.csr_array(np.where(missing, 0, _scaled(feature, values))[:, None]))
            parts.append(sparse.csr_array(missing.astype(np.float64)[:, None]))
            continue
        if isinstance(feature, Numeric):
            boundaries = np.asarray(feature.boundaries)
            ids = np.searchsorted(boundaries, values, side="right") + 1
            values = np.where(np.isnan(values), 0, ids)
        if feature.is_list:
            rows, places = np.nonzero(values != PAD_ID)
            values = values[rows, places]
            ones = 1 / np.bincount(rows, minlength=len(ones))[rows]
            shape = (len(columns[name]), feature.num_ids)
        else:
            shape = (len(values), feature.num_ids)
        parts.append(sparse.csr_array((ones, (rows, values)), shape=shape))
    return sparse.hstack(parts, format="csr")


def logistic_regression(features: Any, clicks: np.ndarray) -> np.ndarray:
    """The weights of a logistic regression with L2, the last one its bias.

    Args:
        features: of `design`, `[N, weights]`.
        clicks: `[N]` of 0 and 1.
    """
    from scipy.optimize import minimize

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = features @ weights[:-1] + weights[-1]
        error = 1 / (1 + np.exp(-logits)) - clicks
        total = np.sum(np.logaddexp(0, logits) - clicks * logits)
        total += L2 / 2 * np.sum(weights[:-1] ** 2)
        gradient = np.append(features.T @ error + L2 * weights[:-1], error.sum())
        return float(total), gradient

    start = np.zeros(features.shape[1] + 1)
    start[-1] = base_rate(clicks)
    found: np.ndarray = minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS}
    ).x
    return found


def _scaled(feature: Numeric, values: np.ndarray) -> np.ndarray:
    """As a model reads numbers."""
    values = values.astype(np.float64)
    if feature.transform == "log":
        values = np.copysign(np.log1p(np.abs(values)), values)
    center, scale = feature.center_and_scale
    limit = LARGEST_SCALED[feature.transform]
    return np.clip((values - center) / scale, -limit, limit)
