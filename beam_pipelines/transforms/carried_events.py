"""Histories in a log by days: the latest events of users are carried from day to day.

A day's folder holds the latest events of every user so far. So the histories of a new day need its
own files and one folder of an earlier day, however long the log is.
"""

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from pyarrow import feather

from beam_pipelines.transforms.broadcast import ToPieces
from beam_pipelines.transforms.fit import own_vocabularies
from beam_pipelines.transforms.histories import EventReader, WritePast, find_earlier
from tfctr.config import DataConfig
from tfctr.data import files
from tfctr.data.typed_rows import ROW
from tfctr.data.users import rows_by_bucket, sorted_rows
from tfctr.schema import OOV_ID

PARTS = 32  # number of files of users per day; one is in memory at a time
CARRIED = -1  # the piece of an event of an earlier day


def carried_days(
    written: Mapping[datetime.date, Mapping[str, Any]], days: Iterable[datetime.date]
) -> list[datetime.date]:
    """The written days whose carried events hold all events before the days to write.

    For each day, the last one before it, and earlier days that were written after that one.

    Args:
        written: manifests by day.
        days: to write.
    """
    found: set[datetime.date] = set()
    for day in days:
        before = [d for d in written if d < day]
        if before:
            number = written[max(before)]["number"]
            found |= {d for d in before if written[d]["number"] >= number}
    return sorted(found)


class CarryEvents(beam.PTransform):
    """`(PlacedPiece, vocabularies)` -> `PlacedPiece` with the histories of its examples; writes the
    carried events.

    An event's tokens have the ids of its own day: a token that was too rare then stays OOV in it.

    Args:
        config: the data config whose source holds the days.
        days: to write, ascending, as days since 1970.
        names: of the folders of these days.
        carried: folders of earlier days, whose carried events are read.
        folder: to write to.
        num_pieces: int. Number of pieces.
    """

    def __init__(
        self,
        config: DataConfig,
        days: Sequence[int],
        names: Sequence[str],
        carried: Sequence[str],
        folder: str,
        num_pieces: int,
    ) -> None:
        super().__init__()
        self.num_pieces = num_pieces
        self.num_own = len(own_vocabularies(config.feature_schema))
        self.reader = EventReader(config, folder)
        length = max(history.max_length for history in self.reader.histories)
        tokens = tuple(history.name for history in self.reader.histories)
        self.find = _FindEarlier(tokens, length, days, names, carried, folder)

    def expand(self, inputs: Any) -> beam.PCollection:
        pieces, vocabularies = inputs
        # Users without a row on these days are carried too.
        all_parts = pieces.pipeline | "Parts" >> beam.Create([(i, None) for i in range(PARTS)])
        events = (
            (pieces, {"vocabularies": vocabularies})
            | "WithVocabularies" >> ToPieces(self.num_pieces, vocabularies=self.num_own)
            | "UserEvents" >> beam.FlatMap(_by_user_part, self.reader)
        )
        found = (
            (events, all_parts)
            | "WithAll" >> beam.Flatten()
            | "GatherUsers" >> beam.GroupByKey()
            | "FindEarlier" >> beam.ParDo(self.find)
        )
        return (pieces, found) | "WritePast" >> WritePast(len(self.reader.histories))


def _by_user_part(
    with_vocabularies: tuple[Any, dict[str, list[Any]]], reader: EventReader
) -> Iterator[tuple[int, Any]]:
    piece, found = with_vocabularies
    vocabularies = dict(found["vocabularies"])
    users, times, is_example, is_event, tokens = reader.read(piece)
    day = piece.event_days()
    for i, history in enumerate(reader.histories):
        sizes = np.array(vocabularies[history.vocabulary][0])
        tokens[:, i] = np.where(tokens[:, i] < sizes[day], tokens[:, i], OOV_ID)
    place = piece.columns([ROW])[ROW].to_numpy()
    columns = (users, times, is_example, is_event & (day >= 0), tokens, day, place)
    for part, rows in rows_by_bucket(users, PARTS):
        yield part, (piece.index, rows, *(column[rows] for column in columns))


class _FindEarlier(beam.DoFn):
    """All rows of some users on the days to write -> `find_earlier`."""

    def __init__(
        self,
        histories: tuple[str, ...],
        length: int,
        days: Sequence[int],
        names: Sequence[str],
        carried: Sequence[str],
        folder: str,
    ) -> None:
        self.tokens = tuple(f"{name}_token" for name in histories)  # columns of the files
        self.length = length
        self.days = np.array(days)
        self.names = names
        self.carried = carried
        self.folder = folder

    def process(self, part: tuple[int, Iterable[Any]]) -> Iterator[tuple[int, Any]]:
        number, given = part
        found = [rows for rows in given if rows is not None]
        # From here on a row's day is a calendar day, not an index of the days to write.
        found = [(*rows[:-2], self.days[rows[-2]], rows[-1]) for rows in found]
        *rows, day, place = sorted_rows([*found, self._earlier(number)])
        self._carry(number, rows, day, place)
        for index, past in find_earlier(number, rows, self.length):
            if index != CARRIED:
                yield index, past

    def _earlier(self, number: int) -> tuple[Any, ...]:
        """The carried events, without repeats, as rows that are no examples."""
        tables = [
            feather.read_table(pa.BufferReader(files.read(_path(folder, number))))
            for folder in self.carried
        ]
        kinds = [("user", pa.int64()), ("time", pa.int64()), ("day", pa.int64())]
        kinds += [("row", pa.int64()), *((name, pa.uint32()) for name in self.tokens)]
        table = pa.concat_tables([pa.schema(kinds).empty_table(), *tables])
        day, place = (table[name].to_numpy() for name in ("day", "row"))
        _, first = np.unique(np.stack([day, place], axis=1), axis=0, return_index=True)
        columns = {name: table[name].to_numpy()[first] for name in table.column_names}
        user, time, day, place = (columns[name] for name in ("user", "time", "day", "row"))
        tokens = np.stack([columns[name] for name in self.tokens], axis=1)
        no, yes = np.zeros(len(day), bool), np.ones(len(day), bool)
        return CARRIED, np.arange(len(day)), user, time, no, yes, tokens, day, place

    def _carry(
        self, number: int, rows: Sequence[np.ndarray], of_day: np.ndarray, place: np.ndarray
    ) -> None:
        """Writes, for each day, the latest events up to its end."""
        _, _, user, time, _, is_event, tokens = rows
        for day, name in zip(self.days, self.names, strict=True):
            known = np.flatnonzero(is_event & (of_day <= day))
            known = known[_latest(user[known], self.length)]
            columns = {"user": user, "time": time, "day": of_day, "row": place}
            columns |= dict(zip(self.tokens, tokens.T, strict=True))
            table = pa.table({key: values[known] for key, values in columns.items()})
            sink = pa.BufferOutputStream()
            feather.write_feather(table, sink, compression="uncompressed")
            files.write(_path(f"{self.folder}/{name}", number), sink.getvalue())


def _latest(user: np.ndarray, length: int) -> np.ndarray:
    """bool `[N]`: the last rows of each user, at most `length`; rows are by user."""
    ends = np.flatnonzero(np.r_[user[1:] != user[:-1], True]) if len(user) else np.array([], int)
    sizes = np.diff(np.r_[-1, ends])
    return np.repeat(ends, sizes) - np.arange(len(user)) < length


def _path(folder: str, number: int) -> str:
    return f"{folder}/events/part-{number:05d}.feather"
