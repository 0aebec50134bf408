"""Converts raw columns of any type to the typed columns of the features.

Each function returns `(values, bad)`: an Arrow array with null for a missing value, and a mask of
the rows whose value does not fit the feature (None if there are none); those are null too. The
result for a value depends only on this value, never on the rest of the column.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.data.one_value import (
    FALSE,
    LARGEST_FLOAT,
    TRUE,
    WHOLE,
    WHOLE_FLOATS,
    read_float,
    read_int,
)
from tfctr.schema import MISSING_INT, History, Numeric, Sequence, Text

Conformed: TypeAlias = tuple[pa.Array, np.ndarray | None]

EXACT_BELOW = {16: 2.0**11, 32: 2.0**24, 64: WHOLE_FLOATS}  # by the bits of a float


def conform(feature: Any, column: pa.Array) -> Conformed:
    """A raw column as the feature's type: string, int64, double, or a list of the first two.

    Raises:
        TypeError: the column's type cannot hold such values.
    """
    if feature.is_list:
        return _lists(feature, column)
    if isinstance(feature, Numeric):
        return to_double(column)
    if isinstance(feature, Text):
        return to_string(column)
    return to_tokens(column, feature.dtype)


def reason(feature: Any) -> str:
    """The reason of a row whose value `conform` marks as bad."""
    if isinstance(feature, Numeric):
        return "not a number"
    if isinstance(feature, Text):
        return "not UTF-8 text"
    if feature.dtype == "int":
        return "not a 64-bit integer"
    return "not UTF-8 text without line breaks, nor a number that is exact"


def to_tokens(column: pa.Array, dtype: str) -> Conformed:
    """Tokens of a vocabulary; a string token may not hold a line break, as its file cannot.

    One value is one token in every format: the booleans are 1 and 0, and `4.0` is 4.
    """
    if dtype == "int":
        return to_int(column)
    column = decoded(column)
    kind = column.type
    if pa.types.is_floating(kind):
        values, bad = _texts_of_floats(column)
    elif pa.types.is_decimal(kind) and kind.scale > 0:
        raise TypeError(
            f"type {kind}, whose values other formats write in other ways; integers or text are "
            "needed: store them so, or declare dtype: int, or kind: numeric"
        )
    else:
        values, bad = to_string(column)
    values = _in_one_spelling(values)
    if not _may_hold(values, b"\n", b"\r"):
        return values, bad
    broken = pc.match_substring_regex(values, r"[\r\n]").fill_null(False)
    return _without(values, broken), _either(bad, broken.to_numpy(zero_copy_only=False))


def _in_one_spelling(values: pa.Array) -> pa.Array:
    if _may_hold(values, b".0"):
        values = pc.replace_substring_regex(values, f"^{WHOLE}$", r"\1\2")
    if _may_hold(values, b"rue", b"RUE", b"alse", b"ALSE"):
        for texts, token in ((TRUE, "1"), (FALSE, "0")):
            values = pc.if_else(pc.is_in(values, value_set=pa.array(texts)), token, values)
    return values


def _texts_of_floats(column: pa.Array) -> Conformed:
    """The shortest text that is read back as the same number, as Python writes it; NaN is missing.

    A float that may stand for several integers is bad.
    """
    exact = EXACT_BELOW[column.type.bit_width]
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    column = _without(column, pc.is_nan(column))
    large = pc.greater_equal(pc.abs(column), pa.scalar(exact, column.type)).fill_null(False)
    codes = _without(column, large).dictionary_encode()
    texts = pa.array([str(number) for number in codes.dictionary.to_numpy()], pa.string())
    return texts.take(codes.indices), _mask(large)


def to_string(column: pa.Array) -> Conformed:
    """Text; empty text is a missing value. A date is written as in ISO 8601."""
    column = decoded(column)
    kind = column.type
    bad = None
    if pa.types.is_boolean(kind):
        return column.cast(pa.int8()).cast(pa.string()), None  # 0 and 1, as from JSON Lines
    if pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.string()), None
    if pa.types.is_date(kind):
        return column.cast(pa.date32()).cast(pa.string()), None
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        values, bad = _utf8(column.cast(pa.binary()))
    elif is_text(kind):
        values = column.cast(pa.string())
    else:
        raise _wrong(kind, "strings or integers")
    empty = pc.equal(pc.binary_length(values), 0)
    return (_without(values, empty) if pc.any(empty).as_py() else values), bad


def to_int(column: pa.Array) -> Conformed:
    """int64; `MISSING_INT` is a missing value."""
    column = decoded(column)
    kind = column.type
    bad = None
    if pa.types.is_floating(kind):
        doubles = column.cast(pa.float64())
        doubles = _without(doubles, pc.is_nan(doubles))
        small = pc.less(pc.abs(doubles), EXACT_BELOW[kind.bit_width])
        whole = pc.and_(small, pc.equal(doubles, pc.trunc(doubles))).fill_null(True)
        values, bad = _without(doubles, pc.invert(whole)).cast(pa.int64()), _mask(pc.invert(whole))
    elif pa.types.is_uint64(kind):
        large = pc.greater(column, pa.scalar(2**63 - 1, pa.uint64())).fill_null(False)
        values, bad = _without(column, large).cast(pa.int64()), _mask(large)
    elif pa.types.is_integer(kind) or pa.types.is_null(kind):
        values = column.cast(pa.int64())
    elif not _may_be_number(kind):
        raise _wrong(kind, "integers")
    else:
        texts, bad = to_string(column)
        # Arrow accepts hexadecimal digits; the other readers do not.
        values, worse = _parse(texts, pa.int64(), b"xX", r"^-?\d{1,18}$", read_int)
        bad = _either(bad, worse)
    missing = pc.equal(values, MISSING_INT)
    return (_without(values, missing) if pc.any(missing).as_py() else values), bad


def to_double(column: pa.Array) -> Conformed:
    """float64; NaN is a missing value, and what does not fit a float32 is infinite."""
    column = decoded(column)
    kind = column.type
    bad = None
    if pa.types.is_boolean(kind):
        values = column.cast(pa.int8()).cast(pa.float64())
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
        values = column.cast(pa.float64(), safe=False)
    elif not _may_be_number(kind):
        raise _wrong(kind, "numbers")
    else:
        texts, bad = to_string(column)
        # Arrow accepts "inf", "nan" and "nan(...)".
        values, worse = _parse(texts, pa.float64(), b"nN", r"^-?\d{1,15}(\.\d+)?$", read_float)
        bad = _either(bad, worse)
    values = _without(values, pc.is_nan(values))
    # A request to a model is of float32.
    large = pc.greater(pc.abs(values), LARGEST_FLOAT)
    if pc.any(large).as_py():
        values = pc.if_else(large, pc.multiply(pc.sign(values), np.inf), values)
    return values, bad


def _lists(feature: Any, column: pa.Array) -> Conformed:
    """Lists of tokens, cut to `max_length`; a text column is split at the separator.

    Missing values are left out, except in a history, where each is an event.
    """
    bad = None
    column = decoded(column)
    kind = column.type
    if pa.types.is_fixed_size_list(kind):
        column = column.cast(pa.list_(kind.value_type))
    elif not is_list(kind):
        if getattr(feature, "separator", None) is None:
            raise _wrong(kind, "lists")
        text, bad = to_tokens(column, "string") if pa.types.is_decimal(kind) else to_string(column)
        column = pc.split_pattern(text, feature.separator)
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    values, wrong = to_tokens(column.flatten(), feature.dtype)
    rows = np.repeat(np.arange(len(column)), lengths)
    if wrong is not None:
        mask = np.zeros(len(column), dtype=bool)
        mask[rows[wrong]] = True
        bad = _either(bad, mask)
    present = np.ones(len(values), bool)
    if not isinstance(feature, History):
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


def is_text(kind: pa.DataType) -> bool:
    """Whether values of the type are texts, maybe as bytes."""
    of_strings = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return of_strings or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def is_list(kind: pa.DataType) -> bool:
    """Whether values of the type are lists."""
    of_lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    of_views = pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    return of_lists or of_views or pa.types.is_fixed_size_list(kind)


def kind_of_tokens(kind: pa.DataType) -> str | None:
    """The kind of the type that tokens, or lists of them, are stored in: "integer", "float" or
    "text"; None for others, which are one value in every type."""
    if is_list(kind) or pa.types.is_dictionary(kind):
        return kind_of_tokens(kind.value_type)
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "float"
    return "text" if is_text(kind) else None


def decoded(column: pa.Array) -> pa.Array:
    """The values of dictionary codes and of views, which not all of Arrow's functions know."""
    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    if pa.types.is_string_view(column.type):
        return column.cast(pa.string())
    if pa.types.is_binary_view(column.type):
        return column.cast(pa.binary())
    return column


def _may_be_number(kind: pa.DataType) -> bool:
    """Of the types that are no numbers themselves: texts and decimals."""
    return pa.types.is_boolean(kind) or pa.types.is_decimal(kind) or is_text(kind)


def _wrong(kind: pa.DataType, needed: str) -> TypeError:
    """The error of a column's type, with a way out."""
    way_out = "store them so"
    if is_list(kind):
        way_out = "kinds of features for lists are multi_valued and sequence"
    elif pa.types.is_temporal(kind):
        way_out = "store what matters of it so, as its hour or weekday"
    return TypeError(f"type {kind}; {needed} are needed: {way_out}")


def _utf8(column: pa.Array) -> Conformed:
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


def _parse(
    texts: pa.Array,
    kind: pa.DataType,
    strange: bytes,
    plain: str,
    read: Callable[[str], Any],
) -> Conformed:
    """Numbers from text: all at once if Arrow can, else the unusual texts one by one.

    Blanks are a missing value.

    Args:
        texts: strings.
        kind: int64 or double.
        strange: bytes; a text that Arrow accepts and `read` refuses holds one of them.
        plain: a pattern of texts that both read in the same way.
        read: returns the number, or None if the text is not one.
    """
    if not _may_hold(texts, *(bytes([byte]) for byte in strange)):
        try:
            return texts.cast(kind), None
        except pa.ArrowInvalid:
            pass
    others = pc.invert(pc.match_substring_regex(texts, plain)).fill_null(False)
    values = _without(texts, others).cast(kind)
    places = np.flatnonzero(others.to_numpy(zero_copy_only=False))
    unusual = texts.take(pa.array(places)).to_pylist()
    numbers = [read(text) for text in unusual]
    values = pc.replace_with_mask(values, others, pa.array(numbers, kind))
    bad = np.zeros(len(texts), dtype=bool)
    of_none = [n is None and not t.isspace() for n, t in zip(numbers, unusual, strict=True)]
    bad[places[of_none]] = True
    return values, bad


def _may_hold(texts: pa.Array, *parts: bytes) -> bool:
    """False if no text contains one of the parts, found by a search in all their bytes."""
    buffer = texts.buffers()[2]
    if buffer is None:
        return False
    content = buffer.to_pybytes()
    return any(part in content for part in parts)


def _without(values: pa.Array, mask: pa.Array) -> pa.Array:
    return pc.if_else(mask, pa.scalar(None, values.type), values)


def _mask(flags: pa.Array) -> np.ndarray | None:
    """None if nothing is flagged."""
    return flags.to_numpy(zero_copy_only=False) if pc.any(flags).as_py() else None


def _either(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    if one is None or other is None:
        return other if one is None else one
    return one | other
