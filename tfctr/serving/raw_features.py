"""Raw values to what a backbone reads, inside the graph: the same ids as in training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfctr.schema import (
    FIRST_TOKEN_ID,
    MISSING_INT,
    OOV_ID,
    PAD_ID,
    TOKEN_KINDS,
    History,
    Numeric,
    Schema,
    Sequence,
    Tokens,
)

MISSING: dict[tf.DType, Any] = {tf.string: b"", tf.int64: MISSING_INT, tf.float32: float("nan")}
"""What stands for "no value", by the dtype of the raw tensor."""


def raw_dtype(feature: Any) -> tf.DType:
    """Of the tensor that a client sends: string, int64 or float32."""
    if isinstance(feature, Numeric):
        return tf.float32
    return tf.string if feature.dtype == "string" else tf.int64


def raw_spec(feature: Any, candidates: bool = False) -> tf.TensorSpec:
    """`[B]`, lists `[B, M]`; with `candidates` `[B, N]` and `[B, N, M]`.

    `M` is open for strings and `max_length` for ints: TF Serving's batcher pads the requests that
    it merges with `""`, which means missing, or with 0, which may be a token.
    """
    shape: list[int | None] = [None, None] if candidates else [None]
    if feature.is_list:
        shape.append(None if feature.dtype == "string" else feature.max_length)
    return tf.TensorSpec(shape, raw_dtype(feature), name=feature.name)


class RawFeatures(tf.Module):
    """The vocabularies, and the way from raw values to ids.

    Args:
        schema: the fitted schema of the model; its inputs are looked up.
        vocabularies: the vocabulary file of each feature that has tokens; one token a line.

    Raises:
        ValueError: a file does not hold what the schema says, or what TensorFlow can't read back.
    """

    def __init__(self, schema: Schema, vocabularies: Mapping[str, Path]) -> None:
        super().__init__()
        self.schema = schema
        self.tables: dict[str, Any] = {}
        opened: dict[tuple[Path, str], Any] = {}
        for feature in schema.inputs:
            if isinstance(feature, TOKEN_KINDS):
                path = vocabularies[feature.name]
                _check(feature, path)
                key = (path, feature.dtype)
                if key not in opened:
                    opened[key] = _table(path, raw_dtype(feature))
                self.tables[feature.name] = opened[key]

    def look_up(self, raw: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Model inputs of the features in `raw`: ids int64 `[B]` or `[B, max_length]`, floats."""
        return {name: self._look_up(self.schema[name], values) for name, values in raw.items()}

    def _look_up(self, feature: Any, values: tf.Tensor) -> tf.Tensor:
        if isinstance(feature, Numeric):
            return values
        if isinstance(feature, Tokens):
            missing = tf.constant(MISSING_INT, tf.int64)
            return tf.where(values == missing, tf.constant(feature.pad_id, tf.int64), values)
        table = self.tables[feature.name]
        if table is None:  # no token was frequent enough
            ids = tf.fill(tf.shape(values), tf.constant(OOV_ID, tf.int64))
        else:
            ids = table.lookup(values) + FIRST_TOKEN_ID
        missing = tf.constant(MISSING[values.dtype], values.dtype)
        ids = tf.where(values == missing, tf.constant(PAD_ID, tf.int64), ids)
        if not feature.is_list:
            return ids
        if isinstance(feature, History):
            return _latest(ids, feature.max_length)
        return _cut(ids, feature.max_length, last=isinstance(feature, Sequence))

    def parse(self, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        """Raw values from serialized `tf.train.Example`s `[B]`; what they leave out is missing."""
        return tf.io.parse_example(serialized, {f.name: _example(f) for f in self.schema.inputs})


def _check(feature: Any, path: Path) -> None:
    text = path.read_bytes()
    found = text.count(b"\n") + FIRST_TOKEN_ID
    if found != feature.num_ids:
        raise ValueError(
            f"{path}: found {found - FIRST_TOKEN_ID} tokens, but feature {feature.name!r} of the "
            f"model has {feature.num_ids - FIRST_TOKEN_ID}; export with the dataset that the "
            "model was trained on"
        )
    if b"\r" in text:
        line = text[: text.index(b"\r")].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: the token holds a carriage return, which TensorFlow drops when "
            "it reads the file; clean the column in the source and prepare the data again"
        )


def _table(path: Path, dtype: tf.DType) -> Any:
    """A table from token to its line, `OOV_ID` once `FIRST_TOKEN_ID` is added; None if empty."""
    if not path.stat().st_size:
        return None  # TensorFlow refuses an empty file
    index = tf.lookup.TextFileIndex
    column: dict[str, Any] = {"key_index": index.WHOLE_LINE}
    if dtype == tf.int64:  # only a column is parsed as a number; no token holds a tab
        column = {"key_index": 0, "delimiter": "\t"}
    lines = tf.lookup.TextFileInitializer(
        str(path), key_dtype=dtype, value_dtype=tf.int64, value_index=index.LINE_NUMBER, **column
    )
    return tf.lookup.StaticHashTable(lines, OOV_ID - FIRST_TOKEN_ID)


def _cut(ids: tf.Tensor, length: int, last: bool) -> tf.Tensor:
    """The first or last `length` ids of `[B, M]` that are not `PAD_ID`, then padding."""
    rows = tf.shape(ids)[0]
    ids = tf.concat([ids, tf.fill([rows, length], tf.constant(PAD_ID, tf.int64))], axis=1)
    absent = ids == PAD_ID
    present_first = tf.argsort(tf.cast(absent, tf.int32), axis=1, stable=True)
    position = tf.tile(tf.range(length)[tf.newaxis], [rows, 1])
    if last:
        count = tf.math.count_nonzero(~absent, axis=1, keepdims=True, dtype=tf.int32)
        position += tf.maximum(count - length, 0)
    return tf.gather(ids, tf.gather(present_first, position, batch_dims=1), batch_dims=1)


def _latest(ids: tf.Tensor, length: int) -> tf.Tensor:
    """The last `length` ids of `[B, M]` up to the last that is not `PAD_ID`, then padding.

    A `PAD_ID` in between keeps its place: it is an event without a value.
    """
    ids = tf.concat([ids, tf.fill([tf.shape(ids)[0], length], tf.constant(PAD_ID, tf.int64))], 1)
    behind = tf.range(1, tf.shape(ids)[1] + 1)
    count = tf.reduce_max(tf.where(ids != PAD_ID, behind, 0), axis=1, keepdims=True)
    return tf.gather(ids, tf.maximum(count - length, 0) + tf.range(length), batch_dims=1)


def _example(feature: Any) -> Any:
    dtype = raw_dtype(feature)
    if isinstance(feature, Tokens):
        return tf.io.FixedLenFeature(
            [feature.max_length], dtype, [feature.pad_id] * feature.max_length
        )
    if feature.is_list:
        return tf.io.FixedLenSequenceFeature([], dtype, True, MISSING[dtype])
    return tf.io.FixedLenFeature([], dtype, MISSING[dtype])
