"""Arrays as `TensorProto`s and back, without TensorFlow; the values that mean "missing"."""

import math
from typing import Any

import numpy as np

from tfctr.schema import MISSING_INT
from tfctr.serving.messages import tensor_pb2, types_pb2

STRING, INT64, FLOAT = types_pb2.DT_STRING, types_pb2.DT_INT64, types_pb2.DT_FLOAT

MISSING: dict[int, Any] = {STRING: b"", INT64: MISSING_INT, FLOAT: math.nan}
"""The value that means "missing", by the dtype of the raw tensor."""

# Of each dtype: that of NumPy, and the field of its values.
_DTYPES: dict[int, tuple[Any, str]] = {
    STRING: (np.object_, "string_val"),
    INT64: (np.int64, "int64_val"),
    FLOAT: (np.float32, "float_val"),
    types_pb2.DT_INT32: (np.int32, "int_val"),
    types_pb2.DT_BOOL: (np.bool_, "bool_val"),
}
_NUMBERS = {np.dtype(numpy): dtype for dtype, (numpy, _) in _DTYPES.items()}


def numpy_dtype(dtype: int) -> Any:
    """Of the arrays that are sent as this dtype; texts are `bytes` in an array of objects."""
    return _DTYPES[dtype][0]


def to_proto(array: np.ndarray) -> Any:
    """An array of `bytes`, float32, int64, int32 or bool; others are left to TensorFlow."""
    dtype = _NUMBERS.get(array.dtype)
    if dtype is None:
        import tensorflow as tf

        return tf.make_tensor_proto(array)
    proto = tensor_pb2.TensorProto(dtype=dtype)
    proto.tensor_shape.SetInParent()  # a scalar has a shape too
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if dtype == STRING:
        proto.string_val.extend(array.ravel().tolist())
    else:
        proto.tensor_content = array.tobytes()
    return proto


def to_array(proto: Any) -> np.ndarray:
    """The inverse; a tensor with fewer values than elements ends in copies of its last value."""
    if proto.dtype not in _DTYPES:
        import tensorflow as tf

        return np.asarray(tf.make_ndarray(proto))
    dtype, field = _DTYPES[proto.dtype]
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_content:
        return np.frombuffer(proto.tensor_content, dtype).reshape(shape).copy()
    values = np.array(list(getattr(proto, field)), dtype)
    short = math.prod(shape) - len(values)
    if short > 0:
        values = np.pad(values, (0, short), "edge") if len(values) else np.zeros(short, dtype)
    return values.reshape(shape)
