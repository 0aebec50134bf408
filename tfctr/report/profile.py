"""What the features of a dataset hold, and whether later rows hold the same."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tfctr.data.vocabulary import Vocabulary
from tfctr.report.sample import sample
from tfctr.schema import FIRST_TOKEN_ID, OOV_ID, PAD_ID, TOKEN_KINDS, Schema, Text

ROWS = 50_000  # of each split, about
TOP = 5  # values that are shown
FREQUENT = 20  # tokens with a bin of their own
QUANTILES = 10  # bins of a number
SPLITS = ("train", "valid", "test")


class FeatureProfile(NamedTuple):
    """What a feature holds.

    Attributes:
        name, kind, side: of the feature.
        cardinality: int, the tokens of its vocabulary; None of a number.
        missing: share of the training rows without a value.
        unknown: by split, share of the values that are out of vocabulary; empty of a number.
        top: `(token, share of the training values)`, the most frequent first.
        quantiles: of the training rows, the least, first quartile, median, third quartile and
            greatest number; empty of tokens.
        drift: by later split, `drift` from the training rows.
    """

    name: str
    kind: str
    side: str
    cardinality: int | None
    missing: float
    unknown: Mapping[str, float]
    top: list[tuple[str, float]]
    quantiles: list[float]
    drift: Mapping[str, float]


def samples(data: Any, rows: int = ROWS) -> dict[str, dict[str, np.ndarray]]:
    """By split, columns of a sample of rows: the features, and of training rows also the text of
    items, if there is one.

    Args:
        data: a `tfctr.data.Dataset`.
        rows: int. Rows of each split, at most.
    """
    names = [feature.name for feature in data.schema if not isinstance(feature, Text)]
    more = {"train": text_of_items(data.schema)}
    splits = [split for split in SPLITS if data.num_rows(split)]
    return {split: sample(data, split, names + more.get(split, []), rows) for split in splits}


def text_of_items(schema: Schema) -> list[str]:
    """The name of the first text of items, in a list; empty if there is none."""
    return [f.name for f in schema if isinstance(f, Text) and f.side == "item"][:1]


def profile(data: Any, columns: Mapping[str, Mapping[str, np.ndarray]]) -> list[FeatureProfile]:
    """Profiles of all features but texts, in the schema's order.

    Args:
        data: a `tfctr.data.Dataset`.
        columns: its `samples`.
    """
    names = [feature.name for feature in data.schema if not isinstance(feature, Text)]
    return [
        _of_feature(data, data.schema[name], {split: of[name] for split, of in columns.items()})
        for name in names
    ]


def _of_feature(data: Any, feature: Any, columns: Mapping[str, np.ndarray]) -> FeatureProfile:
    train = columns["train"]
    later = {split: values for split, values in columns.items() if split != "train"}
    common: dict[str, Any] = {"name": feature.name, "kind": feature.kind, "side": feature.side}
    if isinstance(feature, TOKEN_KINDS):
        values = {split: tokens_of(rows) for split, rows in columns.items()}
        counts = {split: token_counts(ids) for split, ids in values.items()}
        known = values["train"][values["train"] >= FIRST_TOKEN_ID]
        return FeatureProfile(
            **common,
            cardinality=feature.num_ids - FIRST_TOKEN_ID,
            missing=float(np.mean(_is_missing(train))),
            unknown={split: float(np.mean(ids == OOV_ID)) for split, ids in values.items()},
            top=_top(data, feature, known, len(values["train"])),
            quantiles=[],
            drift={split: drift(counts["train"], counts[split]) for split in later},
        )
    there = train[np.isfinite(train)]
    inner = np.arange(1, QUANTILES) / QUANTILES
    edges = np.unique(np.quantile(there, inner)) if len(there) else np.zeros(0)
    counts = {split: number_counts(rows, edges) for split, rows in columns.items()}
    return FeatureProfile(
        **common,
        cardinality=None,
        missing=float(np.mean(_is_missing(train))),
        unknown={},
        top=[],
        quantiles=np.quantile(there, [0, 0.25, 0.5, 0.75, 1]).tolist() if len(there) else [],
        drift={split: drift(counts["train"], counts[split]) for split in later},
    )


def _is_missing(rows: np.ndarray) -> np.ndarray:
    if rows.ndim == 2:
        return np.asarray((rows == PAD_ID).all(axis=1))
    return ~np.isfinite(rows) if rows.dtype.kind == "f" else rows == PAD_ID


def tokens_of(rows: np.ndarray) -> np.ndarray:
    """The ids of all values of rows `[N]` or `[N, M]`; a row without any is one `PAD_ID`."""
    if rows.ndim == 1:
        return rows
    return np.concatenate([rows[rows != PAD_ID], np.zeros(_is_missing(rows).sum(), rows.dtype)])


def token_counts(ids: np.ndarray) -> np.ndarray:
    """How many ids `[N]` are missing, unknown, each of the `FREQUENT` first tokens, or others."""
    last = FIRST_TOKEN_ID + FREQUENT
    return np.bincount(np.minimum(ids, last), minlength=last + 1)


def number_counts(numbers: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """How many numbers `[N]` are missing, or in each of the ranges between `edges [E]`: `[E + 2]`;
    an edge belongs to the range above it."""
    bins = np.searchsorted(edges, numbers, side="right") + 1
    return np.bincount(np.where(np.isfinite(numbers), bins, 0), minlength=len(edges) + 2)


def drift(first: np.ndarray, second: np.ndarray) -> float:
    """The Jensen-Shannon distance of two distributions, from 0, the same, to 1, nothing in common.

    The root of the mean of the two relative entropies, in bits, to the mixture of both (Lin, 1991).

    Args:
        first: counts `[B]` of bins.
        second: the same bins, of other rows.

    Example:
        >>> drift(np.array([5, 5, 0]), np.array([0, 0, 3]))
        1.0
    """
    from scipy.spatial.distance import jensenshannon

    return float(np.nan_to_num(jensenshannon(first, second, base=2)))  # rounding: a root of -1e-17


def _top(data: Any, feature: Any, known: np.ndarray, values: int) -> list[tuple[str, float]]:
    counts = np.bincount(known)
    order = np.argsort(-counts, kind="stable")[:TOP]
    path = data.vocabulary_file(feature.vocabulary)
    tokens = Vocabulary.open(path, feature.dtype).tokens
    return [
        (str(tokens[int(i) - FIRST_TOKEN_ID].as_py()), float(counts[i] / values))
        for i in order
        if counts[i]
    ]
