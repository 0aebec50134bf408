"""Metrics of the order of scores: AUC, and AUC within each user."""

import math
from typing import NamedTuple

import numpy as np


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Exact area under the ROC curve, `O(N log N)`.

    The share of (clicked, not clicked) pairs of rows in which the clicked one has the higher score;
    a tie counts half (Hanley and McNeil, 1982).

    Args:
        labels: `[N]` of 0 and 1, any numeric or bool dtype.
        scores: `[N]`, logits or probabilities; infinities are allowed.

    Returns:
        float in [0, 1], or NaN when one class is absent.

    Raises:
        ValueError: wrong shapes, no rows, a label that is not 0 or 1, a NaN score.
    """
    positive, scores = check_rows(labels, scores, "scores")
    ranking = rank_positives(positive, scores)
    return ranked_auc(ranking, np.ones(len(scores), dtype=np.int64))


def gauc(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> float:
    """Group AUC, `sum_u w_u AUC_u / sum_u w_u` (Zhu et al., 2017, arXiv:1703.02091).

    The sum is over users with both classes and `w_u` is the number of impressions (rows) of `u`.

    Args:
        labels: `[N]` of 0 and 1.
        scores: `[N]`, logits or probabilities.
        users: `[N]` of keys: ints, bytes or strings. Ints are the fastest.

    Returns:
        float in [0, 1], or NaN when no user has both classes.

    Raises:
        ValueError: as for `auc`; users of another shape, of floats, or of mixed types.
    """
    aucs, weights = user_aucs(labels, scores, users)
    return float(np.average(aucs, weights=weights)) if weights.any() else math.nan


class Ranking(NamedTuple):
    """Rows arranged once, so that AUC under any row weights is one cumulative sum.

    Attributes:
        order: int `[N]`. Row numbers: the negatives by ascending score, then the positives.
        below: int `[P]`. For each positive, in `order`, the number of negatives that score lower.
        through: int `[P]`. The same, for lower or equal scores.
    """

    order: np.ndarray
    below: np.ndarray
    through: np.ndarray


def rank_positives(positive: np.ndarray, scores: np.ndarray) -> Ranking:
    """Arranges rows (`positive` bool `[N]`, `scores` float64 `[N]`) for `ranked_auc`."""
    ascending = np.argsort(scores)
    negatives = ascending[~positive[ascending]]
    positives = ascending[positive[ascending]]
    return Ranking(
        order=np.concatenate([negatives, positives]),
        below=np.searchsorted(scores[negatives], scores[positives], side="left"),
        through=np.searchsorted(scores[negatives], scores[positives], side="right"),
    )


def ranked_auc(ranking: Ranking, weights: np.ndarray) -> float:
    """AUC with weighted rows, ties counted half.

    Args:
        ranking: from `rank_positives`.
        weights: `[N]`, int or float, not negative, in the order of `ranking.order`.

    Returns:
        float, or NaN when the rows of one class have no weight.
    """
    split = len(weights) - len(ranking.below)
    under = np.concatenate([[0], np.cumsum(weights[:split])])
    pairs = under[-1] * weights[split:].sum()
    if pairs == 0:
        return math.nan
    wins = weights[split:] @ (under[ranking.below] + under[ranking.through])
    return float(wins / (2 * pairs))


def user_aucs(
    labels: np.ndarray, scores: np.ndarray, users: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUC of each user, with its weight in GAUC; arguments and errors as for `gauc`.

    Returns:
        `aucs`, float64 `[U]`, and `weights`, int `[U]`: the user's impressions. Both are 0 for a
        user without both classes. The order is that of `number_users`.
    """
    positive, scores = check_rows(labels, scores, "scores")
    user = number_users(users, len(scores))
    order = np.lexsort((scores, user))
    positive, scores, user = positive[order], scores[order], user[order]

    # A rank is 1-based within the user; tied rows share the mean of their ranks.
    new_user = np.concatenate([[True], user[1:] != user[:-1]])
    new_score = new_user | np.concatenate([[True], scores[1:] != scores[:-1]])
    tie_ends = np.append(np.flatnonzero(new_score), len(scores))
    mean_position = np.repeat((tie_ends[:-1] + tie_ends[1:] - 1) / 2, np.diff(tie_ends))
    impressions = np.bincount(user)
    ranks = mean_position - np.repeat(np.flatnonzero(new_user), impressions) + 1

    # Mann-Whitney: the positives' ranks minus their sum if no negative were below.
    clicks = np.bincount(user, weights=positive)
    wins = np.bincount(user, weights=ranks * positive) - clicks * (clicks + 1) / 2
    pairs = clicks * (impressions - clicks)
    return wins / np.maximum(pairs, 1), np.where(pairs > 0, impressions, 0)


def number_users(users: np.ndarray, rows: int) -> np.ndarray:
    """Numbers the distinct keys of `users`, `[rows]`, from 0 in sorted order: int `[rows]`."""
    users = np.asarray(users)
    if users.shape != (rows,):
        raise ValueError(f"users have shape {users.shape}, the rows are {rows}: give one key a row")
    if users.dtype.kind not in "iuSUO":
        raise ValueError(f"users must be ints, bytes or strings, found {users.dtype}")
    try:
        return np.unique(users, return_inverse=True)[1]
    except TypeError as error:
        found = sorted({type(user).__name__ for user in users})
        raise ValueError(f"users must be keys of one type, found {', '.join(found)}") from error


def check_rows(labels: np.ndarray, values: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Checks labels and their predictions.

    Args:
        labels: `[N]` of 0 and 1.
        values: `[N]` of numbers without NaN.
        name: of `values`, for errors.

    Returns:
        `labels` as bool `[N]` and `values` as float64 `[N]`.

    Raises:
        ValueError: names what was found, and the row.
    """
    labels, values = np.asarray(labels), np.asarray(values, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != values.shape:
        raise ValueError(
            f"labels and {name} must both be [N], found {labels.shape} and {values.shape}"
        )
    if not len(labels):
        raise ValueError(f"labels and {name} are empty: a metric needs at least one row")
    positive = labels == 1
    wrong = ~positive & (labels != 0)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"labels must be 0 or 1, found {labels[row]!r} in row {row}")
    if np.isnan(values).any():
        row = int(np.isnan(values).argmax())
        raise ValueError(f"{name} must be numbers, found NaN in row {row}")
    return positive, values
