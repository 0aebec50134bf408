"""Metrics of the order of scores: AUC, and AUC within each user."""

import math
from typing import NamedTuple

import numpy as np

BLOCK = 2048  # rows
ROWS_AT_ONCE = 1 << 20


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
    return rank_positives(positive, scores, np.argsort(scores)).auc()


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
    positive, scores = check_rows(labels, scores, "scores")
    user = number_users(users, len(scores))
    return mean_auc(*user_aucs(positive, scores, np.argsort(scores), user))


def mean_auc(aucs: np.ndarray, weights: np.ndarray) -> float:
    """GAUC from what `user_aucs` returns."""
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

    def auc(self) -> float:
        """Of the rows as they are; NaN when one class is absent."""
        pairs = (len(self.order) - len(self.below)) * len(self.below)
        return float((self.below.sum() + self.through.sum()) / (2 * pairs)) if pairs else math.nan

    def resampled_aucs(self, user: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """AUC of resamples of users, ties counted half; exact.

        A block of rows at a time, for all resamples, so that its counts stay in the processor's
        cache.

        Args:
            user: int `[N]`. The rows' users, in `order`.
            counts: int `[U, R]`, how often each resample holds each user.

        Returns:
            float64 `[R]`, NaN where the rows of one class are in no user of the resample.
        """
        negatives, positives = np.split(user, [len(user) - len(self.below)])
        resamples = counts.shape[1]
        wins, clicks = np.zeros(resamples), np.zeros(resamples)
        under = np.zeros((1, resamples), np.int64)  # the negatives of earlier blocks
        for start in range(0, len(negatives) + 1, BLOCK):
            block = counts[negatives[start : start + BLOCK]]
            under = under[-1:] + np.pad(np.cumsum(block, axis=0, dtype=np.int64), [(1, 0), (0, 0)])
            for places in (self.below, self.through):
                first, last = np.searchsorted(places, [start, start + BLOCK])
                for at in range(first, last, BLOCK):
                    rows = slice(at, min(at + BLOCK, last))
                    held = counts[positives[rows]]
                    wins += np.einsum("pr,pr->r", held, under[places[rows] - start], dtype=float)
                    clicks += held.sum(axis=0) / 2  # each is in `below` and in `through`
        with np.errstate(invalid="ignore"):
            found: np.ndarray = wins / (2 * under[-1] * clicks)
        return found


def rank_positives(positive: np.ndarray, scores: np.ndarray, ascending: np.ndarray) -> Ranking:
    """Arranges rows: `positive` bool `[N]`, `scores` float `[N]`, and `ascending`, what sorts
    them."""
    is_positive = positive[ascending]
    order = np.concatenate([ascending[~is_positive], ascending[is_positive]])
    of_negatives, of_positives = np.split(scores[order], [len(order) - is_positive.sum()])
    return Ranking(
        order=order,
        below=np.searchsorted(of_negatives, of_positives, side="left"),
        through=np.searchsorted(of_negatives, of_positives, side="right"),
    )


def user_aucs(
    positive: np.ndarray, scores: np.ndarray, ascending: np.ndarray, user: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUC of each user, with its weight in GAUC.

    Args:
        positive: bool `[N]`.
        scores: float `[N]`.
        ascending: int `[N]`, what sorts the scores.
        user: of `number_users`.

    Returns:
        `aucs`, float64 `[U]`, and `weights`, int `[U]`: the user's impressions. Both are 0 for a
        user without both classes.
    """
    order = ascending[np.argsort(user[ascending], kind="stable")]
    ends = np.cumsum(np.bincount(user))  # of each user's rows
    parts, first = [], 0
    while first < len(ends):  # some users at a time, so that memory is that of the order
        start = ends[first - 1] if first else 0
        last = max(np.searchsorted(ends, start + ROWS_AT_ONCE, side="right"), first + 1)
        rows = order[start : ends[last - 1]]
        parts.append(_ordered_user_aucs(positive[rows], scores[rows], user[rows] - first))
        first = int(last)
    aucs, weights = (np.concatenate(found) for found in zip(*parts, strict=True))
    return aucs, weights


def _ordered_user_aucs(
    positive: np.ndarray, scores: np.ndarray, user: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`user_aucs` of rows by ascending user and, within the user, score."""
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
    if users.dtype.kind in "iu":
        return _number_ints(users)
    try:
        return np.unique(users, return_inverse=True)[1]
    except TypeError as error:
        found = sorted({type(user).__name__ for user in users})
        raise ValueError(f"users must be keys of one type, found {', '.join(found)}") from error


def _number_ints(keys: np.ndarray) -> np.ndarray:
    """int32 `[N]`, by hashing: a quarter of the time and memory that sorting takes."""
    import pyarrow as pa  # imported here, because training and serving do not need it

    found = pa.array(keys).dictionary_encode()
    order = np.argsort(found.dictionary.to_numpy())
    numbers = np.empty(len(order), np.int32)
    numbers[order] = np.arange(len(order), dtype=np.int32)
    numbered: np.ndarray = numbers[found.indices.to_numpy()]
    return numbered


def check_rows(labels: np.ndarray, values: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Checks labels and their predictions.

    Args:
        labels: `[N]` of 0 and 1.
        values: `[N]` of numbers without NaN.
        name: of `values`, for errors.

    Returns:
        `labels` as bool `[N]` and `values` as floats `[N]`, float64 unless they are floats.

    Raises:
        ValueError: names what was found, and the row.
    """
    labels, values = np.asarray(labels), np.asarray(values)
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
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
