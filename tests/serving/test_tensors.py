"""A client makes and reads tensors as TensorFlow does, without TensorFlow."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfctr.serving import Server
from tfctr.serving.tensors import to_array, to_proto

ARRAYS = [
    np.array([[1.5, np.nan], [-np.inf, 0]], np.float32),
    np.array([-(2**63), 7], np.int64),
    np.array([[3, -4]], np.int32),
    np.array([True, False]),
    np.array([[b"", "\u00e4".encode()], [b"a\0", b"c"]], object),
    np.zeros((0, 3), np.float32),
    np.array(2.0, np.float32),
    np.array([1.5], np.float64),  # left to TensorFlow
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_tensors_are_those_of_tensorflow(array: np.ndarray) -> None:
    for found in (tf.make_ndarray(to_proto(array)), to_array(tf.make_tensor_proto(array))):
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array)


def test_a_short_tensor_ends_in_its_last_value() -> None:
    for shape, values in (([2, 3], [1.0, 2.0]), ([2, 2], []), ([3], [5.0])):
        proto: Any = tf.make_tensor_proto(np.zeros(0, np.float32))
        del proto.tensor_shape.dim[:]
        for size in shape:
            proto.tensor_shape.dim.add(size=size)
        proto.float_val.extend(values)
        expected = tf.io.parse_tensor(proto.SerializeToString(), tf.float32).numpy()
        np.testing.assert_array_equal(to_array(proto), expected)


PREDICT = """
import json, sys
from tfctr.cli import app
try:
    app(["predict", "tiny", "-", "--server", sys.argv[1]], standalone_mode=False)
except Exception as error:
    raise SystemExit(repr(error))
print(json.dumps(sorted({"tensorflow", "pyarrow", "apache_beam"} & {*sys.modules})))
import tensorflow as tf
from tfctr.serving.messages import predict_pb2, tensor_pb2
request = predict_pb2.PredictRequest()
request.inputs["a"].CopyFrom(tf.make_tensor_proto([1.0]))
print(tf.reduce_sum(tf.make_ndarray(request.inputs["a"])).numpy())
"""


def test_predict_needs_no_tensorflow_and_leaves_it_as_it_is(server: Server) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, f"127.0.0.1:{server.grpc_port}"],
        input='{"user": 7, "item": "i1"}\n',
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    score, imported, total = done.stdout.splitlines()
    assert 0 < json.loads(score)["score"] < 1
    assert json.loads(imported) == []
    assert float(total) == 1.0
