"""The raw values that a client sends: dtypes, shapes, and the values that mean "missing"."""

from typing import Any

import tensorflow as tf

from tfctr.schema import Numeric, Vector
from tfctr.serving import tensors

MISSING: dict[tf.DType, Any] = {
    tf.as_dtype(dtype): value for dtype, value in tensors.MISSING.items()
}
"""The value that means "missing", by the dtype of the raw tensor."""


def raw_dtype(feature: Any) -> tf.DType:
    """The dtype of the tensor that a client sends: string, int64 or float32."""
    if isinstance(feature, Numeric | Vector):
        return tf.float32
    return tf.string if feature.dtype == "string" else tf.int64


def raw_spec(feature: Any, candidates: bool = False) -> tf.TensorSpec:
    """A spec `[B]`, or `[B, M]` for lists; with `candidates`, `[B, N]` and `[B, N, M]`.

    `M` is `max_length`: the client pads each list with the missing value. TF Serving's batcher
    would pad shorter lists with the first value of the tensor, which is a token.
    """
    shape: list[int | None] = [None, None] if candidates else [None]
    if feature.is_list:
        shape.append(feature.max_length)
    return tf.TensorSpec(shape, raw_dtype(feature), name=feature.name)
