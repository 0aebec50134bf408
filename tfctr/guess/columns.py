"""What a column holds, and the feature that it could be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.config import Time
from tfctr.data.conform import is_list, is_text, to_double, to_int, to_string, to_tokens
from tfctr.data.times import readings
from tfctr.guess import names

FITS = 0.99  # share of the values that must be of a type; the others are bad rows
FEW = 50  # distinct values of whole numbers that name something
LARGE = 10**9  # larger whole numbers are hashes or ids
LONG_TAIL = 20  # spreads from the median to the largest number
EACH_ITS_OWN = 0.99  # share of distinct values in a column that identifies the row
LONGEST = 50  # values of a list
A_TIME = "a time: store what matters of it, as its hour or weekday"
INNER_SEPARATORS = ("|", ";", ",")


@dataclass(frozen=True)
class Guess:
    """A feature's keys without name and side, why it is left out, and a question."""

    keys: Mapping[str, Any] = field(default_factory=dict)
    left_out: str = ""
    question: str = ""


@dataclass(frozen=True)
class Column:
    """The values of a column in a sample."""

    name: str
    values: Any  # an Arrow array

    @cached_property
    def is_list(self) -> bool:
        return is_list(self.values.type)

    @cached_property
    def tokens(self) -> Any:
        """One string per row, null if missing; None if the type can hold no tokens."""
        try:
            if not self.is_list:
                found, bad = to_tokens(self.values, "string")
                if bad is None or not is_text(self.values.type):
                    return found
                # A text may hold line breaks, which a token may not.
                return pc.coalesce(found, to_string(self.values)[0])
            parts, _ = to_tokens(self.values.flatten(), "string")
        except TypeError:
            return None
        lengths = pc.fill_null(pc.list_value_length(self.values), 0)
        offsets = np.concatenate([[0], np.cumsum(lengths.to_numpy(zero_copy_only=False))])
        lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), parts.fill_null(""))
        texts = pc.binary_join(lists, "\x1f")
        return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)

    @cached_property
    def codes(self) -> np.ndarray:
        """Equal for equal values, int64 `[N]`; -1 where missing."""
        if self.tokens is None:
            values = self.values.dictionary_encode()
        else:
            values = self.tokens.dictionary_encode()
        return values.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)

    @cached_property
    def rows(self) -> int:
        """With a value."""
        return int((self.codes >= 0).sum())

    @cached_property
    def distinct(self) -> int:
        return int(self.codes.max(initial=-1)) + 1

    @cached_property
    def numbers(self) -> np.ndarray | None:
        """float64 `[N]`, NaN where missing or not finite; None if these are no numbers."""
        try:
            values, bad = to_double(self.values)
        except TypeError:
            return None
        present = self.rows
        if bad is not None and bad.sum() > (1 - FITS) * max(present, 1):
            return None
        numbers: np.ndarray = values.to_numpy(zero_copy_only=False).astype(np.float64)
        numbers = np.where(np.isfinite(numbers), numbers, np.nan)
        return None if np.isnan(numbers).all() else numbers

    @cached_property
    def is_whole(self) -> bool:
        """Whether all its numbers are integers that are written as such."""
        if self.numbers is None or self.tokens is None:
            return False
        tokens = pc.unique(self.tokens)
        _, bad = to_int(tokens)
        plain = pc.match_substring_regex(tokens, r"^-?(0|[1-9]\d*)$")
        return (bad is None or not bad.any()) and bool(pc.all(plain).as_py())

    @cached_property
    def is_code(self) -> bool:
        """Whether it holds digits that are no numbers: 00501, or more than an integer has."""
        tokens = pc.unique(self.tokens.drop_null())
        of_digits = pc.all(pc.match_substring_regex(tokens, r"^\d+$")).as_py()
        return bool(of_digits) and not self.is_whole

    @cached_property
    def is_of_floats(self) -> bool:
        """Whether its numbers are written as fractions, and not because some are missing."""
        if self.rows < len(self.values):
            return False
        if is_text(self.values.type):
            return bool(pc.all(pc.match_substring(self.values.cast(pa.binary()), ".")).as_py())
        return bool(pa.types.is_floating(self.values.type))

    @cached_property
    def set_of_numbers(self) -> set[float]:
        if self.numbers is None:
            return set()
        return {float(number) for number in np.unique(self.numbers[~np.isnan(self.numbers)])}

    @cached_property
    def is_flag(self) -> bool:
        """Whether its values are 0 and 1, or true and false; there may be only one of them."""
        return bool(self.set_of_numbers) and self.set_of_numbers <= {0.0, 1.0}

    @cached_property
    def readings(self) -> list[Time]:
        """The ways to read it as times."""
        return [] if self.is_list else readings(self.values, self.name)

    @cached_property
    def is_constant(self) -> bool:
        return self.distinct == 1 and bool((self.codes == 0).all())

    @cached_property
    def is_key(self) -> bool:
        """Whether each row has a value of its own, but for a few bad ones."""
        return self.distinct >= EACH_ITS_OWN * len(self.values)

    @cached_property
    def identifies_rows(self) -> bool:
        """Whether each value is of one row, which is no accident of a few rows."""
        return self.rows >= 20 and self.distinct >= EACH_ITS_OWN * self.rows


def key(column: Column) -> Guess:
    """The feature of a user or an item."""
    return Guess({"kind": "categorical"} | _dtype(column))


def feature(column: Column, what: str = "row") -> Guess:
    """The feature that a column could be.

    Args:
        column: in a sample.
        what: one line of its table is: a row, a user, an item.
    """
    if not column.rows:
        return Guess(left_out="no value in the sample that can be read")
    if column.tokens is None and (column.is_list or column.numbers is None):
        return Guess(left_out=A_TIME if column.readings else f"of type {column.values.type}")
    if column.is_list:
        guess = _lists(column.values, {})
    else:
        guess = _text(column, what) if column.numbers is None else _number(column, what)
    if column.is_constant:
        return Guess(guess.keys, left_out="it is the same in all sampled rows")
    return guess


def _number(column: Column, what: str) -> Guess:
    assert column.numbers is not None
    if column.tokens is not None and column.is_code:
        return Guess({"kind": "categorical"}, left_out=_own(column, what))
    if not column.is_whole or (column.is_of_floats and not column.is_flag):
        return Guess({"kind": "numeric"} | _transform(column.numbers))
    token = {"kind": "categorical"} | _dtype(column)
    if column.is_flag:
        return Guess(token)
    if column.readings and names.place(column.name, names.TIMES) is not None:
        return Guess(left_out=A_TIME)
    if set(names.words(column.name)) & names.IDS or np.nanmax(column.numbers) >= LARGE:
        return Guess(token, left_out=_own(column, what))
    if column.distinct <= FEW and column.distinct <= column.rows / 4:
        question = f"{column.distinct} whole numbers: do they count something? then kind: numeric"
        return Guess(token, question=question if column.distinct > 10 else "")
    if column.identifies_rows and (np.diff(column.numbers) > 0).all():
        return Guess({"kind": "numeric"}, left_out=f"it numbers the {what}s")
    return Guess(
        {"kind": "numeric"} | _transform(column.numbers),
        question="do these numbers name something? then kind: categorical",
    )


def _own(column: Column, what: str) -> str:
    return f"each {what} has a value of its own" if column.identifies_rows else ""


def _text(column: Column, what: str) -> Guess:
    if column.readings:
        return Guess(left_out=A_TIME)
    distinct = pc.unique(column.tokens.drop_null())
    for separator in INNER_SEPARATORS:
        parts = pc.split_pattern(distinct, separator)
        elements = parts.flatten()
        flat = pc.unique(elements)
        is_set = separator == "|" or len(flat) <= max(len(distinct), len(elements) / 2)
        holds = pc.mean(pc.match_substring(distinct, separator)).as_py()
        if holds >= 0.1 and is_set and pc.mean(pc.utf8_length(flat)).as_py() <= 30:
            return _lists(parts, {} if separator == "|" else {"separator": separator})
    of_words = pc.mean(pc.match_substring_regex(distinct, r"\S\s+\S")).as_py()
    of_lines = pc.mean(pc.match_substring_regex(distinct, r"[\r\n]")).as_py()
    if of_lines > 1 - FITS or (of_words >= 0.5 and len(distinct) >= FEW):
        return Guess(
            {"kind": "text"},
            question="for language models only; is it a label of few values? then categorical",
        )
    return Guess({"kind": "categorical"}, left_out=_own(column, what))


def _lists(values: Any, keys: dict[str, Any]) -> Guess:
    longest = pc.max(pc.list_value_length(values)).as_py() or 1
    question = "in the order of time, oldest first? then kind: sequence"
    if longest > LONGEST:
        question = f"the longest has {longest} values; are so many needed? {question}"
    elements = Column("", values.flatten())
    if elements.numbers is not None and not elements.is_whole:
        return Guess(left_out="lists of numbers; a feature is one number")
    given = {"kind": "multi_valued", **_dtype(elements), **keys}
    return Guess(given | {"max_length": min(longest, LONGEST)}, question=question)


def _dtype(column: Column) -> dict[str, Any]:
    return {"dtype": "int"} if column.is_whole else {}


def _transform(numbers: np.ndarray) -> dict[str, Any]:
    """Of a long tail the logarithm."""
    finite = numbers[~np.isnan(numbers)]
    low, middle, high = np.quantile(finite, [0.25, 0.5, 0.75])
    spread = high - low
    if spread == 0:
        spread = np.std(finite)
    is_long = np.abs(finite - middle).max() > LONG_TAIL * spread
    return {"transform": "log"} if is_long else {}


def alike(columns: Sequence[Column]) -> Guess | None:
    """One guess for columns that are numbered, such as I1 to I13; None if they are of two kinds
    that no value has in common."""
    found = [feature(column) for column in columns]
    for column, guess in zip(columns, found, strict=True):
        # What has no value here, or one, is like its neighbours.
        if column.is_list or (guess.left_out and column.rows and not column.is_constant):
            return None
    kept = [guess for guess in found if not guess.left_out]
    kinds = {guess.keys["kind"] for guess in kept}
    if kinds == {"categorical"}:
        of_int = all(guess.keys.get("dtype") == "int" for guess in kept)
        return Guess({"kind": "categorical"} | ({"dtype": "int"} if of_int else {}))
    if "numeric" in kinds and kinds <= {"numeric", "categorical"}:
        if not all(column.numbers is not None or not column.rows for column in columns):
            return None
        logs = sum("transform" in guess.keys for guess in kept)
        return Guess({"kind": "numeric"} | ({"transform": "log"} if 2 * logs > len(kept) else {}))
    return None
