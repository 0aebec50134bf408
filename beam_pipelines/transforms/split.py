"""Assigns rows to training, validation and test."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from beam_pipelines.transforms.broadcast import Gather, ToPieces, by_index
from beam_pipelines.transforms.histogram import Histogram, num_values, quantiles
from tfctr.config import HoldOut, Split, SplitConfig
from tfctr.data import files
from tfctr.data.arrived import check_arrived
from tfctr.data.clean import (
    EXAMPLES,
    SPLIT,
    TIME,
    Staged,
    num_examples,
    read_staged,
    write_staged,
)
from tfctr.data.fingerprint import chances, row_keys
from tfctr.data.held_out import is_held_out, write_left_out
from tfctr.data.typed_rows import ROW
from tfctr.data.users import rows_by_bucket, sorted_rows

TRAIN, VALID, TEST, POOL = 0, 1, 2, 3
SPLITS = (*EXAMPLES, "pool")
KNOWN = (TRAIN, POOL)  # splits whose rows vocabularies and statistics are fitted on
IN_TRAINING = [SPLITS[code] for code in KNOWN]  # whose rows read the statistics of other users
DROPPED = 4  # added for a row that is no example, only an event of its user's history


@dataclass(frozen=True)
class SplitPiece(Staged):
    """A cleaned piece with the split of each row: uint8 `[rows]` in a separate file.

    A dropped row has the split of its time, plus `DROPPED`. With histories, another file holds
    those of its examples (`beam_pipelines.transforms.histories`).
    """

    split_path: str = ""
    past_path: str = ""

    def columns(self, names: list[str]) -> pa.Table:
        return read_staged(self.path, names)

    def split(self) -> np.ndarray:
        return np.frombuffer(files.read(self.split_path), np.uint8)

    def is_example(self) -> np.ndarray:
        """bool `[rows]`: not dropped."""
        return self.split() < DROPPED


class AssignSplits(beam.PTransform):
    """`Staged` -> `SplitPiece`. Dropped rows do not affect the split of the others.

    - global_time: cut at two times, and at a third before them if there is a pool; rows of one
      time stay together, in the later split.
    - user_time: the same within each user.
    - random: by a hash of the row's id and the seed.
    - column, file: as the cleaned rows say.

    With `hold_out`, rows of held-out tokens in training and in the pool are then left out of the
    pieces, so no later step can read them; `counts` has their number. The other rows have the same
    split as without it.

    A second output, `cuts`, is one dict: `valid_from` and `test_from` for global_time, and
    `train_from` after a pool.

    Args:
        split: the kind and the shares.
        user: the column of users, for user_time.
        num_pieces: int. Number of pieces.
        folder: for the ids of the rows that `hold_out` leaves out. Defaults to None: not written.
    """

    def __init__(
        self, split: SplitConfig, user: str | None, num_pieces: int, folder: str | None = None
    ) -> None:
        super().__init__()
        self.config = split
        self.user = user
        self.num_pieces = num_pieces
        self.folder = folder

    def expand(self, staged: beam.PCollection) -> Any:
        pieces, cuts = self._assigned(staged)
        if isinstance(self.config, Split) and self.config.hold_out is not None:
            pieces |= "LeaveOut" >> beam.Map(_leave_out, self.config.hold_out, self.folder)
        return pieces, cuts

    def _assigned(self, staged: beam.PCollection) -> Any:
        if not isinstance(self.config, Split):
            pieces = staged | "AsGiven" >> beam.Map(_split_as_given)
            return pieces, staged.pipeline | "NoCuts" >> beam.Create([{}])
        shares = [1 - self.config.valid - self.config.test, 1 - self.config.test]
        if self.config.by == "global_time":
            names = ["valid_from", "test_from"]
            if self.config.pool:
                shares, names = [self.config.pool, *shares], ["train_from", *names]
            times = (
                staged
                | "Times" >> beam.Map(lambda piece: (0, _column(piece, TIME)[piece.is_example()]))
                | "CountTimes" >> beam.CombinePerKey(Histogram())
                | "AllTimes" >> beam.Values()
            )
            examples = staged | "Examples" >> beam.Map(_num_examples)
            cuts = (
                {"times": times, "pieces": examples}
                | "Gather" >> Gather(pieces=self.num_pieces)
                | "Cut" >> beam.Map(_cut, shares)
            )
            pieces = (
                (staged, {"cuts": cuts})
                | "WithCuts" >> ToPieces(self.num_pieces, cuts=1)
                | "ByTime" >> beam.MapTuple(_split_by_time)
            )
            named = cuts | "Name" >> beam.Map(lambda edges: dict(zip(names, edges, strict=True)))
            return pieces, named
        if self.config.by == "random":
            pieces = staged | "ByChance" >> beam.Map(_split_by_chance, shares, self.config.seed)
        else:
            ranked = (
                staged
                | "UserTimes" >> beam.FlatMap(_by_user_bucket, self.user)
                | "GatherUsers" >> beam.GroupByKey()
                | "RankTimes" >> beam.FlatMap(_split_users, shares)
            )
            pieces = (
                {"piece": staged | "Index" >> beam.Map(by_index), "ranked": ranked}
                | "Regroup" >> beam.CoGroupByKey()
                | "ByUserTime" >> beam.MapTuple(_split_by_user)
            )
        return pieces, staged.pipeline | "NoCuts" >> beam.Create([{}])


def _column(piece: Staged, name: str) -> np.ndarray:
    return read_staged(piece.path, [name])[name].to_numpy()


def _num_examples(piece: Staged) -> int:
    return num_examples(piece.counts)


def _cut(found: dict[str, list[Any]], shares: list[float]) -> list[int]:
    (times,) = found["times"] or [Histogram().create_accumulator()]
    check_arrived("times of examples", num_values(times), sum(found["pieces"]))
    return quantiles(times, shares)


def _with_split(piece: Staged, split: np.ndarray) -> SplitPiece:
    path = piece.path.removesuffix(".feather") + ".split"
    codes = np.where(piece.is_example(), split, split + DROPPED)
    files.write(path, codes.astype(np.uint8).tobytes())
    return SplitPiece(**vars(piece), split_path=path)


def _leave_out(piece: SplitPiece, hold_out: HoldOut, folder: str | None) -> SplitPiece:
    table, codes = read_staged(piece.path), piece.split()
    tokens = table[hold_out.feature].combine_chunks()
    left_out = is_held_out(tokens, hold_out) & np.isin(codes % DROPPED, KNOWN)
    if folder is not None:
        write_left_out(folder, piece.index, table[ROW].to_numpy()[left_out])
    kept = piece.path.removesuffix(".feather") + ".kept"
    write_staged(kept, table.filter(pa.array(~left_out)), ())  # its tokens are codes already
    files.write(f"{kept}_split", codes[~left_out].tobytes())
    return replace(
        piece,
        path=kept,
        split_path=f"{kept}_split",
        short_path="",  # the codes say it
        rows=int((~left_out).sum()),
        counts=piece.counts | {"held_out": int((left_out & (codes < DROPPED)).sum())},
    )


def _split_by_time(piece: Staged, found: dict[str, list[list[int]]]) -> SplitPiece:
    (cuts,) = found["cuts"]
    order = np.array([TRAIN, VALID, TEST] if len(cuts) == 2 else [POOL, TRAIN, VALID, TEST])
    return _with_split(piece, order[np.searchsorted(cuts, _column(piece, TIME), side="right")])


def _split_by_chance(piece: Staged, shares: list[float], seed: int) -> SplitPiece:
    chance = chances(_column(piece, ROW), seed)
    return _with_split(piece, np.searchsorted(shares, chance, side="right"))


def _split_as_given(piece: Staged) -> SplitPiece:
    return _with_split(piece, _column(piece, SPLIT))


def _by_user_bucket(piece: Staged, user: str) -> Iterator[tuple[int, Any]]:
    table = read_staged(piece.path, [user, TIME])
    users, times = row_keys(table[user].combine_chunks()), table[TIME].to_numpy()
    is_example = piece.is_example()
    for bucket, rows in rows_by_bucket(users):
        yield bucket, (piece.index, rows, users[rows], times[rows], is_example[rows])


def _split_users(bucket: tuple[int, Iterable[Any]], shares: list[float]) -> Iterator[Any]:
    """All rows of some users: ranks each user's rows by time; equal times share the highest."""
    piece, row, user, time, is_example = sorted_rows(bucket[1])
    ranks = np.cumsum(is_example)  # over all users; dropped rows have no rank
    first = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    rows = np.diff(np.r_[first, len(user)])
    before = np.repeat(ranks[first] - is_example[first], rows)
    sizes = np.repeat(np.add.reduceat(is_example, first, dtype=np.int64), rows)
    same = np.r_[False, (user[1:] == user[:-1]) & (time[1:] == time[:-1])]
    # Rows of one time go where the last of them goes: training has no rows of a later split's time.
    last = np.flatnonzero(np.r_[~same[1:], True])
    rank = np.repeat(ranks[last], np.diff(np.r_[-1, last])) - before - 1
    split = np.searchsorted(shares, (rank + 0.5) / np.maximum(sizes, 1), side="right")
    for index in np.unique(piece):
        chosen = piece == index
        yield int(index), (row[chosen], split[chosen])


def _split_by_user(index: int, found: dict[str, list[Any]]) -> SplitPiece:
    (piece,) = found["piece"]
    came = sum(len(rows) for rows, _ in found["ranked"])
    check_arrived(f"piece {index}: rows with their split", came, piece.rows)
    split = np.zeros(piece.rows, np.uint8)
    for rows, values in found["ranked"]:
        split[rows] = values
    return _with_split(piece, split)
