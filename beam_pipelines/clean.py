"""From raw pieces of a log to typed columns: joins, labels, and bad rows set aside."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import feather

from tfctr.config import ConfigError, DataConfig
from tfctr.data import files
from tfctr.data.conform import conform, reason, to_double, to_int
from tfctr.data.delimited import Rows
from tfctr.data.sources import Piece, Reader, Source, open_source
from tfctr.schema import Categorical, Text

ROW = "row_id"  # int64: the row's place in the log, over all files in order
TIME = "time"  # int64
LABEL = "label"  # float32: 1 click, 0 none
USER_KEY = "user_key"  # int64: tells users apart, those that no vocabulary holds too
RESERVED = (ROW, TIME, LABEL, USER_KEY)

MAX_TIME = 4_102_444_800  # 2100-01-01 in seconds; later times are mistakes of unit


@dataclass(frozen=True)
class Staged:
    """A cleaned piece: its typed columns in a Feather file, and what was counted."""

    index: int
    path: str
    rows: int
    counts: dict[str, int]  # read, bad, dropped, unmatched_users, unmatched_items
    reasons: dict[str, int]  # of bad rows


class Cleaner:
    """Reads a piece and gives its typed rows: one column a feature, and `row_id`, `time`, `label`.

    Raises:
        ConfigError: a column that the config names is in none of the source's tables.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.features = config.feature_schema.features
        for feature in self.features:
            if feature.name in RESERVED:
                raise ConfigError(f"features: the name {feature.name!r} is taken by the examples")

    @cached_property
    def source(self) -> Source:
        return open_source(self.config)

    @cached_property
    def homes(self) -> dict[str, list[Any]]:
        """Table -> the features that are read from it; events come first."""
        columns = {"events": self.source.events.names()}
        columns |= {name: reader.names() for name, (reader, _) in self.source.tables.items()}
        homes: dict[str, list[Any]] = {name: [] for name in columns}
        for feature in self.features:
            column = feature.source_column
            home = next((name for name, names in columns.items() if column in names), None)
            if home is None:
                there = "; ".join(f"{name}: {', '.join(names)}" for name, names in columns.items())
                raise ConfigError(
                    f"features: {feature.name!r} reads column {column!r}, which is in no table; "
                    f"columns of {there}"
                )
            homes[home].append(feature)
        needed = {"label": self.config.label.column, "time": self.config.time.column}
        needed |= {f"source.{name}.key": key for name, (_, key) in self.source.tables.items()}
        for key, column in needed.items():
            if column not in columns["events"]:
                raise ConfigError(
                    f"{key}: found {column!r}; columns of the events: "
                    f"{', '.join(columns['events'])}"
                )
        return homes

    @cached_property
    def tables(self) -> dict[str, tuple[pa.Array, pa.Table, Rows]]:
        """Joined table -> (keys, features, what was read)."""
        return {name: self._load(name, reader) for name, (reader, _) in self.source.tables.items()}

    def _load(self, name: str, reader: Reader) -> tuple[pa.Array, pa.Table, Rows]:
        key = self._key_feature(name)
        features = self.homes[name]
        wanted = _unique([key.source_column] + [f.source_column for f in features])
        parts, bad, first = [], [], 0
        for piece in reader.pieces():
            rows = reader.read(piece, wanted)
            columns = {key.name: key} | {f.name: f for f in features}
            parts.append(_typed(rows, list(columns.values())))
            bad += [(first + number, why, text) for number, why, text in rows.bad]
            first += reader.count(piece)
        table = pa.concat_tables(parts).combine_chunks()
        keys = table[key.name].combine_chunks()
        again = np.ones(len(keys), dtype=bool)
        again[np.unique(pc.index_in(keys, value_set=keys).to_numpy(), return_index=True)[1]] = False
        again |= keys.is_null().to_numpy(zero_copy_only=False)
        for i in np.flatnonzero(again):
            shown = keys[int(i)].as_py()
            why = (
                f"{key.source_column}: missing"
                if shown is None
                else (f"{key.source_column}: {shown!r} stands in an earlier row too")
            )
            bad.append((int(i), why, str(shown)))
        kept = pa.array(~again)
        return keys.filter(kept), table.filter(kept), Rows(table, np.arange(0), bad)

    def _key_feature(self, name: str) -> Any:
        """The join key as a feature: typed as the feature that reads the same column, if any."""
        column = self.source.tables[name][1]
        for feature in self.features:
            if isinstance(feature, Categorical) and feature.source_column == column:
                return feature
        return Categorical(name=f"{name}_key", side="context", column=column)

    def clean(self, piece: Piece) -> tuple[pa.Table, Rows, dict[str, int]]:
        """Typed rows with `row_id` counted within the piece, the raw rows with all that is bad,
        and counts."""
        events = self.homes["events"]
        keys = {name: self._key_feature(name) for name in self.source.tables}
        wanted = _unique(
            [self.config.label.column, self.config.time.column]
            + [key.source_column for key in keys.values()]
            + [feature.source_column for feature in events]
        )
        rows = self.source.events.read(piece, wanted)
        counts = {"read": len(rows.numbers) + len(rows.bad)}
        needed = {f.name: f for f in [*events, *keys.values()]}
        required = {self.config.user, self.config.item} | {key.name for key in keys.values()}
        table = _typed(rows, list(needed.values()), required - {None}, self._label_and_time)
        dropped = pc.is_null(table[LABEL])  # values that the config leaves out
        counts["dropped"] = pc.sum(dropped).as_py() or 0
        table = table.filter(pc.invert(dropped))
        columns = {name: table[name] for name in table.column_names}
        for name, key in keys.items():
            known, joined, _ = self.tables[name]
            place = pc.index_in(table[key.name].combine_chunks(), value_set=known)
            counts[f"unmatched_{name}"] = place.null_count
            for feature in self.homes[name]:
                columns[feature.name] = joined[feature.name].take(place)
        order = [ROW, TIME, LABEL] + [feature.name for feature in self.features]
        counts["bad"] = len(rows.bad)
        return pa.table({name: columns[name] for name in order}).combine_chunks(), rows, counts

    def _label_and_time(self, table: pa.Table) -> dict[str, tuple[pa.Array, np.ndarray, str]]:
        """The two columns, each with its bad rows and what is wrong with them."""
        label, config = self.config.label, self.config
        values, bad = to_double(table[label.column].combine_chunks())
        numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
        wrong = np.isnan(numbers) if bad is None else np.isnan(numbers) | bad
        if label.positive_above is None:
            wrong |= ~np.isin(numbers, [0.0, 1.0, *label.drop])
            why = f"{label.column}: the label must be 0 or 1"
            clicks = numbers
        else:
            why = f"{label.column}: the label must be a number"
            clicks = (numbers > label.positive_above).astype(np.float64)
        left_out = np.isin(numbers, label.drop)
        clicks_array = pa.array(clicks.astype(np.float32), mask=left_out & ~wrong)
        seconds = {"s": 1, "ms": 10**3, "us": 10**6}[config.time.unit]
        times, bad = to_int(table[config.time.column].combine_chunks())
        moments = times.fill_null(-1).to_numpy(zero_copy_only=False)
        late = (moments < 0) | (moments >= MAX_TIME * seconds)
        late = late if bad is None else late | bad
        when = f"{config.time.column}: not a time in {config.time.unit} between 1970 and 2100"
        return {LABEL: (clicks_array, wrong, why), TIME: (times.fill_null(0), late, when)}


def _typed(
    rows: Rows, features: list[Any], required: Any = frozenset(), more: Any = None
) -> pa.Table:
    """The features' columns of the good rows; what is bad is added to `rows.bad`."""
    raw = rows.table
    checked: dict[str, tuple[pa.Array, np.ndarray | None, str]] = {}
    for feature in features:
        column = raw[feature.source_column]
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        try:
            values, bad = conform(feature, column)
        except TypeError as error:
            raise ConfigError(
                f"features: {feature.name!r} reads column {feature.source_column!r} of {error}"
            ) from None
        checked[feature.name] = (values, bad, f"{feature.source_column}: {reason(feature)}")
        if feature.name in required and values.null_count:
            missing = values.is_null().to_numpy(zero_copy_only=False)
            checked[f"{feature.name} "] = (values, missing, f"{feature.source_column}: missing")
    if more is not None:
        checked |= more(raw)
    spoilt = np.zeros(len(rows.numbers), dtype=bool)
    for _, bad, why in checked.values():
        if bad is None:
            continue
        for i in np.flatnonzero(bad & ~spoilt):
            rows.bad.append((int(rows.numbers[i]), why, _shown(raw, int(i))))
        spoilt |= bad
    rows.bad.sort()
    columns = {ROW: pa.array(rows.numbers, pa.int64())}
    columns |= {name: values for name, (values, _, _) in checked.items() if name.strip() == name}
    table = pa.table(columns)
    return table.filter(pa.array(~spoilt)) if spoilt.any() else table


def _shown(raw: pa.Table, i: int) -> str:
    values = {name: raw[name][i].as_py() for name in raw.column_names}
    texts = {
        name: value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
        for name, value in values.items()
    }
    return json.dumps(texts, ensure_ascii=False)


def _unique(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


class _CleanPiece(beam.DoFn):
    def __init__(self, cleaner: Cleaner, folder: str) -> None:
        self.cleaner = cleaner
        self.folder = folder

    def process(self, piece: Piece, first_rows: dict[int, int]) -> Iterator[Any]:
        table, rows, counts = self.cleaner.clean(piece)
        first = first_rows[piece.index]
        place = table.column_names.index(ROW)
        table = table.set_column(place, ROW, pc.add(table[ROW], first))
        path = f"{self.folder}/staged/{piece.index:05d}.feather"
        sink = pa.BufferOutputStream()
        feather.write_feather(table, sink, compression="lz4")
        files.write(path, sink.getvalue())
        if rows.bad:
            write_dead_letters(
                f"{self.folder}/dead_letters/part-{piece.index:05d}.jsonl",
                piece.path,
                [(number + first, why, text) for number, why, text in rows.bad],
            )
        yield Staged(piece.index, path, table.num_rows, counts, tally(rows.bad))


def tally(bad: list[tuple[int, str, str]]) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for _, why, _ in bad:
        reasons[why] = reasons.get(why, 0) + 1
    return reasons


def write_dead_letters(path: str, source: str, bad: list[tuple[int, str, str]]) -> None:
    """JSON Lines: `source`, `row` (from 0, as `row_id`), `reason`, and the row as found."""
    name = source.rpartition("/")[2]
    lines = [
        json.dumps(
            {"source": name, "row": number, "reason": why, "text": text[:1000]}, ensure_ascii=False
        )
        for number, why, text in bad
    ]
    files.write(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))


class Clean(beam.PTransform):
    """Pieces -> `Staged`: cleaned, joined, on disk under `folder`, bad rows beside them."""

    def __init__(self, config: DataConfig, folder: str) -> None:
        super().__init__()
        self.cleaner = Cleaner(config)
        self.folder = folder

    def expand(self, pieces: beam.PCollection) -> beam.PCollection:
        reader = self.cleaner.source.events
        first_rows = (
            pieces
            | "CountRows" >> beam.Map(lambda piece: (piece.index, reader.count(piece)))
            | "Together" >> beam.combiners.ToList()
            | "FirstRows" >> beam.Map(_first_rows)
        )
        return (
            pieces
            | "CleanPiece"
            >> beam.ParDo(
                _CleanPiece(self.cleaner, self.folder), beam.pvalue.AsSingleton(first_rows)
            )
            | "Spread" >> beam.Reshuffle()
        )


def _first_rows(counts: list[tuple[int, int]]) -> dict[int, int]:
    first, rows = {}, 0
    for index, count in sorted(counts):
        first[index] = rows
        rows += count
    return first
