"""Raw rows as typed columns; bad rows are set aside with their reasons."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.config import ConfigError
from tfctr.data.conform import conform, kind_of_tokens, reason
from tfctr.data.delimited import Rows
from tfctr.data.readers import TypedReader

ROW = "row_id"  # int64: the row's place in the log, over all files in order

BadRow: TypeAlias = tuple[int, str, str]  # (row, reason, the row as found)
Check: TypeAlias = tuple[np.ndarray | None, str]  # which rows are bad, and why


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
        values, bad = of_column(key, raw, column, partial(conform, feature))
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
                rows.bad.append((int(rows.numbers[i]), why, shown(rows.table, int(i))))
            spoilt |= bad
    rows.bad.sort()
    table = pa.table({ROW: pa.array(rows.numbers, pa.int64()), **columns})
    return table.filter(pa.array(~spoilt)) if spoilt.any() else table


def count_from(first: int, table: pa.Table) -> pa.Table:
    """`row_id` counted from the log's first row, not the piece's."""
    place = table.column_names.index(ROW)
    return table.set_column(place, ROW, pc.add(table[ROW], first))


def of_column(key: str, raw: pa.Table, name: str, conform: Callable[[pa.Array], Any]) -> Any:
    """`conform` of a raw column.

    Raises:
        ConfigError: its type does not fit; the text names `key` and the column.
    """
    column = raw[name]
    try:
        return conform(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
    except TypeError as error:
        raise ConfigError(f"{key}: reads column {name!r} of {error}") from None


def shown(raw: pa.Table, i: int) -> str:
    """A raw row as JSON."""
    values = {name: raw[name][i].as_py() for name in raw.column_names}
    texts = {
        name: value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
        for name, value in values.items()
    }
    return json.dumps(texts, ensure_ascii=False)
