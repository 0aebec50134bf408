"""Histories: the user's events before a row."""

import numpy as np
import pyarrow as pa

from tfctr.config import DataConfig
from tfctr.data.clean import LABEL
from tfctr.schema import History, Schema


def history_features(schema: Schema) -> list[History]:
    return [feature for feature in schema if isinstance(feature, History)]


def is_event(config: DataConfig, table: pa.Table) -> np.ndarray:
    """bool `[N]`: the cleaned rows that are events of later histories."""
    if config.history_events == "clicks":
        return table[LABEL].to_numpy() == 1
    return np.ones(table.num_rows, dtype=bool)


def earlier_events(
    user: np.ndarray, time: np.ndarray, is_event: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """The latest `length` events of the user that are strictly earlier than each row.

    Args:
        user, time, is_event: `[N]`, rows by user, then by time.
        length: int.

    Returns:
        `(start, end)` int64 `[N]`: ranges of events, numbered in the order of the rows.
    """
    before = np.cumsum(is_event) - is_event  # number of events before a row
    rows = np.arange(len(user))
    new_user = np.r_[True, user[1:] != user[:-1]]
    new_time = new_user | np.r_[True, time[1:] != time[:-1]]
    first_of_user = before[np.maximum.accumulate(np.where(new_user, rows, 0))]
    end = before[np.maximum.accumulate(np.where(new_time, rows, 0))]
    return np.maximum(first_of_user, end - length), end


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The concatenation of the ranges `start, start + 1, ...` of these lengths."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(lengths.sum())
