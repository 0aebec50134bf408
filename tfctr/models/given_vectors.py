"""Vectors that a request gives of tokens that a table does not have."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from tfctr.models.click_model import ClickModel
from tfctr.schema import Vector


def with_given(vectors: Any, features: Mapping[str, Any], name: str | None) -> Any:
    """A table's vectors, and where it has none those of a request.

    So a request cannot change what is known of a token.

    Args:
        vectors: of a table, float `[B, W]`; 0: it has none.
        features: of the request, or of rows of a dataset, which never have `name`.
        name: of the request's vectors, float `[B, W]`; None: no request has any. A vector with a
            number that is not finite is missing.

    Example:
        >>> given = {"title": np.array([[7.0], [7.0], [np.nan]])}  # doctest: +SKIP
        >>> with_given(np.array([[1.0], [0.0], [0.0]]), given, "title")  # doctest: +SKIP
        [[1.0], [7.0], [0.0]]
    """
    if name is None or name not in features:
        return vectors
    given = features[name]
    has_none = ops.all(vectors == 0, axis=1, keepdims=True)
    is_given = ops.all(ops.isfinite(given), axis=1, keepdims=True)
    return ops.where(ops.logical_and(has_none, is_given), given, vectors)


def joined(backbone: ClickModel, own: Sequence[Vector]) -> tuple[Any, ...]:
    """A student's `of_requests`: those of what it wraps, and its own, which may be the same ones.

    Raises:
        ValueError: two inputs of one name differ.
    """
    found = {feature.name: feature for feature in backbone.of_requests}
    for vector in own:
        other = found.setdefault(vector.name, vector)
        if other != vector:
            raise ValueError(
                f"in_request: {vector.name!r} is given twice: vectors of {vector.max_length} "
                f"numbers of the {vector.side}, and of {other.max_length} of the {other.side}"
            )
    return tuple(found.values())
