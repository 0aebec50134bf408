"""Raw columns, of whatever type a source has, as the typed columns of the features.

Each function gives `(values, bad)`: an Arrow array with null for "no value", and a mask of the
rows whose value cannot be what the feature says (None if there are none); those are null too.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.schema import MISSING_INT, Numeric, Sequence, Text

Conformed: TypeAlias = tuple[pa.Array, np.ndarray | None]

INTEGER = r"^\s*[+-]?\d{1,19}\s*$"
DECIMAL = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?\s*$"


def conform(feature: Any, column: pa.Array) -> Conformed:
    """A raw column as the feature's type: string, int64, double, or a list of the first two.

    Raises:
        TypeError: the column's type can hold no such value at all.
    """
    if feature.is_list:
        return _lists(feature, column)
    if isinstance(feature, Numeric):
        return to_double(column)
    if isinstance(feature, Text):
        return to_string(column)
    return to_tokens(column, feature.dtype)


def reason(feature: Any) -> str:
    """What is wrong with a row whose value `conform` calls bad."""
    if isinstance(feature, Numeric):
        return "not a finite number"
    if isinstance(feature, Text):
        return "not UTF-8 text"
    if feature.dtype == "int":
        return "not a 64-bit integer"
    return "not UTF-8 text without line breaks"


def to_tokens(column: pa.Array, dtype: str) -> Conformed:
    """Tokens of a vocabulary; a string token may not hold a line break, as its file cannot."""
    if dtype == "int":
        return to_int(column)
    values, bad = to_string(column)
    broken = pc.match_substring_regex(values, r"[\r\n]")
    if pc.any(broken).as_py():
        lines = broken.fill_null(False)
        values = pc.if_else(lines, pa.scalar(None, pa.string()), values)
        bad = _either(bad, lines.to_numpy(zero_copy_only=False))
    return values, bad


def to_string(column: pa.Array) -> Conformed:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return to_string(column.dictionary_decode())
    if pa.types.is_null(kind):
        return column.cast(pa.string()), None
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return column.cast(pa.string()), None
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        values, bad = _decode(column.cast(pa.binary()))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values, bad = column.cast(pa.string()), None
    else:
        raise TypeError(f"type {kind}; strings or integers are needed")
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values), bad


def to_int(column: pa.Array) -> Conformed:
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        largest = pa.scalar(2**63 - 1, pa.uint64())  # only unsigned ones can be beyond it
        values, bad = _cast(column, pa.int64(), lambda unsigned: pc.less_equal(unsigned, largest))
        none = pa.scalar(None, pa.int64())
        return pc.if_else(pc.equal(values, MISSING_INT), none, values), bad
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_floating(kind):
        raise TypeError(f"type {kind}; integers are needed")
    values, bad = to_string(column)
    numbers, worse = _cast(values, pa.int64(), _integer)
    return numbers, _either(bad, worse)


def to_double(column: pa.Array) -> Conformed:
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        if not pa.types.is_null(kind):
            column, bad = to_string(column)
            values, worse = _cast(column, pa.float64(), _decimal)
            values, worst = _finite(values)
            return values, _either(_either(bad, worse), worst)
    values = column.cast(pa.float64())
    return _finite(pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values))


def _finite(values: pa.Array) -> Conformed:
    """What does not fit a float32 is bad: the model would see infinity."""
    huge = pc.greater(pc.abs(values), float(np.finfo(np.float32).max)).fill_null(False)
    if not pc.any(huge).as_py():
        return values, None
    return pc.if_else(huge, pa.scalar(None, pa.float64()), values), huge.to_numpy(False)


def _lists(feature: Any, column: pa.Array) -> Conformed:
    """Lists of tokens, cut to `max_length`; a text column is split at the separator."""
    bad = None
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        text, bad = to_string(column)
        column = pc.split_pattern(text, feature.separator)
    elif pa.types.is_large_list(column.type):
        column = column.cast(pa.list_(column.type.value_type))
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    values, wrong = to_tokens(column.flatten(), feature.dtype)
    rows = np.repeat(np.arange(len(column)), lengths)
    if wrong is not None:
        mask = np.zeros(len(column), dtype=bool)
        mask[rows[wrong]] = True
        bad = _either(bad, mask)
    present = values.is_valid().to_numpy(zero_copy_only=False)
    if bad is not None:
        present &= ~bad[rows]
    counts = np.bincount(rows[present], minlength=len(column))
    ends = np.cumsum(counts)
    place = np.arange(len(rows[present])) - np.repeat(ends - counts, counts)
    if isinstance(feature, Sequence):
        place = place - np.repeat(np.maximum(counts - feature.max_length, 0), counts)
    kept = (place >= 0) & (place < feature.max_length)
    values = values.filter(pa.array(present)).filter(pa.array(kept))
    offsets = np.concatenate([[0], np.cumsum(np.minimum(counts, feature.max_length))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values), bad


def _decode(column: pa.Array) -> Conformed:
    try:
        return column.cast(pa.string()), None
    except pa.ArrowInvalid:
        texts: list[str | None] = []
        bad = np.zeros(len(column), dtype=bool)
        for i, raw in enumerate(column.to_pylist()):
            try:
                texts.append(None if raw is None else raw.decode())
            except UnicodeDecodeError:
                texts.append(None)
                bad[i] = True
        return pa.array(texts, pa.string()), bad


def _decimal(text: pa.Array) -> pa.Array:
    return pc.match_substring_regex(text, DECIMAL)


def _integer(text: pa.Array) -> pa.Array:
    """Of 19 digits some are beyond 64 bits: those few are looked at one by one."""
    fits = pc.match_substring_regex(text, INTEGER)
    long = pc.and_(fits, pc.greater(pc.utf8_length(text), 18)).fill_null(False)
    for i in np.flatnonzero(long.to_numpy(zero_copy_only=False)):
        if not -(2**63) < int(text[i].as_py()) < 2**63:
            mask = np.zeros(len(text), dtype=bool)
            mask[i] = True
            fits = pc.and_(fits, pa.array(~mask))
    return fits


def _cast(column: pa.Array, kind: pa.DataType, valid: Callable[[pa.Array], pa.Array]) -> Conformed:
    """Casts all at once if it can, else the rows that `valid` allows."""
    try:
        return column.cast(kind), None
    except pa.ArrowInvalid:
        good = valid(column).fill_null(True)
        kept = pc.if_else(good, column, pa.scalar(None, column.type))
        if pa.types.is_string(kept.type):
            # Arrow takes no plus sign for an integer.
            kept = pc.utf8_ltrim(pc.utf8_trim_whitespace(kept), "+")
        return kept.cast(kind), ~good.to_numpy(zero_copy_only=False)


def _either(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    if one is None or other is None:
        return other if one is None else one
    return one | other
