"""Metrics of predicted probabilities: log loss, NE, ECE, predicted over observed clicks."""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from tfctr.metrics.ranking import check_rows


def log_loss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean binary cross-entropy in nats, from logits.

    `mean(log(1 + exp(-z)))` with `z = logit` for a click and `-logit` otherwise; in float64 and
    without forming the probability, so any finite logit gives a finite loss.

    Args:
        labels: `[N]` of 0 and 1.
        logits: `[N]`, finite.

    Raises:
        ValueError: wrong shapes, no rows, a label that is not 0 or 1, a logit that is not finite.
    """
    return float(row_log_losses(labels, logits).mean())


def row_log_losses(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """`log_loss` before the mean: float64 `[N]`."""
    positive, logits = check_rows(labels, logits, "logits")
    if np.isinf(logits).any():
        row = int(np.isinf(logits).argmax())
        raise ValueError(f"logits must be finite, found {logits[row]} in row {row}")
    losses = np.where(positive, -logits, logits).astype(np.float64, copy=False)
    return np.logaddexp(0, losses, out=losses)


def normalized_entropy(labels: np.ndarray, logits: np.ndarray) -> float:
    """Log loss over the entropy of the base rate (He et al., 2014, ADKDD).

    The base rate is the mean of `labels` themselves; always predicting it gives 1, lower is better.
    Arguments and errors as for `log_loss`. NaN when one class is absent, as the entropy is then 0.
    """
    loss = log_loss(labels, logits)
    rate = float(np.mean(labels, dtype=np.float64))
    if rate in (0.0, 1.0):
        return math.nan
    return loss / -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))


def expected_calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = 20
) -> float:
    """`sum_b (n_b / N) |mean predicted_b - mean observed_b|` (Naeini et al., 2015, AAAI).

    Bins hold equally many rows in order of prediction (Nixon et al., 2019, arXiv:1904.01685):
    click probabilities are mostly near 0, so one bin of equal width would hold most rows. Equal
    predictions belong to one bin, that of the first of them, so the result does not depend on the
    order of rows; a large tie makes its bin larger and may leave following bins empty.

    Args:
        labels: `[N]` of 0 and 1.
        probabilities: `[N]` in [0, 1].
        bins: int, at least 1.

    Returns:
        float in [0, 1]. A perfect model has about `0.8 sqrt(p (1 - p) bins / N)` for a base rate
        `p`, not 0, because of noise: compare models on the same rows.

    Raises:
        ValueError: as for `log_loss`; a probability outside [0, 1]; no bins.
    """
    found = calibration_bins(labels, probabilities, bins)
    return float(found.rows @ np.abs(found.predicted - found.observed) / found.rows.sum())


class CalibrationBins(NamedTuple):
    """Bins of rows in order of prediction, without empty ones.

    Attributes:
        rows: int `[B]`.
        predicted: float64 `[B]`, the mean probability.
        observed: float64 `[B]`, the share of clicks.
    """

    rows: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray


def calibration_bins(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = 20
) -> CalibrationBins:
    """The bins of `expected_calibration_error`; arguments and errors are the same.

    Example:
        >>> calibration_bins(np.array([0, 1]), np.array([0.25, 0.5]), bins=2).observed
        array([0., 1.])
    """
    positive, probabilities = _check_probabilities(labels, probabilities)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, found {bins}")
    order = np.argsort(probabilities)
    ascending, clicked = probabilities[order], positive[order]
    # Without ties, bin `b` starts at the first row that is not before `b / bins` of them.
    starts = -(-np.arange(bins) * len(order) // bins)
    starts = starts[starts < len(order)]
    equal = ascending[starts]
    is_first = starts == np.searchsorted(ascending, equal, side="left")
    starts = np.where(is_first, starts, np.searchsorted(ascending, equal, side="right"))
    edges = np.unique([*starts, len(order)])
    rows = np.diff(edges)
    predicted, observed = (
        np.array([values[start:end].mean(dtype=np.float64) for start, end in pairwise(edges)])
        for values in (ascending, clicked)
    )
    return CalibrationBins(rows, predicted, observed)


def calibration_ratio(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Predicted over observed clicks, `sum(probabilities) / sum(labels)` (He et al., 2014, ADKDD).

    Above 1 the model predicts too many clicks. NaN when there is no click.
    Arguments and errors as for `expected_calibration_error`.
    """
    positive, probabilities = _check_probabilities(labels, probabilities)
    predicted = probabilities.sum(dtype=np.float64)
    return float(predicted / positive.sum()) if positive.any() else math.nan


def _check_probabilities(
    labels: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    positive, probabilities = check_rows(labels, probabilities, "probabilities")
    outside = (probabilities < 0) | (probabilities > 1)
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(
            f"probabilities must be in [0, 1], found {probabilities[row]} in row {row}"
            " (are these logits?)"
        )
    return positive, probabilities
