"""Histories: the latest events of an example's user, strictly earlier, in the whole log."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import apache_beam as beam
import numpy as np

from beam_pipelines.transforms.broadcast import ToPieces, by_index
from beam_pipelines.transforms.fit import own_vocabularies, read_vocabularies
from beam_pipelines.transforms.split import SplitPiece
from tfctr.config import DataConfig
from tfctr.data import files
from tfctr.data.arrived import check_arrived
from tfctr.data.clean import LABEL, TIME, event_column
from tfctr.data.fingerprint import row_keys
from tfctr.data.histories import earlier_events, history_features, is_event, ranges
from tfctr.data.users import rows_by_bucket, sorted_rows
from tfctr.data.vocabulary import Vocabulary
from tfctr.schema import PAD_ID, History


@dataclass(frozen=True)
class Past:
    """The events before each of `N` examples; an event before several examples is stored once.

    Example `i` has the ids `tokens[:, ends[i] - lengths[i] : ends[i]]`, oldest first.
    """

    ends: np.ndarray  # int64 [N]
    lengths: np.ndarray  # int64 [N], at most the longest `max_length`
    tokens: np.ndarray  # uint32 [histories, events]

    def columns(self, histories: Sequence[History], rows: np.ndarray) -> dict[str, np.ndarray]:
        """Ids uint32 `[rows, max_length]` by history, padded with `PAD_ID` at the end."""
        places: dict[int, np.ndarray] = {}
        found = {}
        for history, tokens in zip(histories, self.tokens, strict=True):
            length = history.max_length
            if length not in places:
                kept = np.minimum(self.lengths[rows], length)[:, None]
                step = np.arange(length)
                first = self.ends[rows][:, None] - kept
                places[length] = np.where(step < kept, first + step, len(tokens))
            found[history.name] = np.append(tokens, np.uint32(PAD_ID))[places[length]]
        return found


def read_past(piece: SplitPiece) -> Past:
    """The histories of a piece's examples; other rows are left out."""
    return Past(**files.read_arrays(piece.past_path))


class AddHistories(beam.PTransform):
    """`(SplitPiece, vocabularies)` -> `SplitPiece` with the histories of its examples.

    An event is a row of the log, or with `history_events: clicks` a row whose label is 1. A user's
    events are sorted by time, then by place in the log; an example has those of an earlier time.
    Tokens are looked up where they are read, so only ids are sent between workers.

    Args:
        config: the data config.
        folder: to write to; it has the vocabularies' files when all vocabularies have arrived.
        num_pieces: int. Number of pieces.
    """

    def __init__(self, config: DataConfig, folder: str, num_pieces: int) -> None:
        super().__init__()
        self.reader = EventReader(config, folder)
        self.num_pieces = num_pieces
        self.num_own = len(own_vocabularies(config.feature_schema))

    def expand(self, inputs: Any) -> beam.PCollection:
        pieces, vocabularies = inputs
        histories = self.reader.histories
        parts = (
            (pieces, {"vocabularies": vocabularies})
            | "Wait" >> ToPieces(self.num_pieces, vocabularies=self.num_own)
            | "Pieces" >> beam.Keys()
            | "UserEvents" >> beam.FlatMap(_by_user_bucket, self.reader)
            | "GatherUsers" >> beam.GroupByKey()
            | "FindEarlier" >> beam.FlatMap(_find_of_bucket, max(f.max_length for f in histories))
        )
        return (pieces, parts) | "WritePast" >> WritePast(len(histories))


class EventReader:
    """Reads the rows of a piece as events: users, times, and ids of tokens."""

    def __init__(self, config: DataConfig, folder: str) -> None:
        self.config = config
        self.schema = config.feature_schema
        self.histories = history_features(self.schema)
        self.folder = folder

    @cached_property
    def vocabularies(self) -> dict[str, Vocabulary]:
        return read_vocabularies(self.histories, self.folder)

    def read(self, piece: SplitPiece) -> tuple[np.ndarray, ...]:
        """`users, times, is_example, is_event` `[N]`, and `tokens` uint32 `[N, histories]`."""
        user = str(self.config.user)
        columns = [event_column(self.schema, history) for history in self.histories]
        table = piece.columns(list(dict.fromkeys([user, TIME, LABEL, *columns])))
        tokens = np.empty((table.num_rows, len(columns)), np.uint32)
        for i, (history, name) in enumerate(zip(self.histories, columns, strict=True)):
            vocabulary = self.vocabularies[history.vocabulary]
            tokens[:, i] = vocabulary.ids(table[name].combine_chunks())
        return (
            row_keys(table[user].combine_chunks()),
            table[TIME].to_numpy(),
            piece.is_example(),
            is_event(self.config, table),
            tokens,
        )


def _by_user_bucket(piece: SplitPiece, reader: EventReader) -> Iterator[tuple[int, Any]]:
    columns = reader.read(piece)
    for bucket, rows in rows_by_bucket(columns[0]):
        yield bucket, (piece.index, rows, *(column[rows] for column in columns))


def _find_of_bucket(bucket: tuple[int, Iterable[Any]], length: int) -> Iterator[tuple[int, Any]]:
    number, parts = bucket
    return find_earlier(number, sorted_rows(parts), length)


def find_earlier(number: int, rows: Sequence[np.ndarray], length: int) -> Iterator[tuple[int, Any]]:
    """All rows of some users -> for each piece: the number of its rows, its examples, and the
    events before them, each once.

    Args:
        number: of the users' bucket.
        rows: `piece, row, user, time, is_example, is_event, tokens`, from `sorted_rows`.
        length: int. Greatest number of events of an example.
    """
    piece, row, user, time, is_example, events, tokens = rows
    start, end = earlier_events(user, time, events, length)
    pieces, came = np.unique(piece, return_counts=True)
    examples = np.flatnonzero(is_example)
    examples = examples[np.argsort(piece[examples], kind="stable")]
    piece, row, start, end = (column[examples] for column in (piece, row, start, end))
    # Within a piece starts and ends ascend: a row adds the events after the end of the row before.
    behind = np.where(np.r_[True, piece[1:] != piece[:-1]], 0, np.r_[0, end[:-1]])
    begin = np.maximum(start, behind[: len(end)])
    added = end - begin
    held = np.r_[0, np.cumsum(added)]
    tokens = tokens[events][ranges(begin, added)]
    edges = pairwise([*np.searchsorted(piece, pieces), len(piece)])
    for index, rows_came, (first, stop) in zip(pieces, came, edges, strict=True):
        yield (
            int(index),
            (
                number,
                int(rows_came),
                row[first:stop],
                held[first + 1 : stop + 1] - held[first],
                end[first:stop] - start[first:stop],
                tokens[held[first] : held[stop]],
            ),
        )


class WritePast(beam.PTransform):
    """`(SplitPiece, results of find_earlier)` -> `SplitPiece` with its examples' histories."""

    def __init__(self, num_histories: int) -> None:
        super().__init__()
        self.num_histories = num_histories

    def expand(self, inputs: Any) -> beam.PCollection:
        pieces, parts = inputs
        return (
            {"piece": pieces | "Index" >> beam.Map(by_index), "parts": parts}
            | "Regroup" >> beam.CoGroupByKey()
            | "Write" >> beam.Map(_write_past, self.num_histories)
        )


def _write_past(joined: tuple[int, dict[str, list[Any]]], num_histories: int) -> Any:
    _, found = joined
    (piece,) = found["piece"]
    ends, lengths = np.zeros((2, piece.rows), np.int64)
    tokens = [np.zeros((0, num_histories), np.uint32)]
    held = 0
    parts = sorted(found["parts"], key=lambda part: part[0])
    check_arrived(f"piece {piece.index}: rows of users", sum(part[1] for part in parts), piece.rows)
    for _, _, rows, part_ends, part_lengths, part in parts:
        ends[rows] = held + part_ends
        lengths[rows] = part_lengths
        tokens.append(part)
        held += len(part)
    examples = piece.is_example()
    past = Past(ends[examples], lengths[examples], np.concatenate(tokens).T)
    path = piece.path.removesuffix(".feather") + ".past"
    files.write_arrays(path, vars(past))
    return replace(piece, past_path=path)
