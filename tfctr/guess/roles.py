"""Which columns are the label, the time, the user and the item; the sides of the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfctr.config import ConfigError, Time
from tfctr.guess import names
from tfctr.guess.columns import Column

REPEATED = 20  # rows of users (items) seen before that are needed to tell a side
CERTAIN = 0.02  # a column that leaves less of the label open is an outcome, not a feature
MANY_TIMES = 10  # distinct ones; a split by time needs a few
SHARES = (0.8, 0.9)  # of the rows, where validation and test begin


@dataclass(frozen=True)
class Role:
    """A column with a role: its name, the config's other keys, and a question."""

    column: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    question: str = ""


def listed(columns: Sequence[str]) -> str:
    return ", ".join(columns[:8]) + (", ..." if len(columns) > 8 else "")


def label(columns: Mapping[str, Column], log: str) -> Role:
    """The label: a column of 0 and 1, else one of stars.

    Raises:
        ConfigError: none could be it.
    """
    flags = [
        c for c in columns.values() if c.is_flag and (len(c.set_of_numbers) == 2 or _no_click(c))
    ]
    flags.sort(key=lambda c: (names.outcome(c.name) is None, _no_click(c), _place(c)))
    stars = [c for c in columns.values() if _is_stars(c)]
    stars.sort(key=lambda c: _or_last(names.place(c.name, names.STARS)))
    named = bool(flags) and names.outcome(flags[0].name) is not None
    of_stars = bool(stars) and names.place(stars[0].name, names.STARS) is not None
    if flags and (named or not of_stars):
        asked = [c.name for c in flags if not named or names.outcome(c.name) is not None]
        question = _which(asked, "label") or ("" if named else "is it the label?")
        if _no_click(flags[0]):
            question += f"{' ' if question else ''}the sample holds no click; are there some?"
        return Role(flags[0].name, {}, question)
    if stars:
        values = sorted(stars[0].set_of_numbers)
        above = max(value for value in values if value <= 0.6 * values[-1])
        number = int(above) if above == int(above) else above
        question = f"is more than {number:g} of {values[-1]:g} a click? and is {number:g} neither? "
        question += f"then drop: [{number:g}]"
        if len(stars) > 1 or not of_stars:
            question = f"{_which([c.name for c in stars], 'label') or 'is it stars?'} {question}"
        return Role(stars[0].name, {"positive_above": number}, question)
    raise ConfigError(f"{log}: no plausible label: {_why_none(columns)}")


def _why_none(columns: Mapping[str, Column]) -> str:
    for column in columns.values():
        if names.outcome(column.name) is not None and column.rows:
            tokens = [] if column.tokens is None else column.tokens.drop_null().to_pylist()
            if column.set_of_numbers == {1.0}:
                return (
                    f"{column.name!r} holds only 1; a model of clicks also needs the rows that "
                    "were shown and not clicked, with 0"
                )
            return (
                f"{column.name!r} holds {listed(sorted(map(repr, {*tokens})))}; write 0 and 1, or "
                "true and false"
            )
    return (
        "no column holds 0 and 1, or stars such as 1 to 5; add one. Columns: "
        f"{listed(list(columns))}"
    )


def _no_click(column: Column) -> bool:
    """Whether it is named as a label and holds 0 only: a click is rare."""
    return column.set_of_numbers == {0.0} and names.outcome(column.name) is not None


def _is_stars(column: Column) -> bool:
    """Few numbers up to 10, in steps of a half."""
    values = np.array(sorted(column.set_of_numbers))
    if not 3 <= len(values) <= 11 or column.distinct > len(values):
        return False
    is_scale = values[0] >= 0 and values[-1] <= 10 and (values * 2 % 1 == 0).all()
    return bool(is_scale and (values[0] <= 0.6 * values[-1]))


def _which(candidates: Sequence[str], role: str) -> str:
    if len(candidates) < 2:
        return ""
    return f"{len(candidates)} columns could be the {role}: {listed(candidates)}; is it this one?"


def _place(column: Column) -> float:
    return _or_last(names.outcome(column.name))


def _or_last(place: int | None) -> float:
    return float("inf") if place is None else place


def time(columns: Mapping[str, Column]) -> Role | None:
    """The time; None if no column is one, or it has too few values to split by."""
    found = [c for c in columns.values() if c.readings and not _is_id(c)]
    if not found:
        return next((Role(c.name) for c in columns.values() if _is_clock(c)), None)
    of_times = [c for c in found if names.place(c.name, names.TIMES) is not None] or found
    # The finest one tells the order best.
    best = max(of_times, key=lambda c: c.distinct)
    others = [c.name for c in sorted(found, key=lambda c: c is not best)]
    question = _which(others, "time")
    first, *rest = best.readings
    if rest:
        question += f"{' ' if question else ''}or is it {listed([_shown(t) for t in rest])}?"
    return Role(best.name, first.model_dump(exclude_defaults=True, exclude={"column"}), question)


def _shown(time: Time) -> str:
    return f"format: {time.format}" if time.format else f"unit: {time.unit}"


def _is_id(column: Column) -> bool:
    """By its name: ids may be as large as seconds are."""
    if names.place(column.name, names.TIMES) is not None:
        return False
    is_owner = any(names.identity(column.name, k) is not None for k in (names.USERS, names.ITEMS))
    return is_owner or bool({*names.words(column.name)} & names.IDS)


def _is_clock(column: Column) -> bool:
    """Whether whole numbers, which are no dates, count up and are named as a time."""
    if names.place(column.name, names.TIMES) is None or not column.is_whole:
        return False
    numbers = column.numbers
    is_up = numbers is not None and (np.diff(numbers) >= 0).all() and numbers[0] >= 0
    return bool(is_up and column.rows == len(column.values) and column.distinct >= MANY_TIMES)


def splits_by(moments: np.ndarray) -> bool:
    """Whether a split by time leaves rows in each part: those of one time stay together."""
    ordered = np.sort(moments)
    valid, test = (ordered[int(share * len(ordered))] for share in SHARES)
    return bool(ordered[0] < valid < test)


def who(
    columns: Mapping[str, Column], known: tuple[str, ...], role: str, taken: Sequence[str]
) -> Role | None:
    """The user or the item, by name."""
    found = {
        c.name: place
        for c in columns.values()
        if (place := names.identity(c.name, known)) is not None
        and c.name not in taken
        and not c.is_list
        and c.tokens is not None
        and c.distinct > 2
        and (c.numbers is None or c.is_whole)
    }
    ranked = sorted(found, key=lambda name: (found[name], "id" not in names.words(name)))
    return Role(ranked[0], {}, _which(ranked, role)) if ranked else None


@dataclass(frozen=True)
class Sides:
    """The side of each column of the events, by the values where users and items repeat."""

    user: Column | None
    item: Column | None

    def of(self, column: Column) -> tuple[str, str]:
        """The side, and a question."""
        by_name = names.about(column.name)
        told = [
            side
            for side, owner in (("user", self.user), ("item", self.item))
            if owner is not None and _belongs(column, owner)
        ]
        if len(told) == 1:
            return told[0], ""
        if len(told) == 2:
            side = by_name or "item"
            return side, "it is the same in all rows of a user, and of an item; which side is it?"
        owner = {"user": self.user, "item": self.item}.get(by_name or "")
        if by_name and (owner is None or not _repeats(column, owner)):
            return by_name, f"by its name; is it of the {by_name}?"
        unclear = [
            side
            for side, owner in (("user", self.user), ("item", self.item))
            if owner is not None and not _repeats(column, owner)
        ]
        if unclear:
            where = " and ".join(f"{side}s" for side in unclear)
            return "context", f"too few {where} repeat in the sample to tell the side; is it this?"
        return "context", ""


def _repeats(column: Column, owner: Column) -> bool:
    both = (column.codes >= 0) & (owner.codes >= 0)
    return bool(both.sum() - len(np.unique(owner.codes[both])) >= REPEATED)


def _belongs(column: Column, owner: Column) -> bool:
    """Whether all rows of a user (an item) have one value, if any."""
    both = (column.codes >= 0) & (owner.codes >= 0)
    if column.distinct < 2 or not _repeats(column, owner):
        return False
    pairs = np.unique(np.stack([owner.codes[both], column.codes[both]]), axis=1)
    return bool(pairs.shape[1] == len(np.unique(owner.codes[both])))


def tells(column: Column, clicks: np.ndarray) -> bool:
    """Whether a column nearly determines the label, as what is known only afterwards does.

    Args:
        column: in the sample.
        clicks: bool `[N]`, the labels.
    """
    groups = column.codes + 1
    if column.numbers is not None and column.distinct > 20:
        # Twenty ranges of equal counts, and one for a missing value.
        edges = np.nanquantile(column.numbers, np.linspace(0, 1, 21)[1:-1])
        groups = np.where(np.isnan(column.numbers), 0, 1 + np.searchsorted(edges, column.numbers))
    rows = np.bincount(groups)
    positives = np.bincount(groups, clicks)
    if len(clicks) < 20 * np.count_nonzero(rows):
        return False
    left = np.minimum(positives, rows - positives).sum()
    at_first = min(clicks.sum(), len(clicks) - clicks.sum())
    return bool(at_first >= REPEATED and left < CERTAIN * at_first)
