"""The raw values that a client sends: their dtypes and shapes, and what stands for none."""

from typing import Any

import tensorflow as tf

from tfctr.schema import MISSING_INT, Numeric

MISSING: dict[tf.DType, Any] = {tf.string: b"", tf.int64: MISSING_INT, tf.float32: float("nan")}
"""What stands for "no value", by the dtype of the raw tensor."""


def raw_dtype(feature: Any) -> tf.DType:
    """Of the tensor that a client sends: string, int64 or float32."""
    if isinstance(feature, Numeric):
        return tf.float32
    return tf.string if feature.dtype == "string" else tf.int64


def raw_spec(feature: Any, candidates: bool = False) -> tf.TensorSpec:
    """`[B]`, lists `[B, M]`; with `candidates` `[B, N]` and `[B, N, M]`.

    `M` is `max_length`, what is missing filled up by the client: TF Serving's batcher pads lists of
    unequal length with the first value of the tensor, which is a token.
    """
    shape: list[int | None] = [None, None] if candidates else [None]
    if feature.is_list:
        shape.append(feature.max_length)
    return tf.TensorSpec(shape, raw_dtype(feature), name=feature.name)
