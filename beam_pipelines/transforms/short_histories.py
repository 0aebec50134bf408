"""Leaves out examples whose user has too few earlier events."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import apache_beam as beam
import numpy as np

from beam_pipelines.transforms.broadcast import by_index
from tfctr.config import DataConfig
from tfctr.data import files
from tfctr.data.arrived import check_arrived
from tfctr.data.clean import LABEL, TIME, Staged, read_staged
from tfctr.data.fingerprint import row_keys
from tfctr.data.histories import earlier_events, is_event
from tfctr.data.users import rows_by_bucket, sorted_rows


class LeaveOutShortHistories(beam.PTransform):
    """`Staged` -> `Staged`, without the examples that have fewer than `min_history` earlier events.

    They are counted as dropped, and remain events of later rows. As in a history, an event is
    earlier if its time is.

    Args:
        config: the data config, with `user` and `time`.
    """

    def __init__(self, config: DataConfig) -> None:
        super().__init__()
        self.config = config

    def expand(self, staged: beam.PCollection) -> beam.PCollection:
        short = (
            staged
            | "UserEvents" >> beam.FlatMap(_by_user_bucket, self.config)
            | "GatherUsers" >> beam.GroupByKey()
            | "FindShort" >> beam.FlatMap(_find_short, self.config.min_history)
        )
        return (
            {"piece": staged | "Index" >> beam.Map(by_index), "short": short}
            | "Regroup" >> beam.CoGroupByKey()
            | "Write" >> beam.MapTuple(_write_short)
        )


def _by_user_bucket(piece: Staged, config: DataConfig) -> Iterator[tuple[int, Any]]:
    table = read_staged(piece.path, [str(config.user), TIME, LABEL])
    users, times = row_keys(table[config.user].combine_chunks()), table[TIME].to_numpy()
    events = is_event(config, table)
    for bucket, rows in rows_by_bucket(users):
        yield bucket, (piece.index, rows, users[rows], times[rows], events[rows])


def _find_short(bucket: tuple[int, Iterable[Any]], least: int) -> Iterator[tuple[int, Any]]:
    """All rows of some users -> for each piece: the number of its rows, and those with too few
    earlier events."""
    piece, row, user, time, events = sorted_rows(bucket[1])
    start, end = earlier_events(user, time, events, least)
    short = end - start < least
    for index in np.unique(piece):
        of_piece = piece == index
        yield int(index), (int(of_piece.sum()), row[of_piece & short])


def _write_short(index: int, found: dict[str, list[Any]]) -> Staged:
    (piece,) = found["piece"]
    came = sum(number for number, _ in found["short"])
    check_arrived(f"piece {index}: rows of users", came, piece.rows)
    short = np.zeros(piece.rows, bool)
    for _, rows in found["short"]:
        short[rows] = True
    path = piece.path.removesuffix(".feather") + ".short"
    files.write(path, short.tobytes())
    dropped = piece.counts["dropped"] + int((piece.is_example() & short).sum())
    return replace(piece, counts=piece.counts | {"dropped": dropped}, short_path=path)
