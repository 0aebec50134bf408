"""`TensorProto`s of requests to arrays, and arrays to those of answers."""

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from tfctr.serving.errors import ServingError, invalid

MAX_FILLED = 65_536
"""The largest size of a tensor that holds fewer values than its shape has elements."""

_VALUES = {
    tf.string: "string_val",
    tf.int64: "int64_val",
    tf.float32: "float_val",
}


def dtype_name(dtype: int) -> str:
    """Of a protobuf number, as TensorFlow's C++ writes it, e.g. "int64", "float"."""
    try:
        name = str(tf.as_dtype(dtype).name)
        return {"float32": "float", "float64": "double"}.get(name, name)
    except TypeError:
        return f"unknown ({dtype})"


def parse_tensor(alias: str, proto: tensor_pb2.TensorProto) -> np.ndarray:
    """The array of a request's tensor; what it takes in memory is bounded by what was sent.

    Raises:
        ServingError: INVALID_ARGUMENT, `tensor parsing error: ALIAS` and the reason.
    """
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or len(shape) > 8 or any(size < 0 for size in shape):
        raise _broken(alias, f"shape {shape if len(shape) <= 8 else 'of too many dimensions'}")
    dtype = tf.as_dtype(proto.dtype)
    wanted = math.prod(shape)
    if wanted == 0 and max(shape) > MAX_FILLED:  # nothing was sent, but rows would be made
        raise _broken(alias, f"shape {shape}")
    if proto.tensor_content:
        if dtype == tf.string:
            raise _broken(alias, "strings go into string_val, not tensor_content")
        found, rest = divmod(len(proto.tensor_content), dtype.size)
        if rest or found != wanted:
            raise _broken(alias, f"{len(proto.tensor_content)} bytes for shape {shape}")
        return np.frombuffer(proto.tensor_content, dtype.as_numpy_dtype).reshape(shape)
    values = getattr(proto, _VALUES[dtype])
    if len(values) > wanted or (len(values) < wanted and (not values or wanted > MAX_FILLED)):
        raise _broken(alias, f"{len(values)} values for shape {shape}")
    array = np.array(values, dtype=object if dtype == tf.string else dtype.as_numpy_dtype)
    if len(values) < wanted:
        array = np.pad(array, (0, wanted - len(values)), mode="edge")
    return array.reshape(shape)


def to_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """As the real server answers: values in the field of their type, not as bytes."""
    dtype = tf.string if array.dtype == object else tf.as_dtype(array.dtype)
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    proto.tensor_shape.SetInParent()  # a scalar has a shape too
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, _VALUES[dtype]).extend(array.ravel().tolist())
    return proto


def _broken(alias: str, reason: str) -> ServingError:
    return invalid(f"tensor parsing error: {alias} ({reason})")
