"""The features of a data config: `defaults` for all of them, and names by pattern.

A name with `*`, `?` or `[ab]` stands for all columns that fit it and that no other feature reads.
The columns are those of the files, so a config with a pattern is read where its files are. Nothing
else ever sees a pattern: digests, manifests and workers get the features as if they were written
out.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args, get_origin

from pydantic import create_model

from tfctr.schema import FILLED_IN, REQUEST_KINDS, Feature, History, Strict

WILDCARD = re.compile(r"[*?[]")
# What says which feature it is, and what is measured.
NO_DEFAULTS = {"name", "kind", "column", "shares", "boundaries", *FILLED_IN}

_union, _ = get_args(Feature)
KINDS: dict[str, type[Strict]] = {
    get_args(cls.model_fields["kind"].annotation)[0]: cls
    for cls in get_args(_union)
    if cls not in REQUEST_KINDS
}


def _keys(cls: type[Strict]) -> dict[str, Any]:
    """The keys of a kind that may have a default: the user does not write a fixed one."""
    return {
        key: field
        for key, field in cls.model_fields.items()
        if key not in NO_DEFAULTS and len(_allowed(field.annotation)) != 1
    }


def _allowed(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


_Defaults: type[Strict] = create_model(  # type: ignore[call-overload]
    "_Defaults",
    __base__=Strict,
    **{
        key: (field.rebuild_annotation(), None)
        for cls in reversed(KINDS.values())
        for key, field in _keys(cls).items()
    },
)


def read_defaults(value: Any) -> dict[str, Any]:
    """The validated `defaults` of a config: values by key."""
    return _Defaults.model_validate(value).model_dump(exclude_unset=True)


def with_defaults(features: Sequence[Any], defaults: dict[str, Any]) -> list[Any]:
    """Raw features, with the defaults that fit their kinds and that they do not give themselves.

    Raises:
        ValueError: a default fits no feature.
    """
    unused, filled = dict.fromkeys(defaults), []
    for feature in features:
        if isinstance(feature, dict) and (cls := KINDS.get(str(feature.get("kind")))):
            fits = {key: value for key, value in defaults.items() if key in _keys(cls)}
            if feature.get("shares") is not None:  # it has the dtype of the shared feature
                fits.pop("dtype", None)
            for key in fits:
                unused.pop(key, None)
            feature = fits | feature
        filled.append(feature)
    if unused:
        key = next(iter(unused))
        kinds = ", ".join(kind for kind, cls in KINDS.items() if key in _keys(cls))
        raise ValueError(
            f"defaults.{key}: no feature takes it; it is for the kinds {kinds}: leave it out"
        )
    return filled


def is_pattern(feature: Any) -> bool:
    """Whether a raw feature stands for several columns."""
    name = feature.get("name") if isinstance(feature, dict) else None
    return isinstance(name, str) and WILDCARD.search(name) is not None


def name_of(column: str) -> str:
    """The name of the feature that reads a column: other signs than letters and digits are `_`.

    name_of("user-item_affinity_3") == "user_item_affinity_3"
    """
    return re.sub(r"[^A-Za-z0-9_]", "_", column)


def written_out(
    features: Sequence[Any],
    validate: Callable[[Any], Sequence[Any]],
    columns: Callable[[], Iterable[str]],
    without: Iterable[str],
) -> list[Any]:
    """Validated features, with one for each column that a pattern stands for, in the files' order.

    A column that fits two patterns belongs to the first.

    Args:
        features: raw ones, some with a pattern for a name.
        validate: of a list of raw features.
        columns: returns the columns of the events and of the joined tables.
        without: columns that no pattern stands for, such as the label's.

    Raises:
        ValueError: a pattern stands for no column, or for one that can't be a feature's name.
    """
    patterns: dict[int, str] = {}
    for i, feature in enumerate(features):
        if is_pattern(feature):
            patterns[i] = feature["name"]
            if feature.get("column") is not None:
                raise ValueError(
                    f"{patterns[i]!r} stands for several columns; leave out column: "
                    f"{feature['column']!r}"
                )
    # First under names that are valid, so that an error is that of the feature in the file.
    named = [f | {"name": f"Pattern{i}"} if i in patterns else f for i, f in enumerate(features)]
    checked = validate(named)
    # A history reads a column of earlier rows, which another feature may read of this one.
    read = {
        feature.source_column
        for i, feature in enumerate(checked)
        if i not in patterns and not isinstance(feature, History)
    }
    left = [column for column in dict.fromkeys(columns()) if column not in {*read, *without}]
    found: list[Any] = []
    for i, feature in enumerate(checked):
        if i not in patterns:
            found.append(feature)
            continue
        pattern = patterns[i]
        fits = [column for column in left if fnmatchcase(column, pattern)]
        if not fits:
            raise ValueError(
                f"{pattern!r} fits no column that no other feature reads; those are: "
                f"{', '.join(left) or 'none'}"
            )
        for column in fits:
            name = name_of(column)
            if not re.match(r"[A-Za-z]", name):
                raise ValueError(
                    f"{pattern!r} fits the column {column!r}, which is no name of a feature; "
                    f"give it one of its own: {{name: ..., column: {column!r}, ...}}"
                )
            given = {"name": name} | ({"column": column} if name != column else {})
            found.append(feature.model_copy(update=given))
        left = [column for column in left if column not in fits]
    return found
