"""Groups rows by user, so that one worker has all rows of a user."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from tfctr.data.fingerprint import mix

USER_BUCKETS = 256  # number of groups of users; one group is sorted at a time


def rows_by_bucket(
    users: np.ndarray, number: int = USER_BUCKETS
) -> Iterator[tuple[int, np.ndarray]]:
    """`(bucket, its rows, ascending)` for each bucket with rows; `users` are int64 keys."""
    buckets = (mix(users, 0) % np.uint64(number)).astype(np.int64)
    rows = np.argsort(buckets, kind="stable")
    edges = np.searchsorted(buckets[rows], np.arange(number + 1))
    for bucket, (start, stop) in enumerate(pairwise(edges)):
        if start < stop:
            yield bucket, rows[start:stop]


def sorted_rows(parts: Iterable[tuple[Any, ...]]) -> list[np.ndarray]:
    """A bucket's rows by user, then by time, then by place in the log.

    Args:
        parts: `(piece's index, rows ascending, users, times, ...)` of each piece; all but the index
            are arrays with one value per row.

    Returns:
        The columns `piece, row, user, time, ...`.
    """
    indices, *columns = zip(*sorted(parts, key=lambda part: part[0]), strict=True)
    piece = np.repeat(indices, [len(rows) for rows in columns[0]])
    row, user, time, *more = (np.concatenate(column) for column in columns)
    order = np.lexsort((time, user))  # stable
    return [column[order] for column in (piece, row, user, time, *more)]
