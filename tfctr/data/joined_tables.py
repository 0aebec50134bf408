"""The tables of users and items that are joined to rows by key."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.config import ConfigError
from tfctr.data.conform import conform
from tfctr.data.readers import Piece, Source, num_bytes
from tfctr.data.typed_rows import ROW, BadRow, count_from, set_aside, shown, typed
from tfctr.schema import Categorical

LARGE_TABLE = 256 << 20  # bytes of its files; a larger table is not held in a worker's memory


@dataclass(frozen=True)
class JoinedTable:
    """The good rows of a table of users or items; keys are unique."""

    features: pa.Table  # `row_id`, the key and the features
    rows: int  # read
    bad: list[BadRow]


class JoinedTables:
    """Which features are read from the events and which from the joined tables, and the join.

    Args:
        source: the events and the tables.
        features: each is read from the first of the events, the users and the items that has its
            column.
        joins_large: if False, tables of more than `LARGE_TABLE` bytes are left out, and the rows
            have the keys for a later join. Defaults to True.
    """

    def __init__(self, source: Source, features: Sequence[Any], joins_large: bool = True) -> None:
        self.source = source
        self.features = features
        self.joins_large = joins_large

    @cached_property
    def features_by_table(self) -> dict[str, list[Any]]:
        """The features that are read from each table; events come first.

        Raises:
            ConfigError: no table has a feature's column.
        """
        columns = {"events": self.source.events.names()}
        columns |= {name: reader.names() for name, (reader, _) in self.source.tables.items()}
        by_table: dict[str, list[Any]] = {name: [] for name in columns}
        for feature in self.features:
            column = feature.source_column
            home = next((name for name, names in columns.items() if column in names), None)
            if home is None:
                there = "; ".join(f"{name}: {', '.join(names)}" for name, names in columns.items())
                plain = {n.strip().lower(): n for names in columns.values() for n in names}
                near = difflib.get_close_matches(column.strip().lower(), plain, n=1)
                hint = f" (did you mean {plain[near[0]]!r}?)" if near else ""
                raise ConfigError(
                    f"features: {feature.name!r} reads column {column!r}, which is in no "
                    f"table{hint}; columns of {there}"
                )
            by_table[home].append(feature)
        return by_table

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
        rows = reader.read(piece, list(dict.fromkeys(f.source_column for f in features)))
        columns, checks = typed(piece.path, rows.table, features, {self.key(name).name})
        found = set_aside(rows, columns, checks)
        return count_from(first, found), [(first + n, why, text) for n, why, text in rows.bad]

    def first_of_keys(self, name: str, table: pa.Table) -> tuple[pa.Table, list[BadRow]]:
        """The first row of each key, in the table's order, and the rows that repeat a key."""
        key, table = self.key(name), table.combine_chunks()
        keys = table[key.name].combine_chunks()
        again = ~is_first(keys)
        why = f"{key.source_column}: an earlier row has the same key"
        columns = table.drop_columns([ROW])
        bad = [
            (table[ROW][i].as_py(), why, shown(columns, i)) for i in np.flatnonzero(again).tolist()
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

    def join(self, name: str, table: pa.Table, other: pa.Table) -> tuple[pa.Table, pa.Array]:
        """The rows with a table's columns, and which of them have no match, bool `[N]`.

        Args:
            name: of the table.
            table: rows with its key.
            other: rows of `read_table` with unique keys.
        """
        key = self.key(name).name
        keys, others = (found[key].combine_chunks() for found in (table, other))
        place = pc.index_in(keys, value_set=others)
        for feature in self.features_by_table[name]:
            table = table.append_column(feature.name, other[feature.name].take(place))
        return table, place.is_null()


def is_first(keys: pa.Array) -> np.ndarray:
    """bool `[N]`: no earlier row has the same key."""
    first: np.ndarray = pc.index_in(keys, value_set=keys).to_numpy()
    return first == np.arange(len(keys))


def check_not_empty(name: str, rows: int, bad: list[BadRow]) -> None:
    """Checks that a table has good rows.

    Raises:
        ConfigError: it has none.
    """
    if not rows:
        why = f"; the first of {len(bad)} bad ones: {bad[0][1]}" if bad else ""
        raise ConfigError(f"source.{name}: the table has no good row{why}")
