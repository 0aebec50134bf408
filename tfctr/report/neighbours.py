"""Items that a model has put close to one another."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tfctr.data.vocabulary import Vocabulary
from tfctr.layers.field_embedding import FieldEmbedding
from tfctr.report.profile import text_of_items
from tfctr.schema import FIRST_TOKEN_ID, Categorical

SHOWN = 5  # items, and neighbours of each
LEAST = 5  # of the sampled rows; vectors of rarer items are close to what they were at random


class Neighbours(NamedTuple):
    """An item and those whose vectors have the greatest cosine with its own.

    Attributes:
        item: text.
        rows: int, the sampled training rows that it has.
        nearest: `(text, cosine)`, the nearest first.
    """

    item: str
    rows: int
    nearest: list[tuple[str, float]]


def neighbours(
    model: Any, data: Any, rows: Mapping[str, np.ndarray], item: str | None
) -> list[Neighbours] | str:
    """The neighbours of a few items, from the most frequent to rarer ones; or why there are none.

    Args:
        model: a `tfctr.models.ClickModel`.
        data: its `tfctr.data.Dataset`.
        rows: of `samples`, those for training.
        item: the name of the item's feature, if the data has one.
    """
    if item is None:
        return "the data config does not name the item"
    fields = getattr(model.innermost(), "fields", None)
    if not isinstance(fields, FieldEmbedding) or item not in [f.name for f in fields.schema.inputs]:
        return f"the model has no embedding of {item}"
    feature = fields.schema[item]
    if not isinstance(feature, Categorical) or fields.dim < 2:
        return f"the model's embedding of {item} has no directions to compare"
    texts = text_of_items(data.schema)
    counts = np.bincount(rows[item], minlength=feature.num_ids)
    counts[:FIRST_TOKEN_ID] = 0
    ids = np.flatnonzero(counts >= LEAST)
    if len(ids) <= SHOWN:
        return f"fewer than {SHOWN + 1} items have {LEAST} of {len(rows[item]):,} training rows"
    ids = ids[np.argsort(-counts[ids], kind="stable")]
    vectors = np.asarray(fields.rows(item, ids))
    chosen = np.unique(np.geomspace(1, len(ids), SHOWN, endpoint=False).astype(int)) - 1
    places, cosines = nearest(vectors, chosen, SHOWN)
    named = {place: ids[place] for place in {*chosen.tolist(), *places.ravel().tolist()}}
    text = _texts(data, feature, rows, texts, named)
    return [
        Neighbours(
            text[int(of)],
            int(counts[ids[of]]),
            [(text[int(i)], float(cosine)) for i, cosine in zip(found, close, strict=True)],
        )
        for of, found, close in zip(chosen, places, cosines, strict=True)
    ]


def nearest(vectors: np.ndarray, of: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The places `[Q, k]` of the vectors with the greatest cosine with some of them, which are not
    their own neighbours, and the cosines `[Q, k]`.

    Args:
        vectors: `[N, D]`, `N > k`.
        of: places `[Q]`.
        k: int.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    cosines = units[of] @ units.T
    cosines[np.arange(len(of)), of] = -np.inf
    places = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return places, np.take_along_axis(cosines, places, axis=1)


def _texts(
    data: Any,
    feature: Categorical,
    rows: Mapping[str, np.ndarray],
    texts: list[str],
    named: Mapping[int, int],
) -> dict[int, str]:
    """The text of each item, or its token where the data have no text of items."""
    tokens = Vocabulary.open(data.vocabulary_file(feature.vocabulary), feature.dtype).tokens
    found = {}
    for place, id_ in named.items():
        token = str(tokens[int(id_) - FIRST_TOKEN_ID].as_py())
        found[place] = token
        if texts:
            first = int(np.argmax(rows[feature.name] == id_))
            text = rows[texts[0]][first].decode("utf-8", "replace")
            found[place] = f"{text} [{token}]" if text else token
    return found
