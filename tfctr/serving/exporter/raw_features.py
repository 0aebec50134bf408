"""From raw values to a model's inputs, inside the graph: the same ids as in training."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tensorflow as tf

from tfctr.data.one_value import FALSE, TRUE, WHOLE, other_spellings
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
    Vector,
)
from tfctr.serving.raw_values import MISSING, raw_dtype


class RawFeatures(tf.Module):
    """Looks up raw values in the model's vocabularies.

    Args:
        schema: the fitted schema of the model; its inputs are looked up.
        vocabularies: the vocabulary file of each feature that has tokens; one token per line.

    Raises:
        ValueError: a file does not match the schema, or has a character that TensorFlow drops.
    """

    def __init__(self, schema: Schema, vocabularies: Mapping[str, Path]) -> None:
        super().__init__()
        self.schema = schema
        self.tables: dict[str, Any] = {}
        self._folder = TemporaryDirectory()  # of the tables' files, which a SavedModel copies
        opened: dict[tuple[Path, str], Any] = {}
        for feature in schema.inputs:
            if isinstance(feature, TOKEN_KINDS):
                path = vocabularies[feature.name]
                _check(feature, path)
                key = (path, feature.dtype)
                if key not in opened:
                    opened[key] = _table(path, raw_dtype(feature), Path(self._folder.name))
                self.tables[feature.name] = opened[key]

    def look_up(self, raw: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Model inputs of the features in `raw`: ids int64 `[B]` or `[B, max_length]`, numbers
        float32 `[B]`."""
        return {name: self._look_up(self.schema[name], values) for name, values in raw.items()}

    def _look_up(self, feature: Any, values: tf.Tensor) -> tf.Tensor:
        if isinstance(feature, Numeric | Vector):
            return values
        if isinstance(feature, Tokens):
            missing = tf.constant(MISSING_INT, tf.int64)
            return tf.where(values == missing, tf.constant(feature.pad_id, tf.int64), values)
        if feature.hash_buckets:
            values = _to_buckets(values, feature.hash_buckets)
        ids = self.tables[feature.name].lookup(values)
        if not feature.is_list:
            return ids
        fits = values.shape[1] == feature.max_length
        if isinstance(feature, History):  # a `PAD_ID` in between is an event without a value
            return ids if fits else _latest(ids, feature.max_length)
        if not isinstance(feature, Sequence):  # of a set, a `PAD_ID` may stand anywhere
            return ids if fits else _cut(ids, feature.max_length, last=False)
        return _to_the_left(ids) if fits else _cut(ids, feature.max_length, last=True)

    def parse(self, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        """Raw values from serialized `tf.train.Example`s `[B]`; features left out are missing."""
        return tf.io.parse_example(serialized, {f.name: _example(f) for f in self.schema.inputs})


def _to_buckets(values: tf.Tensor, num_buckets: int) -> tf.Tensor:
    """The same as `tfctr.data.hashed.to_buckets`; the missing value stays."""
    texts = tf.strings.as_string(values) if values.dtype == tf.int64 else _spelt(values)
    buckets = tf.strings.to_hash_bucket_fast(texts, num_buckets)
    tokens = buckets if values.dtype == tf.int64 else tf.strings.as_string(buckets)
    missing = MISSING[values.dtype]
    return tf.where(values == missing, values, tokens)


def _spelt(texts: tf.Tensor) -> tf.Tensor:
    """The same as `tfctr.data.one_value.token_of`."""
    texts = tf.strings.regex_replace(texts, f"^{WHOLE}$", r"\1\2")
    for token, spellings in (("1", TRUE), ("0", FALSE)):
        texts = tf.strings.regex_replace(texts, f"^({'|'.join(spellings)})$", token)
    return texts


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


def _table(path: Path, dtype: tf.DType, folder: Path) -> Any:
    """A table from token to id: `PAD_ID` for the missing value, `OOV_ID` for tokens not in it.

    Its file in `folder` has a token and its id on each line, so the graph needs only a look-up;
    after the tokens come the other texts that `prepare` reads as one of them.
    """
    tokens = path.read_bytes().removesuffix(b"\n").split(b"\n") if path.stat().st_size else []
    delimiter = _delimiter(path)
    missing = MISSING[dtype] if dtype == tf.string else str(MISSING[dtype]).encode()
    lines = [missing + delimiter + str(PAD_ID).encode()]
    lines += [t + delimiter + str(i).encode() for i, t in enumerate(tokens, FIRST_TOKEN_ID)]
    if dtype == tf.string:
        lines += _other_spellings(tokens, delimiter)
    written = folder / path.name
    written.write_bytes(b"\n".join(lines) + b"\n")
    initializer = tf.lookup.TextFileInitializer(
        str(written), dtype, 0, tf.int64, 1, delimiter=delimiter.decode()
    )
    return tf.lookup.StaticHashTable(initializer, OOV_ID)


def _other_spellings(tokens: list[bytes], delimiter: bytes) -> list[bytes]:
    known = set(tokens)
    return [
        text.encode() + delimiter + str(i).encode()
        for i, token in enumerate(tokens, FIRST_TOKEN_ID)
        for text in other_spellings(token.decode())
        if text.encode() not in known
    ]


def read_tokens(path: Path) -> list[bytes]:
    """The tokens of a vocabulary in a SavedModel's assets, in the order of their ids."""
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n")[1:]  # the first is the missing value
    return [
        line[: -1 - len(str(i))]
        for i, line in enumerate(lines, FIRST_TOKEN_ID)
        if line.endswith(str(i).encode())  # other spellings have the id of an earlier line
    ]


def _delimiter(path: Path) -> bytes:
    """A character that no token contains."""
    found = set(path.read_bytes())
    for code in (9, *range(1, 9), *range(14, 32)):
        if code not in found:
            return bytes([code])
    raise ValueError(
        f"{path}: its tokens contain all control characters, so none can separate a token from "
        "its id; clean the column in the source and prepare the data again"
    )


def _to_the_left(ids: tf.Tensor) -> tf.Tensor:
    """`[B, M]` with the `PAD_ID`s moved to the end of each row."""
    is_there = ids != PAD_ID
    place = tf.cumsum(tf.cast(is_there, tf.int64), axis=1) - 1
    rows = tf.broadcast_to(tf.range(tf.shape(ids, tf.int64)[0])[:, tf.newaxis], tf.shape(ids))
    # A `PAD_ID` adds 0 to a place of its row, which changes nothing.
    places = tf.stack([rows, tf.maximum(place, 0)], axis=2)
    return tf.scatter_nd(places, ids, tf.shape(ids, tf.int64))


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
    ends = tf.range(1, tf.shape(ids)[1] + 1)
    count = tf.reduce_max(tf.where(ids != PAD_ID, ends, 0), axis=1, keepdims=True)
    return tf.gather(ids, tf.maximum(count - length, 0) + tf.range(length), batch_dims=1)


def _example(feature: Any) -> Any:
    dtype = raw_dtype(feature)
    if isinstance(feature, Tokens):
        return tf.io.FixedLenFeature(
            [feature.max_length], dtype, [feature.pad_id] * feature.max_length
        )
    if isinstance(feature, Vector):
        return tf.io.FixedLenFeature(
            [feature.max_length], dtype, [MISSING[dtype]] * feature.max_length
        )
    if feature.is_list:
        return tf.io.FixedLenSequenceFeature([], dtype, True, MISSING[dtype])
    return tf.io.FixedLenFeature([], dtype, MISSING[dtype])
