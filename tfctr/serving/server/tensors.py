"""Checks `TensorProto`s of requests before TensorFlow reads them; makes those of answers."""

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from tfctr.serving.errors import ServingError, invalid
from tfctr.serving.server.raw_requests import RawTensor, sizes

MAX_FILLED = 65_536
"""Most elements of a tensor that has fewer values than elements: TensorFlow fills it up."""
MAX_FILLED_BYTES = 1024 * 1024
"""Most bytes of the copies of the string that such a tensor is filled up with."""

_MAX_DIMENSIONS = 254  # TensorFlow's limit
_STRING = tf.string.as_datatype_enum
_VALUES = {
    tf.string: "string_val",
    tf.int64: "int64_val",
    tf.float32: "float_val",
}


def dtype_name(dtype: int) -> str:
    """The name of a protobuf dtype, as TensorFlow's C++ writes it, e.g. "int64", "float"."""
    name = str(tf.as_dtype(dtype).name)
    return {"float32": "float", "float64": "double"}.get(name, name)


def dtype_and_shape(alias: str, serialized: bytes) -> tuple[int, tuple[int, ...]]:
    """The dtype and shape of a serialized `TensorProto`; refuses one that would take far more
    memory than the bytes that were sent.

    Without a shape, or of unknown rank, it is a scalar, as for the real server.

    Raises:
        ServingError: INVALID_ARGUMENT, `tensor parsing error: ALIAS`.
        google.protobuf.message.DecodeError: it is not a `TensorProto`.
    """
    tensor = RawTensor.FromString(serialized)
    shape = sizes(b"".join(tensor.tensor_shape))
    if shape and (min(shape) < 0 or len(shape) > _MAX_DIMENSIONS):
        raise unreadable(alias)
    wanted = math.prod(shape)
    if wanted > MAX_FILLED or tensor.dtype == _STRING:
        _check_filling(alias, wanted, tensor, len(serialized))
    elif wanted == 0 and max(shape) > MAX_FILLED:  # no values were sent, but rows would be created
        raise unreadable(alias)
    return tensor.dtype, shape


def _check_filling(alias: str, wanted: int, tensor: RawTensor, size: int) -> None:
    found = size  # of numbers, each of which takes at least one byte
    if tensor.tensor_content:
        found = len(tensor.tensor_content)
    elif tensor.dtype == _STRING:
        found = len(tensor.string_val)
        filling = len(tensor.string_val[-1]) if found else 0
        if (wanted - found) * filling > MAX_FILLED_BYTES:
            raise unreadable(alias)
    if wanted > max(found, MAX_FILLED):
        raise unreadable(alias)


def unreadable(alias: str) -> ServingError:
    """The real server's error for a tensor that TensorFlow can't read."""
    return invalid(f"tensor parsing error: {alias}")


def to_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """An array as the real server answers it: values in the field of their type, not as bytes."""
    dtype = tf.string if array.dtype == object else tf.as_dtype(array.dtype)
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    proto.tensor_shape.SetInParent()  # a scalar has a shape too
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, _VALUES[dtype]).extend(array.ravel().tolist())
    return proto
