"""MovieLens as a log of organic rows and ads, on a calendar of days with equally many rows.

The public stand-in for E-CDCTR's two domains. Some movies are advertised, and some ratings of those
are ads; all others are organic. An ad is harder to please: it is clicked with five stars, where an
organic row is with more than three. Users rate in a few sittings and most of them come late, so
real days would hold from a hundred rows to sixty thousand: here a day is a share of the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from tfctr.config import TwoDomains
from tfctr.data.conform import to_int
from tfctr.data.delimited import Rows
from tfctr.data.fingerprint import mix
from tfctr.data.readers import DelimitedReader, Piece
from tfctr.data.times import SECONDS_PER_DAY
from tfctr.data.world import START

NEITHER = 3  # stars; such a row has no label
DROPPED = -1  # stands for its label, to be named by `label.drop`
NO_NUMBER = -1  # what is none is set aside later, as in any log


@dataclass(frozen=True)
class TwoDomainRatings:
    """The ratings, with three further columns.

    - `domain`: `organic` or `ads`;
    - `click`: 1, 0, or -1 where there are three stars;
    - `day_time`: seconds; in the rows' order, from 2024-01-01 UTC.

    Args:
        inner: the ratings as published.
        config: how many days, and how many ads.
    """

    inner: DelimitedReader
    config: TwoDomains

    @property
    def paths(self) -> tuple[str, ...]:
        return self.inner.paths

    def names(self) -> tuple[str, ...]:
        return (*self.inner.names(), "domain", "click", "day_time")

    def pieces(self) -> list[Piece]:
        return self.inner.pieces()

    def count(self, piece: Piece) -> int:
        return self.inner.count(piece)

    def read(self, piece: Piece, wanted: Sequence[str]) -> Rows:
        rows = self.inner.read(piece, self.inner.names())
        user, movie, stars, time = (
            _numbers(rows.table[name]) for name in ("user_id", "movie_id", "rating", "timestamp")
        )
        advertised = self._chosen(movie, 1, self.config.ads_items)
        is_ad = advertised & self._chosen(movie << 32 | user, 2, self.config.ads_share)
        click = np.where(stars > np.where(is_ad, 4, 3), 1, 0)
        columns = {
            "domain": pa.array(np.where(is_ad, "ads", "organic")),
            "click": pa.array(np.where(stars == NEITHER, DROPPED, click), mask=stars == NO_NUMBER),
            "day_time": pa.array(self._day_time(time), mask=time == NO_NUMBER),
        }
        for name, column in columns.items():
            rows.table = rows.table.append_column(name, column)
        rows.table = rows.table.select(list(wanted)).combine_chunks()
        return rows

    def _chosen(self, keys: np.ndarray, seed: int, share: float) -> np.ndarray:
        return mix(keys, seed) < np.uint64(share * (2**64 - 2**11))

    @cached_property
    def _times(self) -> np.ndarray:
        """The times at which days begin, and the last row's; int64 `[days + 1]`."""
        found = [
            _numbers(self.inner.read(piece, ["timestamp"]).table["timestamp"])
            for piece in self.pieces()
        ]
        times = np.sort(np.concatenate(found))
        times = times[times != NO_NUMBER]
        cuts = np.arange(self.config.days + 1) * len(times) // self.config.days
        return times[np.minimum(cuts, len(times) - 1)]

    def _day_time(self, time: np.ndarray) -> np.ndarray:
        starts, last = self._times[:-1], self.config.days - 1
        day = np.clip(np.searchsorted(starts, time, side="right") - 1, 0, last)
        length = np.maximum(self._times[day + 1] - starts[day], 1)
        within = (time - starts[day]) * (SECONDS_PER_DAY - 1) // length
        return START + day * SECONDS_PER_DAY + np.minimum(within, SECONDS_PER_DAY - 1)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """int64, `NO_NUMBER` where there is none."""
    return np.asarray(to_int(column.combine_chunks())[0].fill_null(NO_NUMBER))
