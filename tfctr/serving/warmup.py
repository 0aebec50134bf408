"""Warm-up requests: TF Serving runs them before it serves a version, as the first ones are slow.

The file `assets.extra/tf_serving_warmup_requests` is a TFRecord of
`tensorflow_serving.PredictionLog`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

WARMUP_FILE = "tf_serving_warmup_requests"


def read_warmup(version: Path) -> Iterator[Any]:
    """The requests of a version's folder, as `PredictionLog`s; none if it has no such file."""
    path = version / "assets.extra" / WARMUP_FILE
    if path.exists():
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield prediction_log_pb2.PredictionLog.FromString(record)


def inputs_of(log: Any) -> tuple[str, dict[str, np.ndarray]]:
    """The signature of a warm-up request, and its input arrays by name."""
    request = getattr(log, log.WhichOneof("log_type")).request
    name = request.model_spec.signature_name
    if log.HasField("predict_log"):
        return name, {key: tf.make_ndarray(tensor) for key, tensor in request.inputs.items()}
    examples = [one.SerializeToString() for one in request.input.example_list.examples]
    return name, {"inputs": np.array(examples, object)}
