"""Makes the warm-up requests of a version from the most frequent tokens."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    predict_pb2,
    prediction_log_pb2,
    regression_pb2,
)

from tfctr.schema import Numeric, Schema, Tokens, Vector
from tfctr.serving.raw_values import raw_dtype
from tfctr.serving.warmup import WARMUP_FILE

BATCH_SIZES = (1, 100)  # rows of a request; for `rank`, candidates


def write_warmup(
    folder: Path,
    model_name: str,
    schema: Schema,
    vocabularies: Mapping[str, Path],
    signatures: Mapping[str, Any],
) -> Path:
    """Writes a request for each signature and each of `BATCH_SIZES`.

    Args:
        folder: `assets.extra` of the version.
        model_name: the model's name in the requests.
        schema: of the model.
        vocabularies: the vocabulary file of each feature that has tokens.
        signatures: the functions that are served, by name.

    Returns:
        The file.
    """
    tokens = {name: _first_tokens(path) for name, path in vocabularies.items()}
    path = folder / WARMUP_FILE
    with tf.io.TFRecordWriter(str(path)) as writer:
        for size in BATCH_SIZES:
            columns = {f.name: _column(f, tokens.get(f.name, []), size) for f in schema.inputs}
            for signature in signatures:
                log = _request(signature, schema, columns, signatures)
                for kind in ("predict_log", "classify_log", "regress_log"):
                    if log.HasField(kind):
                        spec = getattr(log, kind).request.model_spec
                        spec.name, spec.signature_name = model_name, signature
                writer.write(log.SerializeToString())
    return path


def _first_tokens(path: Path) -> list[bytes]:
    with path.open("rb") as lines:
        return [line.removesuffix(b"\n") for line in islice(lines, max(BATCH_SIZES))]


def _column(feature: Any, tokens: list[bytes], size: int) -> np.ndarray:
    """Raw values `[size]` or `[size, max_length]`: the tokens in turn, or a numeric mean."""
    if isinstance(feature, Numeric):
        return np.full(size, feature.mean or 0.0, np.float32)
    if isinstance(feature, Tokens):
        return np.full((size, feature.max_length), feature.pad_id, np.int64)
    if isinstance(feature, Vector):
        return np.ones((size, feature.max_length), np.float32)
    values: list[Any] = list(tokens) or [b"0"]
    if feature.dtype == "int":
        values = [int(value) for value in values]
    shape = (size, feature.max_length) if feature.is_list else (size,)
    dtype = np.int64 if feature.dtype == "int" else object
    return np.resize(np.array(values, dtype), shape)


def _request(
    signature: str,
    schema: Schema,
    columns: Mapping[str, np.ndarray],
    signatures: Mapping[str, Any],
) -> Any:
    if signature == "classify":
        request = classification_pb2.ClassificationRequest()
        request.input.example_list.examples.extend(_examples(columns))
        return prediction_log_pb2.PredictionLog(
            classify_log=prediction_log_pb2.ClassifyLog(request=request)
        )
    if signature == "regress":
        request = regression_pb2.RegressionRequest()
        request.input.example_list.examples.extend(_examples(columns))
        return prediction_log_pb2.PredictionLog(
            regress_log=prediction_log_pb2.RegressLog(request=request)
        )
    request = predict_pb2.PredictRequest()
    if signature == "examples":
        serialized = [example.SerializeToString() for example in _examples(columns)]
        request.inputs["examples"].CopyFrom(tf.make_tensor_proto(serialized))
    elif signature in ("rank", "encode_user", "score"):
        items = {f.name: _tensor(f, columns, np.newaxis) for f in schema.side("item")}
        user = {f.name: _tensor(f, columns, slice(1)) for f in schema.side("user", "context")}
        if signature == "score":
            user = signatures["encode_user"](**user)
        for name, values in (user if signature == "encode_user" else user | items).items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    else:
        for feature in schema.inputs:
            values = _tensor(feature, columns, slice(None))
            request.inputs[feature.name].CopyFrom(tf.make_tensor_proto(values))
    return prediction_log_pb2.PredictionLog(
        predict_log=prediction_log_pb2.PredictLog(request=request)
    )


def _tensor(feature: Any, columns: Mapping[str, np.ndarray], part: Any) -> Any:
    """A part of a feature's column, with the feature's dtype even if it is empty."""
    return tf.constant(columns[feature.name][part], raw_dtype(feature))


def _examples(columns: Mapping[str, np.ndarray]) -> list[Any]:
    return [
        example({name: np.ravel(column[row]) for name, column in columns.items()})
        for row in range(max(map(len, columns.values())))
    ]


def example(row: Mapping[str, np.ndarray]) -> Any:
    """A `tf.train.Example` of raw values: an array of bytes, ints or floats per feature."""
    message = tf.train.Example()
    for name, values in row.items():
        feature = message.features.feature[name]
        kind = {"i": feature.int64_list, "f": feature.float_list}.get(
            values.dtype.kind, feature.bytes_list
        )
        kind.value.extend(values.tolist())
    return message
