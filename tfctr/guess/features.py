"""The features of a log and its tables, a line of the config each."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import groupby

import numpy as np
import pyarrow.compute as pc

from tfctr.config.features import WILDCARD, name_of
from tfctr.data.clean import RESERVED
from tfctr.guess import columns, names, roles
from tfctr.guess.columns import Column, Guess
from tfctr.guess.written import Line

GROUP = 4  # numbered columns that are written as one pattern
HISTORY = 50  # events


@dataclass
class Features:
    """Makes the lines of features, with names that are free.

    Attributes:
        kept, left_out: lines.
        names: of the features, by column.
    """

    kept: list[Line] = field(default_factory=list)
    left_out: list[Line] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def add(self, column: str, guess: Guess, side: str, question: str = "") -> None:
        """A feature, or a line that is left out."""
        # The order of an item's values is hardly that of time.
        own = "" if guess.keys.get("kind") == "multi_valued" and side == "item" else guess.question
        asked = " ".join(filter(None, (own, question)))
        if not guess.keys or not column:
            why = guess.left_out if column else "it has no name to read it by"
            self.left_out.append(Line(None, {"column": column}, why, is_off=True))
            return
        name = self._free(column)
        given = {"name": name} | ({"column": column} if name != column else {})
        value = {**given, "kind": guess.keys["kind"], "side": side, **guess.keys}
        if guess.left_out:
            self.left_out.append(Line(None, value, guess.left_out, is_off=True))
        else:
            self.names[column] = name
            self.kept.append(Line(None, value, asked))

    def add_group(self, pattern: str, guess: Guess, side: str, question: str) -> None:
        """Columns that fit a pattern."""
        value = {"name": pattern, "kind": guess.keys["kind"], "side": side, **guess.keys}
        self.kept.append(Line(None, value, question))

    def _free(self, column: str) -> str:
        name = name_of(column)
        if not re.match("[A-Za-z]", name):
            name = f"column_{name.lstrip('_')}".rstrip("_")
        while name in (*RESERVED, *self.names.values()):
            name += "_"
        return name


def of_events(
    found: Features,
    events: Mapping[str, Column],
    sides: roles.Sides,
    clicks: np.ndarray,
    others: Sequence[str],
    taken: Sequence[str],
) -> None:
    """Adds the features that are read from the events, the user and the item first.

    Args:
        found: the lines are added to it.
        events: the sampled columns by name.
        sides: of the log.
        clicks: bool `[N]`, the labels of the sampled rows.
        others: the columns of the joined tables, and those that hold objects.
        taken: columns of the label, the time and the split.
    """
    owners = {"user": sides.user, "item": sides.item}
    for side, owner in owners.items():
        if owner is not None:
            found.add(owner.name, columns.key(owner), side)
    ids = [owner.name for owner in owners.values() if owner is not None]
    rest = [column for name, column in events.items() if name not in (*ids, *taken)]
    free = [column.name for column in rest] + [name for name in others if name not in events]
    for group in _groups(rest):
        if (whole := _as_one(group, free, clicks)) is not None:
            pattern, guess = whole
            told = [sides.of(column) for column in group]
            sides_told = [side for side, _ in told]
            side = max(sides_told, key=sides_told.count)
            question = next((asked for of, asked in told if of == side), "")
            found.add_group(pattern, guess, side, question)
            continue
        for column in group:
            guess, (side, question) = _guess(column, sides, clicks, found.names), sides.of(column)
            if guess.keys.get("kind") == "sequence":
                side, question = "user", ""
            found.add(column.name, guess, side, question)


def of_table(
    found: Features, table: Mapping[str, Column], side: str, hidden: Sequence[str]
) -> None:
    """Adds the features of a joined table, but for its columns that are read from elsewhere."""
    for name, column in table.items():
        if name not in hidden:
            found.add(name, columns.feature(column, side), side)


def history(found: Features, item: str) -> Line:
    """A feature that most backbones do without."""
    name = found.names[item]
    value = {"name": f"hist_{name}", "kind": "history", "shares": name, "max_length": HISTORY}
    return Line(None, value, "the user's earlier events, for din, dien and bst", is_off=True)


def _guess(
    column: Column, sides: roles.Sides, clicks: np.ndarray, features: Mapping[str, str]
) -> Guess:
    guess = columns.feature(column)
    if guess.left_out:
        return guess
    if names.outcome(column.name) is not None and column.is_flag:
        why = "another outcome? a feature must be known before the click"
        return Guess(guess.keys, left_out=why)
    if roles.tells(column, clicks):
        why = "it nearly tells the label: is it known before the click?"
        return Guess(guess.keys, left_out=why)
    item = sides.item
    if guess.keys["kind"] == "multi_valued" and item is not None:
        separator = guess.keys.get("separator", "|")
        lists = column.values if column.is_list else pc.split_pattern(column.tokens, separator)
        elements = Column("", lists.flatten()).tokens
        if pc.mean(pc.is_in(pc.unique(elements), value_set=item.tokens)).as_py() >= 0.5:
            keys = {key: value for key, value in guess.keys.items() if key != "dtype"}
            shared = {"kind": "sequence", "shares": features[item.name]}
            question = "items in the order of time, oldest first?"
            return Guess(keys | shared, question=question)
    return guess


def _groups(found: Sequence[Column]) -> Iterator[list[Column]]:
    """Neighbours that differ in a number at the end of their names; others alone."""

    def stem(column: Column) -> str:
        return re.sub(r"\d+$", "", column.name)

    for _, group in groupby(found, stem):
        yield list(group)


def _as_one(
    group: Sequence[Column], free: Sequence[str], clicks: np.ndarray
) -> tuple[str, Guess] | None:
    """The pattern for numbered columns, if it fits them alone, and their guess."""
    stem = re.sub(r"\d+$", "", group[0].name)
    pattern, named = f"{stem}*", [column.name for column in group]
    is_named = re.match("[A-Za-z]", stem) and not WILDCARD.search(stem)
    if len(group) < GROUP or not is_named:
        return None
    if [name for name in free if fnmatchcase(name, pattern)] != named:
        return None
    if any(roles.tells(column, clicks) for column in group):
        return None
    guess = columns.alike(group)
    return None if guess is None else (pattern, guess)
