"""From raw pieces of a log to typed columns: joins, labels, and bad rows set aside."""

import glob
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import feather

from tfctr.config import ConfigError, DataConfig, SplitByColumn, SplitByFile
from tfctr.data import files
from tfctr.data.arrived import check_arrived
from tfctr.data.conform import conform, kind_of_tokens, reason, to_double, to_tokens
from tfctr.data.delimited import Rows
from tfctr.data.manifest import DataError
from tfctr.data.readers import Piece, Source, TypedReader, num_bytes
from tfctr.data.sources import matching, open_source
from tfctr.data.times import read_times
from tfctr.schema import Categorical, History, Numeric, Schema

ROW = "row_id"  # int64: the row's place in the log, over all files in order
TIME = "time"  # int64
LABEL = "label"  # float32: 1 click, 0 none
USER_KEY = "user_key"  # int64: identifies the user, also one out of vocabulary
SPLIT = "given_split"  # uint8 place in EXAMPLES, if the config says which column or file gives it
RESERVED = (ROW, TIME, LABEL, USER_KEY, SPLIT)
EXAMPLES = ("train", "valid", "test")  # the splits of every dataset

LONGEST_SHOWN = 200  # characters of a row in an error
LARGE_TABLE = 256 << 20  # bytes of its files; a larger table is not held in a worker's memory

BadRow: TypeAlias = tuple[int, str, str]  # (row, reason, the row as found)


@dataclass(frozen=True)
class JoinedTable:
    """The good rows of a table of users or items; keys are unique."""

    features: pa.Table  # `row_id`, the key and the features
    rows: int  # read
    bad: list[BadRow]


@dataclass(frozen=True)
class Staged:
    """A cleaned piece: its typed columns in a Feather file, and its counts."""

    index: int
    path: str
    rows: int
    counts: dict[str, int]  # read, bad, dropped, unmatched_users, unmatched_items, `not_finite`
    reasons: dict[str, int]  # of bad rows


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

    A history's column holds the row's own token (`event_column`). If histories hold all events,
    rows that `label.drop` leaves out are returned too; their label is null.

    Args:
        config: the data config.
        joins_large: if False, tables of more than `LARGE_TABLE` bytes are left out, and the rows
            have the keys for a later join. Defaults to True.

    Raises:
        ConfigError: no table of the source has a column that the config names.
    """

    def __init__(self, config: DataConfig, joins_large: bool = True) -> None:
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
        has_histories = any(isinstance(feature, History) for feature in schema)
        self.keeps_dropped = has_histories and config.history_events == "all"

    @cached_property
    def source(self) -> Source:
        return open_source(self.config.model_copy(update={"features": self.features}))

    @cached_property
    def features_by_table(self) -> dict[str, list[Any]]:
        """The features that are read from each table; events come first."""
        columns = {"events": self.source.events.names()}
        columns |= {name: reader.names() for name, (reader, _) in self.source.tables.items()}
        by_table: dict[str, list[Any]] = {name: [] for name in columns}
        for feature in self.features:
            column = feature.source_column
            home = next((name for name, names in columns.items() if column in names), None)
            if home is None:
                there = "; ".join(f"{name}: {', '.join(names)}" for name, names in columns.items())
                raise ConfigError(
                    f"features: {feature.name!r} reads column {column!r}, which is in no table; "
                    f"columns of {there}"
                )
            by_table[home].append(feature)
        needed = dict(self._no_features)
        needed |= {f"source.{name}.key": key for name, (_, key) in self.source.tables.items()}
        for key, column in needed.items():
            if column not in columns["events"]:
                raise ConfigError(
                    f"{key}: found {column!r}; columns of the events: "
                    f"{', '.join(columns['events'])}"
                )
        return by_table

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

    @cached_property
    def large(self) -> tuple[str, ...]:
        """Names of the tables that are left out."""
        if self.joins_large:
            return ()
        tables = self.source.tables.items()
        return tuple(name for name, (reader, _) in tables if num_bytes(reader) > LARGE_TABLE)

    @cached_property
    def tables(self) -> dict[str, JoinedTable]:
        """The joined tables by name, without large ones.

        Raises:
            ConfigError: a table has no good row.
        """
        return {name: self._load(name) for name in self.source.tables if name not in self.large}

    def _load(self, name: str) -> JoinedTable:
        reader, _ = self.source.tables[name]
        parts = [self.no_rows(name)]
        bad: list[BadRow] = []
        first = 0
        for piece in reader.pieces():
            found, spoilt = self.read_table(name, piece, first)
            parts.append(found)
            bad += spoilt
            first += reader.count(piece)
        kept, again = self.first_of_keys(name, pa.concat_tables(parts))
        bad = sorted(bad + again)
        check_not_empty(name, kept.num_rows, bad)
        return JoinedTable(kept, first, bad)

    def read_table(self, name: str, piece: Piece, first: int) -> tuple[pa.Table, list[BadRow]]:
        """The good rows of a table's piece, typed, with `row_id`, and its bad rows. `first`: the
        place of the piece's first row in the table."""
        reader, _ = self.source.tables[name]
        features = self.of_table(name)
        rows = reader.read(piece, _source_columns(features))
        columns, checks = typed(piece.path, rows.table, features, {self.key(name).name})
        found = set_aside(rows, columns, checks)
        return count_from(first, found), [(first + n, why, text) for n, why, text in rows.bad]

    def first_of_keys(self, name: str, table: pa.Table) -> tuple[pa.Table, list[BadRow]]:
        """The first row of each key, in the table's order, and the rows that repeat a key."""
        key, table = self.key(name), table.combine_chunks()
        keys = table[key.name].combine_chunks()
        again = pc.index_in(keys, value_set=keys).to_numpy() != np.arange(len(keys))
        why = f"{key.source_column}: an earlier row has the same key"
        shown = table.drop_columns([ROW])
        bad = [
            (table[ROW][i].as_py(), why, _shown(shown, i)) for i in np.flatnonzero(again).tolist()
        ]
        return table.filter(pa.array(~again)), bad

    def of_table(self, name: str) -> list[Any]:
        """A table's key, and the features that are read from it."""
        return [self.key(name), *self.features_by_table[name]]

    def no_rows(self, name: str) -> pa.Table:
        """An empty table like that of `read_table`."""
        empty = {f.name: conform(f, pa.array([], pa.binary()))[0] for f in self.of_table(name)}
        return pa.table({ROW: pa.array([], pa.int64()), **empty})

    def key(self, name: str) -> Categorical:
        """The join key, typed as the feature that reads the same column, if there is one."""
        column = self.source.tables[name][1]
        for feature in self.features:
            if isinstance(feature, Categorical) and feature.source_column == column:
                return feature
        # No feature of a config can have this name.
        return Categorical.model_construct(name=f"key of {name}", side="context", column=column)

    def clean(self, piece: Piece) -> tuple[pa.Table, Rows, dict[str, int]]:
        """Typed rows with `row_id` counted within the piece; the raw rows with all bad ones; and
        counts."""
        rows = self.source.events.read(piece, self._event_columns)
        counts = {"read": len(rows.numbers) + len(rows.bad)}
        columns, checks = self._typed_events(piece.path, rows.table)
        table = set_aside(rows, columns, checks)
        counts["bad"] = len(rows.bad)
        counts["dropped"] = table[LABEL].null_count  # values that the config leaves out
        if counts["dropped"] and not self.keeps_dropped:
            table = table.filter(table[LABEL].is_valid())
        for name, other in self.tables.items():
            table, counts[f"unmatched_{name}"] = self.join(name, table, other.features)
        numbers = [feature.name for feature in self.features if isinstance(feature, Numeric)]
        for name in (name for name in numbers if name in table.column_names):
            if infinite := pc.sum(pc.is_inf(table[name])).as_py():
                counts[not_finite(name)] = infinite
        return self.in_order(table, self.large), rows, counts

    @property
    def _event_features(self) -> list[Any]:
        """Those of the events, and the keys of the tables."""
        found = [*self.features_by_table["events"], *map(self.key, self.source.tables)]
        return list({feature.name: feature for feature in found}.values())

    @property
    def _event_columns(self) -> list[str]:
        return _unique([*self._no_features.values(), *_source_columns(self._event_features)])

    def _typed_events(self, path: str, raw: pa.Table) -> tuple[dict[str, pa.Array], list["Check"]]:
        """The events' columns, and checks that find their bad rows."""
        required = {self.config.user, self.config.item}
        required |= {self.key(name).name for name in self.source.tables}
        columns, checks = typed(path, raw, self._event_features, required)
        columns[LABEL], check = self._label(path, raw)
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
                features = self.of_table(name)
                types = dict(table.types(_source_columns(features)))
                for path, of_file in types.items():
                    typed(path, of_file.empty_table(), features, ())
                refuse_mixed_types(table, types, features)

    def join(self, name: str, table: pa.Table, other: pa.Table) -> tuple[pa.Table, int]:
        """The rows with a table's columns, and the number of rows without a match.

        Args:
            name: of the table.
            table: rows with its key. Dropped rows are not counted.
            other: rows of `read_table` with unique keys.
        """
        key = self.key(name).name
        keys, others = (found[key].combine_chunks() for found in (table, other))
        place = pc.index_in(keys, value_set=others)
        unmatched = pc.and_(place.is_null(), table[LABEL].combine_chunks().is_valid())
        for feature in self.features_by_table[name]:
            table = table.append_column(feature.name, other[feature.name].take(place))
        return table, pc.sum(unmatched).as_py() or 0

    def in_order(self, table: pa.Table, to_join: Sequence[str]) -> pa.Table:
        """`row_id`, `time`, `label`, features; then keys of tables that are joined later."""
        names = [ROW, TIME, LABEL, *([SPLIT] if SPLIT in table.column_names else [])]
        names += [f.name for f in self.features if f.name in table.column_names]
        names += [self.key(name).name for name in to_join]
        return table.select(_unique(names)).combine_chunks()

    def _label(self, path: str, raw: pa.Table) -> tuple[pa.Array, "Check"]:
        """float32, null where the row is to be dropped."""
        label = self.config.label
        values, bad = _of_column(f"{path}: label", raw, label.column, to_double)
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

    def _time(self, path: str, raw: pa.Table) -> tuple[pa.Array, Sequence["Check"]]:
        """int64 in the config's unit."""
        time = self.config.time
        if time is None:
            return pa.array(np.zeros(raw.num_rows, np.int64)), []
        return _of_column(f"{path}: time", raw, time.column, partial(read_times, time=time))

    def _split(self, path: str, raw: pa.Table, split: SplitByColumn) -> tuple[pa.Array, "Check"]:
        """Uint8 place in `EXAMPLES`, 0 where the value names no split."""
        names = [getattr(split, name) for name in EXAMPLES]
        as_text = partial(to_tokens, dtype="string")
        values, _ = _of_column(f"{path}: split.column", raw, split.column, as_text)
        place = pc.index_in(values, value_set=pa.array(names))
        unknown = place.is_null().to_numpy(zero_copy_only=False)
        why = f"{split.column}: not one of {', '.join(names)}"
        return place.fill_null(0).cast(pa.uint8()), (unknown, why)


Check: TypeAlias = tuple[np.ndarray | None, str]  # which rows are bad, and why


def _of_column(key: str, raw: pa.Table, name: str, conform: Callable[[pa.Array], Any]) -> Any:
    column = raw[name]
    try:
        return conform(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
    except TypeError as error:
        raise ConfigError(f"{key}: reads column {name!r} of {error}") from None


def typed(
    path: str, raw: pa.Table, features: list[Any], required: Any
) -> tuple[dict[str, pa.Array], list[Check]]:
    """The features' columns, and checks that find their bad rows.

    Args:
        path: of the file, for errors.
        raw: the columns of a reader.
        features: each is read from its `source_column`.
        required: names of features that must have a value in every row.

    Raises:
        ConfigError: a column whose type can hold no value of its feature.
    """
    columns: dict[str, pa.Array] = {}
    checks: list[Check] = []
    for feature in features:
        key, column = f"{path}: features: {feature.name!r}", feature.source_column
        values, bad = _of_column(key, raw, column, partial(conform, feature))
        columns[feature.name] = values
        checks.append((bad, f"{column}: {reason(feature)}"))
        if feature.name in required and values.null_count:
            missing = values.is_null().to_numpy(zero_copy_only=False)
            checks.append((missing, f"{column}: missing"))
    return columns, checks


def refuse_mixed_types(
    reader: TypedReader, types: Mapping[str, pa.Schema], features: Sequence[Any]
) -> None:
    """Checks that tokens of text are of one kind of type in all files of a table.

    An id that is an integer in one file and a double in another, as pandas writes it where one is
    missing, is no longer exact from 2^53 on; and the text "007" is not the integer 7.

    Args:
        reader: of the table.
        types: of each file, by its path.
        features: that are read from the table.

    Raises:
        ConfigError: they are of several. A column without values is of any type.
    """
    for feature in features:
        if getattr(feature, "dtype", None) != "string":
            continue
        column = feature.source_column
        first: tuple[str, pa.DataType] | None = None
        for path, of_file in types.items():
            here = of_file.field(column).type
            if kind_of_tokens(here) is None:
                continue
            if first is None or kind_of_tokens(first[1]) == kind_of_tokens(here):
                first = first or (path, here)
            elif not reader.is_missing(path, column):
                if not reader.is_missing(first[0], column):
                    raise ConfigError(
                        f"{path}: features: {feature.name!r}: column {column!r} is of type {here}, "
                        f"but {first[1]} in {first[0]}; declare dtype: int for integers, or store "
                        "one type in all files"
                    )
                first = (path, here)


def set_aside(rows: Rows, columns: dict[str, pa.Array], checks: list[Check]) -> pa.Table:
    """The good rows' columns, `row_id` first; bad rows are added to `rows.bad`.

    Args:
        rows: the rows of a reader.
        columns: typed, by name.
        checks: those of `typed`.
    """
    spoilt = np.zeros(len(rows.numbers), dtype=bool)
    for bad, why in checks:
        if bad is not None:
            for i in np.flatnonzero(bad & ~spoilt):
                rows.bad.append((int(rows.numbers[i]), why, _shown(rows.table, int(i))))
            spoilt |= bad
    rows.bad.sort()
    table = pa.table({ROW: pa.array(rows.numbers, pa.int64()), **columns})
    return table.filter(pa.array(~spoilt)) if spoilt.any() else table


def count_from(first: int, table: pa.Table) -> pa.Table:
    """`row_id` counted from the log's first row, not the piece's."""
    place = table.column_names.index(ROW)
    return table.set_column(place, ROW, pc.add(table[ROW], first))


def _shown(raw: pa.Table, i: int) -> str:
    values = {name: raw[name][i].as_py() for name in raw.column_names}
    texts = {
        name: value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
        for name, value in values.items()
    }
    return json.dumps(texts, ensure_ascii=False)


def _source_columns(features: Sequence[Any]) -> list[str]:
    return _unique([feature.source_column for feature in features])


def _unique(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


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


def check_not_empty(name: str, rows: int, bad: list[BadRow]) -> None:
    """Checks that a table has good rows.

    Raises:
        ConfigError: it has none.
    """
    if not rows:
        why = f"; the first of {len(bad)} bad ones: {bad[0][1]}" if bad else ""
        raise ConfigError(f"source.{name}: the table has no good row{why}")


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
