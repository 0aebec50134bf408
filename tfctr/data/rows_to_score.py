"""Rows to score, read as `prepare` reads a log: the same values, joins and bad rows."""

import dataclasses
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.config import ConfigError, DataConfig, FileSource, Label
from tfctr.config.data import several
from tfctr.data import files
from tfctr.data.clean import LABEL, labels
from tfctr.data.delimited import Delimited
from tfctr.data.formats import SEPARATORS, extension
from tfctr.data.joined_tables import JoinedTables
from tfctr.data.readers import (
    DelimitedReader,
    JsonLinesReader,
    ParquetReader,
    Piece,
    Reader,
    Source,
)
from tfctr.data.sources import delimited, open_source
from tfctr.data.typed_rows import ROW, BadRow, set_aside, typed
from tfctr.schema import Categorical, History, Numeric, Text


@dataclass(frozen=True)
class ReadRows:
    """The good rows of a piece, and what became of the others."""

    # `row_id`, the row's place in the piece; `label` if it is read; then the features, typed
    features: pa.Table
    kept: pa.Table  # further columns, as the file has them
    bad: list[BadRow]
    unmatched: dict[str, int]  # rows without a match, by joined table


class RowsToScore:
    """Reads the features of a model from files of raw rows.

    A feature is read from its `column`, or else from a column of the feature's name. A history is a
    list under its own name. What the rows do not have is read from the joined tables of a config.

    Args:
        patterns: paths, URIs or globs of files of one kind: .parquet, .csv, .tsv or .jsonl.
        features: of the model.
        config: a data config. Its tables are joined, and rows in files that are named like its
            events (`.csv`, `.dat`, ...) are read with its separator, encoding and columns.
        label: read beside the features; None: the rows have none.
        required: names of features that must have a value in every row.

    Attributes:
        missing: the columns of features that neither the rows nor a table have; such features are
            not read.
        unread: the columns that no feature reads.

    Raises:
        ConfigError: no file; files of several kinds; rows without the key of a table, or the label.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        features: Iterable[Any],
        config: DataConfig | None = None,
        label: Label | None = None,
        required: Collection[str] = (),
    ) -> None:
        self.label = label
        self.required = required
        found = (path for pattern in patterns for path in files.matching(pattern))
        self.paths = tuple(dict.fromkeys(found))
        if not self.paths:
            raise ConfigError(f"rows: no file matches {', '.join(patterns)}")
        reader = _reader(self.paths, config)
        self.names = reader.names()
        if label is not None and label.column not in self.names:
            raise ConfigError(
                f"label: found {label.column!r}; columns of the rows: {', '.join(self.names)}"
            )
        tables = _tables(config, self.paths) if config else {}
        of_tables = {name for table, _ in tables.values() for name in table.names()}
        read: list[Any] = []
        self.missing: list[str] = []
        for feature in features:
            as_read = _as_read(feature, self.names, of_tables)
            if as_read is None:
                is_history = isinstance(feature, History)
                self.missing.append(feature.name if is_history else feature.source_column)
            else:
                read.append(as_read)
        if isinstance(reader, JsonLinesReader):
            lists = {f.source_column: f.separator for f in read if f.is_list}
            reader = dataclasses.replace(reader, separators=lists)
        self.reader: Any = reader
        by_table = JoinedTables(Source(reader, tables), read).features_by_table
        needed = {name: table for name, table in tables.items() if by_table[name]}
        for name, (_, key) in needed.items():
            if key not in self.names:
                raise ConfigError(
                    f"rows: no column {key!r}, the key of source.{name}; columns: "
                    f"{', '.join(self.names)}"
                )
        self.joined = JoinedTables(Source(reader, needed), read)
        columns = {f.source_column for f in by_table["events"]}
        columns |= {key for _, key in needed.values()}
        self.unread = [name for name in self.names if name not in columns]

    @property
    def first_line(self) -> int:
        """The number, from 1, of the line with the first row."""
        has_header = isinstance(self.reader, DelimitedReader) and not self.reader.format.columns
        return 2 if has_header else 1

    def fingerprint(self) -> list[list[Any]]:
        """Of the files of rows, then of the tables; see `Source.fingerprint`."""
        return self.joined.source.fingerprint()

    def read(self, piece: Piece, keep: Sequence[str] = ()) -> ReadRows:
        """The rows of a piece of `reader`.

        Args:
            piece: one of `reader.pieces()`.
            keep: columns to return as the file has them. Text files have no types: there a column
                that a feature reads as one integer is int64, as one number double; others are text.
        """
        joined = self.joined
        events = joined.features_by_table["events"]
        keys = [joined.key(name) for name in joined.source.tables]
        is_typed = isinstance(self.reader, ParquetReader)
        texts = {} if is_typed else self._as_texts(keep)
        needed = {f.name: f for f in [*events, *keys, *texts.values()]}.values()
        label = [self.label.column] if self.label else []
        wanted = dict.fromkeys([*(f.source_column for f in needed), *label, *keep])
        rows = self.reader.read(piece, list(wanted))
        columns, checks = typed(piece.path, rows.table, list(needed), self.required)
        if self.label:
            columns[LABEL], check = labels(piece.path, rows.table, self.label)
            checks.append(check)
        table = set_aside(rows, columns, checks)
        places = pa.array(np.searchsorted(rows.numbers, table[ROW].to_numpy()))
        kept: dict[str, Any] = {}
        for name in keep:
            kept[name] = table[texts[name].name] if name in texts else rows.table[name].take(places)
            if kept[name].type == pa.list_(pa.binary()) and not is_typed:
                kept[name] = kept[name].cast(pa.list_(pa.string()))
        unmatched: dict[str, int] = {}
        for name, other in joined.tables.items():
            table, without = joined.join(name, table, other.features)
            unmatched[name] = pc.sum(without).as_py() or 0
        names = [ROW, *([LABEL] if self.label else []), *(f.name for f in joined.features)]
        features = table.select(names).combine_chunks()
        return ReadRows(features, pa.table(kept), rows.bad, unmatched)

    def _as_texts(self, keep: Sequence[str]) -> dict[str, Any]:
        """What columns of a text file are read as, to be kept; lists are kept as they are."""
        lists = getattr(self.reader, "separators", {})
        numbers = {
            f.source_column: f
            for f in self.joined.features_by_table["events"]
            if isinstance(f, Numeric) or (isinstance(f, Categorical) and f.dtype == "int")
        }
        # No feature can have this name.
        text = Text.model_construct
        return {
            name: numbers.get(name) or text(name=f"text of {name}", side="context", column=name)
            for name in keep
            if name not in lists
        }


class _GivenHistory(History):
    """A history that a row holds: a list, or text with the values."""

    separator: ClassVar[str] = "|"  # type: ignore[misc]


@dataclass(frozen=True)
class _JsonRows(JsonLinesReader):
    """Keeps a list or an object that no feature reads as its JSON, and has no list for a missing
    value: in a history it would be one event."""

    def _value(self, name: str, value: Any) -> Any:
        if name in self.separators:
            is_missing = value is None or value == "" or value != value
            return None if is_missing else super()._value(name, value)
        if isinstance(value, list | dict):
            return json.dumps(value).encode()
        return super()._value(name, value)


def _as_read(feature: Any, names: Sequence[str], of_tables: Collection[str]) -> Any:
    """The feature with the column that it is read from; None if there is none."""
    if isinstance(feature, History):
        given = _GivenHistory.model_construct(**dict(feature) | {"column": None})
        return given if feature.name in names else None
    if feature.source_column in names:
        return feature
    if feature.name in names:
        return feature.model_copy(update={"column": None})
    return feature if feature.source_column in of_tables else None


def _reader(paths: tuple[str, ...], config: DataConfig | None) -> Reader:
    kinds = {extension(path) for path in paths}
    source: Any = config.source if config else None
    is_csv = isinstance(source, FileSource) and source.format == "csv"
    if is_csv and kinds <= {extension(path) for path in several(source.events)}:
        columns = tuple(source.columns) if source.columns else None
        return DelimitedReader(paths, delimited(source, paths[0], columns))
    if kinds == {".parquet"}:
        return ParquetReader(paths)
    if kinds == {".jsonl"}:
        return _JsonRows(paths)
    if len(kinds) == 1 and (separator := SEPARATORS.get(*kinds)):
        return DelimitedReader(paths, Delimited(separator))
    raise ConfigError(
        f"rows: found {', '.join(sorted(kinds)) or 'no suffix'}; give files of one kind: .parquet, "
        ".csv, .tsv or .jsonl"
    )


def _tables(config: DataConfig, paths: tuple[str, ...]) -> dict[str, tuple[Reader, str]]:
    """The joined tables of a config: the rows stand in for its log, which need not be there."""
    source = config.source
    if isinstance(source, FileSource):
        here = [path if "://" in path else str(Path.cwd() / path) for path in paths]
        source = source.model_copy(update={"events": tuple(here), "columns": None})
    return open_source(config.model_copy(update={"source": source})).tables
