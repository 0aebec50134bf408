"""From raw pieces of a log to cleaned ones: joins, labels, and bad rows set aside."""

import glob
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import feather

from tfctr.config import ConfigError, DataConfig, Label, SplitByColumn, SplitByFile
from tfctr.data import files
from tfctr.data.arrived import check_arrived
from tfctr.data.conform import to_double, to_tokens
from tfctr.data.delimited import Rows
from tfctr.data.joined_tables import JoinedTables
from tfctr.data.manifest import DataError
from tfctr.data.readers import Piece, Source, TypedReader
from tfctr.data.sources import matching, open_source
from tfctr.data.times import read_times, start_of
from tfctr.data.typed_rows import (
    ROW,
    BadRow,
    Check,
    of_column,
    refuse_mixed_types,
    set_aside,
    typed,
)
from tfctr.schema import Categorical, History, Numeric, Schema

TIME = "time"  # int64
LABEL = "label"  # float32: 1 click, 0 none
USER_KEY = "user_key"  # int64: identifies the user, also one out of vocabulary
SPLIT = "given_split"  # uint8 place in EXAMPLES, if the config says which column or file gives it
RESERVED = (ROW, TIME, LABEL, USER_KEY, SPLIT)
EXAMPLES = ("train", "valid", "test")  # the splits of every dataset

LONGEST_SHOWN = 200  # characters of a row in an error


@dataclass(frozen=True)
class Staged:
    """A cleaned piece: its typed columns in a Feather file, and its counts.

    Rows whose label is null are dropped: they are no examples, only events. With `min_history` a
    file of bools names more such rows, whose labels stay, as these say which events are clicks.
    """

    index: int
    path: str
    rows: int
    # read, bad, dropped, unmatched_users, unmatched_items, `not_finite`, other_days: good rows that
    # `time.since` or `time.before` leaves out, and held_out: examples that `hold_out` does
    counts: dict[str, int]
    reasons: dict[str, int]  # of bad rows
    short_path: str = ""

    def is_example(self) -> np.ndarray:
        """bool `[rows]`: not dropped."""
        found: np.ndarray = read_staged(self.path, [LABEL])[LABEL].is_valid().to_numpy()
        if self.short_path:
            found = found & ~np.frombuffer(files.read(self.short_path), bool)
        return found


def not_finite(feature: str) -> str:
    """The name of a count: values of a numeric feature that are missing since they are infinite, or
    do not fit a float32."""
    return f"not_finite_{feature}"


def event_column(schema: Schema, history: History) -> str:
    """The column of the cleaned rows with a history's tokens."""
    shared = history.shares
    if shared is not None and schema[shared].source_column == history.source_column:
        return shared
    return history.name


def _one_token(history: History) -> Categorical:
    """The feature that one event of a history is read as."""
    return Categorical(
        name=history.name, side="user", column=history.source_column, dtype=history.dtype
    )


class Cleaner:
    """Reads a piece as typed rows: a column per feature, and `row_id`, `time`, `label`.

    A history's column holds the row's own token (`event_column`). If all rows are events of
    something, those that `label.drop` leaves out are returned too; their label is null.

    Args:
        config: the data config.
        joins_large: if False, tables of more than `LARGE_TABLE` bytes are left out, and the rows
            have the keys for a later join. Defaults to True.
        keeps_dropped: whether the rows that `label.drop` leaves out are always returned. Defaults
            to False.

    Raises:
        ConfigError: no table of the source has a column that the config names.
    """

    def __init__(
        self, config: DataConfig, joins_large: bool = True, keeps_dropped: bool = False
    ) -> None:
        self.config = config
        self.joins_large = joins_large
        schema = config.feature_schema
        columns: list[Any] = []  # one per feature, then those that only histories read
        own: list[Any] = []
        for feature in schema:
            if feature.name in RESERVED:
                raise ConfigError(f"features: the name {feature.name!r} is taken by the examples")
            if not isinstance(feature, History):
                columns.append(feature)
            elif event_column(schema, feature) == feature.name:
                own.append(_one_token(feature))
        self.features = (*columns, *own)
        reads_events = config.min_history or any(isinstance(f, History) for f in schema)
        are_events = bool(reads_events) and config.history_events == "all"
        self.keeps_dropped = keeps_dropped or are_events

    @cached_property
    def source(self) -> Source:
        return open_source(self.config.model_copy(update={"features": self.features}))

    @cached_property
    def joined(self) -> JoinedTables:
        """The tables of the source. Checks that the events have all columns that a row needs."""
        found = JoinedTables(self.source, self.features, self.joins_large)
        names = self.source.events.names()
        _ = found.features_by_table  # its error comes first
        needed = dict(self._no_features)
        needed |= {f"source.{name}.key": key for name, (_, key) in self.source.tables.items()}
        for key, column in needed.items():
            if column not in names:
                raise ConfigError(
                    f"{key}: found {column!r}; columns of the events: {', '.join(names)}"
                )
        return found

    @property
    def _no_features(self) -> dict[str, str]:
        """The columns of the events that a row needs besides its features', by config key."""
        columns = {"label": self.config.label.column}
        if self.config.time is not None:
            columns["time"] = self.config.time.column
        if isinstance(self.config.split, SplitByColumn):
            columns["split.column"] = self.config.split.column
        return columns

    @cached_property
    def _split_of_file(self) -> dict[str, int]:
        """The place in `EXAMPLES` of each file, if each split has files of its own."""
        found: dict[str, int] = {}
        for place, split in enumerate(EXAMPLES):
            for pattern in getattr(self.config.split, split):
                for path in matching(pattern, self.config.directory):
                    if found.setdefault(path, place) != place:
                        raise ConfigError(
                            f"split.{split}: {path} is a file of {EXAMPLES[found[path]]} too"
                        )
        return found

    def clean(self, piece: Piece) -> tuple[pa.Table, Rows, dict[str, int]]:
        """Typed rows with `row_id` counted within the piece; the raw rows with all bad ones; and
        counts."""
        rows = self.source.events.read(piece, self._event_columns)
        counts = {"read": len(rows.numbers) + len(rows.bad)}
        columns, checks = self._typed_events(piece.path, rows.table)
        table = set_aside(rows, columns, checks)
        counts["bad"] = len(rows.bad)
        of_the_days = self._of_the_days(table)
        if other := table.num_rows - of_the_days.num_rows:
            counts["other_days"] = other
            table = of_the_days
        counts["dropped"] = table[LABEL].null_count  # values that the config leaves out
        if counts["dropped"] and not self.keeps_dropped:
            table = table.filter(table[LABEL].is_valid())
        for name, other in self.joined.tables.items():
            table, counts[f"unmatched_{name}"] = self.join(name, table, other.features)
        numbers = [feature.name for feature in self.features if isinstance(feature, Numeric)]
        for name in (name for name in numbers if name in table.column_names):
            if infinite := pc.sum(pc.is_inf(table[name])).as_py():
                counts[not_finite(name)] = infinite
        return self.in_order(table, self.joined.large), rows, counts

    def _of_the_days(self, table: pa.Table) -> pa.Table:
        """The rows that are not left out by `time.since` and `time.before`."""
        time = self.config.time
        if time is None or (time.since is None and time.before is None):
            return table
        kept = np.ones(table.num_rows, bool)
        moments = table[TIME].to_numpy()
        if time.since is not None:
            kept &= moments >= start_of(time.since, time.unit)
        if time.before is not None:
            kept &= moments < start_of(time.before, time.unit)
        return table.filter(pa.array(kept))

    @property
    def _event_features(self) -> list[Any]:
        """Those of the events, and the keys of the tables."""
        found = [
            *self.joined.features_by_table["events"],
            *map(self.joined.key, self.source.tables),
        ]
        return list({feature.name: feature for feature in found}.values())

    @property
    def _event_columns(self) -> list[str]:
        of_features = (feature.source_column for feature in self._event_features)
        return list(dict.fromkeys([*self._no_features.values(), *of_features]))

    def _typed_events(self, path: str, raw: pa.Table) -> tuple[dict[str, pa.Array], list["Check"]]:
        """The events' columns, and checks that find their bad rows."""
        required = {self.config.user, self.config.item}
        required |= {self.joined.key(name).name for name in self.source.tables}
        columns, checks = typed(path, raw, self._event_features, required)
        columns[LABEL], check = labels(path, raw, self.config.label)
        columns[TIME], wrong_times = self._time(path, raw)
        checks += [check, *wrong_times]
        if isinstance(self.config.split, SplitByColumn):
            columns[SPLIT], unknown = self._split(path, raw, self.config.split)
            checks.append(unknown)
        elif isinstance(self.config.split, SplitByFile):
            place = self._split_of_file[path]
            columns[SPLIT] = pa.array(np.full(raw.num_rows, place, np.uint8))
        return columns, checks

    def check_types(self) -> None:
        """Checks the columns of each file that has types, before any row is read.

        Raises:
            ConfigError: a column is not there, has a type that can hold no value of its feature, or
                has types in which one token may be written in two ways.
        """
        events = self.source.events
        if isinstance(events, TypedReader):
            types = dict(events.types(self._event_columns))
            for path, of_file in types.items():
                self._typed_events(path, of_file.empty_table())
            refuse_mixed_types(events, types, self._event_features)
        for name, (table, _) in self.source.tables.items():
            if isinstance(table, TypedReader):
                features = self.joined.of_table(name)
                columns = dict.fromkeys(feature.source_column for feature in features)
                types = dict(table.types(list(columns)))
                for path, of_file in types.items():
                    typed(path, of_file.empty_table(), features, ())
                refuse_mixed_types(table, types, features)

    def join(self, name: str, table: pa.Table, other: pa.Table) -> tuple[pa.Table, int]:
        """As `JoinedTables.join`, with the number of rows without a match; dropped rows are not
        counted."""
        table, unmatched = self.joined.join(name, table, other)
        counted = pc.and_(unmatched, table[LABEL].combine_chunks().is_valid())
        return table, pc.sum(counted).as_py() or 0

    def in_order(self, table: pa.Table, to_join: Sequence[str]) -> pa.Table:
        """`row_id`, `time`, `label`, features; then keys of tables that are joined later."""
        names = [ROW, TIME, LABEL, *([SPLIT] if SPLIT in table.column_names else [])]
        names += [f.name for f in self.features if f.name in table.column_names]
        names += [self.joined.key(name).name for name in to_join]
        return table.select(list(dict.fromkeys(names))).combine_chunks()

    def _time(self, path: str, raw: pa.Table) -> tuple[pa.Array, Sequence[Check]]:
        """int64 in the config's unit."""
        time = self.config.time
        if time is None:
            return pa.array(np.zeros(raw.num_rows, np.int64)), []
        return of_column(f"{path}: time", raw, time.column, partial(read_times, time=time))

    def _split(self, path: str, raw: pa.Table, split: SplitByColumn) -> tuple[pa.Array, Check]:
        """Uint8 place in `EXAMPLES`, 0 where the value names no split."""
        names = [getattr(split, name) for name in EXAMPLES]
        as_text = partial(to_tokens, dtype="string")
        values, _ = of_column(f"{path}: split.column", raw, split.column, as_text)
        place = pc.index_in(values, value_set=pa.array(names))
        unknown = place.is_null().to_numpy(zero_copy_only=False)
        why = f"{split.column}: not one of {', '.join(names)}"
        return place.fill_null(0).cast(pa.uint8()), (unknown, why)


def labels(path: str, raw: pa.Table, label: Label) -> tuple[pa.Array, Check]:
    """Clicks, float32 with null where the row is to be dropped, and a check of bad ones.

    Args:
        path: of the file, for errors.
        raw: the columns of a reader.
        label: the column, and which values are clicks.
    """
    values, bad = of_column(f"{path}: label", raw, label.column, to_double)
    numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
    wrong = ~np.isfinite(numbers) if bad is None else ~np.isfinite(numbers) | bad
    if label.positive_above is None:
        wrong |= ~np.isin(numbers, [0.0, 1.0, *label.drop])
        why = "the label must be 0 or 1; label.positive_above makes clicks of stars or counts"
        clicks = numbers
    else:
        why, clicks = "the label must be a number", numbers > label.positive_above
    left_out = np.isin(numbers, label.drop) & ~wrong
    return pa.array(clicks.astype(np.float32), mask=left_out), (wrong, f"{label.column}: {why}")


def num_examples(counts: Mapping[str, int]) -> int:
    """Number of rows that are neither bad nor left out nor dropped."""
    left_out = counts.get("other_days", 0) + counts.get("held_out", 0)
    return counts["read"] - counts["bad"] - left_out - counts["dropped"]


def add_up(pieces: Sequence[Staged], number: int) -> tuple[dict[str, int], dict[str, int]]:
    """Sums the counts, and the reasons of bad rows, of all pieces.

    Raises:
        DataError: some pieces are missing.
    """
    check_arrived("pieces of the log", len(pieces), number)
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for piece in pieces:
        counts.update(piece.counts)
        reasons.update(piece.reasons)
    return dict(counts), dict(reasons)


def set_aside_table(folder: str, name: str, rows: int, bad: list[BadRow]) -> dict[str, Any]:
    """Writes the bad rows of a joined table next to those of the events; returns its counts `rows`,
    `bad` and `bad_reasons`."""
    if bad:
        write_dead_letters(f"{folder}/dead_letters/{name}.jsonl", name, bad)
    return {"rows": rows, "bad": len(bad), "bad_reasons": tally(bad)}


def refuse_too_many_bad(
    name: str, logs: Mapping[str, Any], share: float, letters: str, kept: str | None = None
) -> None:
    """Checks that few rows are bad.

    Args:
        name: of the output.
        logs: `rows`, `bad` and `bad_reasons` of the events and the tables, by name.
        share: greatest share of bad rows.
        letters: the folder of the bad rows, whose first one is shown.
        kept: where this folder is for the user. Defaults to `letters`.

    Raises:
        DataError: more rows are bad.
    """
    for log, found in logs.items():
        if found["bad"] > share * found["rows"]:
            reasons = sorted(found["bad_reasons"].items(), key=lambda item: -item[1])
            worst = ", ".join(f"{why} ({count:,})" for why, count in reasons[:3])
            raise DataError(
                f"{name}: {found['bad']:,} of {found['rows']:,} rows of the {log} are bad, more "
                f"than max_bad_share = {share:g}; most often: {worst}"
                f"{_first_of(letters, reasons[0][0])}. They are in {kept or letters}"
            )


def _first_of(folder: str, why: str) -> str:
    """The first bad row of a reason, for an error; "" if none was written."""
    for path in files.matching(f"{glob.escape(folder)}/*.jsonl"):
        for line in files.read(path).splitlines():
            letter = json.loads(line)
            if letter["reason"] == why:
                row = f"{letter['source']}, row {letter['row']}"
                return f"; the first: {row}: {letter['text'][:LONGEST_SHOWN]}"
    return ""


def tally(bad: list[BadRow]) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for _, why, _ in bad:
        reasons[why] = reasons.get(why, 0) + 1
    return reasons


def write_dead_letters(path: str, source: str, bad: list[BadRow]) -> None:
    """Writes JSON Lines: `source`, `row` (from 0, as `row_id`), `reason`, and the raw row."""
    name = source.rpartition("/")[2]
    lines = [
        json.dumps(
            {"source": name, "row": number, "reason": why, "text": text[:1000]}, ensure_ascii=False
        )
        for number, why, text in bad
    ]
    files.write(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))


def write_staged(path: str, table: pa.Table, features: tuple[Any, ...]) -> None:
    """Writes string tokens as dictionary codes, so that counts and look-ups work on numbers."""
    for feature in features:
        name = feature.name
        is_token = isinstance(feature, Categorical) and feature.dtype == "string"
        if is_token and name in table.column_names:
            place = table.column_names.index(name)
            table = table.set_column(place, name, table[name].dictionary_encode())
    sink = pa.BufferOutputStream()
    feather.write_feather(table, sink, compression="uncompressed")
    files.write(path, sink.getvalue())


def read_staged(path: str, names: list[str] | None = None) -> pa.Table:
    return feather.read_table(pa.BufferReader(files.read(path)), columns=names)
