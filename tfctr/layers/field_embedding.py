"""Embeds every field of a schema, from one fused table."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tfctr.optimizers.rows import local_copy
from tfctr.schema import LARGEST_SCALED, PAD_ID, TOKEN_KINDS, Schema

ROWS_AT_ONCE = 1 << 20


@keras.saving.register_keras_serializable("tfctr")
class FieldEmbedding(keras.layers.Layer):
    """Embeds all fields at once: `[B, F, D]`, fields in the schema's order.

    - categorical: the row of its id; the row of `PAD_ID` is learned, for missing values.
    - multi_valued and sequence: the mean over the values without `PAD_ID`; zero if there are none.
    - numeric: the number as its `transform` scales it, times a learned vector, or the row of its
      bucket. A number that is not finite is missing: 0, or its own bucket. Scaled values are
      clipped to `LARGEST_SCALED`.

    All vocabularies share one table `[V, D]`, with an offset for each feature's ids, so that a
    batch is one gather, and one sparse gradient for `tfctr.optimizers.LazyAdam`.

    Args:
        schema: a fitted `tfctr.schema.Schema` (`Dataset.schema`).
        dim: int. `D`.
        stddev: float. Of the initial rows' normal distribution. Defaults to 1e-4, so that rows that
            training never reads are negligible.

    Raises:
        ValueError: a feature of the schema was never fitted.
    """

    def __init__(self, schema: Schema, dim: int, stddev: float = 1e-4, **kwargs: Any) -> None:
        # Numbers are standardised in float32, before a cast to a lower precision.
        super().__init__(autocast=False, **kwargs)
        self.schema = schema
        self.dim = dim
        self.stddev = stddev
        self.offsets: dict[str, int] = {}  # vocabulary or bucketized feature -> its first row
        self.num_rows = 0
        for feature in schema.inputs:
            if _has_rows(feature):
                owner = getattr(feature, "vocabulary", feature.name)
                if owner not in self.offsets:
                    self.offsets[owner] = self.num_rows
                    self.num_rows += feature.num_ids
        self.scaled = [feature.name for feature in schema.inputs if not _has_rows(feature)]
        self.int8_rows: tuple[Any, Any] | None = None  # read in place of the table, for an export

    def build(self, input_shape: Any = None) -> None:
        # In a lower precision, rows are cast after they are read: a cast table would be a copy.
        settings: dict[str, Any] = {"autocast": False}
        initializer = keras.initializers.RandomNormal(stddev=self.stddev)
        if self.num_rows:
            is_large = self.num_rows > ROWS_AT_ONCE and keras.backend.backend() == "tensorflow"
            self.table = self.add_weight(
                (self.num_rows, self.dim),
                initializer="zeros" if is_large else initializer,
                name="table",
                **settings,
            )
            self.table.by_rows = True  # for optimizers with `compact_state`
            if is_large:
                self._draw_rows(initializer.seed)
        if self.scaled:
            shape = (len(self.scaled), self.dim)
            self.directions = self.add_weight(
                shape, initializer=initializer, name="directions", **settings
            )

    def _draw_rows(self, seed: int) -> None:
        """Initial rows, some at a time: an initializer holds a table twice while it draws it."""
        with tf.init_scope():
            for start in range(0, self.num_rows, ROWS_AT_ONCE):
                rows = min(ROWS_AT_ONCE, self.num_rows - start)
                draw = keras.initializers.RandomNormal(stddev=self.stddev, seed=seed + start)
                places = tf.range(start, start + rows)
                # Not an assignment to a slice, which reads the table and so makes a copy of it.
                self.table.value.scatter_update(tf.IndexedSlices(draw((rows, self.dim)), places))

    def call(self, inputs: Mapping[str, Any], names: Sequence[str] | None = None) -> Any:
        """`inputs`: ids int `[B]` or `[B, M]`, floats `[B]`, by field; `names`: only these."""
        features = [f for f in self.schema.inputs if names is None or f.name in names]
        # Neighbouring fields with one row per value stay together: each cut costs a copy, and its
        # gradient another one.
        runs = [list(run) for _, run in groupby(features, key=_run)]
        vectors = [
            pool(values, inputs[run[0].name]) if run[0].is_list else values
            for run, values in zip(runs, self._vectors(runs, inputs), strict=True)
        ]
        return vectors[0] if len(vectors) == 1 else ops.concatenate(vectors, axis=1)

    def side_by_side(self, inputs: Mapping[str, Any], names: Sequence[str]) -> Any:
        """The concatenated vectors `[B, M, n * D]` of `n` sequences of one length `M`.

        There is no pooling; padding has the row of `PAD_ID`.
        """
        vectors = self.each(inputs, names)
        return ops.reshape(vectors, (*ops.shape(vectors)[:2], len(names) * self.dim))

    def each(self, inputs: Mapping[str, Any], names: Sequence[str]) -> Any:
        """The same as `[B, M, n, D]`."""
        rows = [self._rows(self.schema[name], inputs[name]) for name in names]
        return self._gather(ops.stack(rows, axis=2))

    def rows(self, name: str, ids: Any) -> Any:
        """The vectors `[..., D]` of ids of the feature `name`."""
        return self._gather(ids + self.offsets[self.schema[name].vocabulary])

    def _vectors(self, runs: list[list[Any]], inputs: Mapping[str, Any]) -> list[Any]:
        """`[B, M, D]` for each run of features, from one look-up for all."""
        rows = {
            feature.name: self._rows(feature, inputs[feature.name])
            for run in runs
            for feature in run
            if _has_rows(feature)
        }
        widths = [sum(rows[f.name].shape[1] for f in run) for run in runs if _has_rows(run[0])]
        cut = iter(())
        if rows:
            together = list(rows.values())
            gathered = self._gather(ops.concatenate(together, 1) if together[1:] else together[0])
            ends = list(accumulate(widths))
            cut = iter(ops.split(gathered, ends[:-1], axis=1) if len(ends) > 1 else [gathered])
        return [
            next(cut) if _has_rows(run[0]) else self._scaled(run[0], inputs[run[0].name])
            for run in runs
        ]

    def _rows(self, feature: Any, values: Any) -> Any:
        """Row numbers `[B, M]` in the table, `M = 1` if the field has one value."""
        if isinstance(feature, TOKEN_KINDS):
            ids = values if feature.is_list else ops.expand_dims(values, 1)
            return ids + self.offsets[feature.vocabulary]
        bucket = ops.searchsorted(
            ops.convert_to_tensor(feature.boundaries, dtype=values.dtype), values, side="right"
        )
        bucket = ops.where(ops.isfinite(values), bucket + 1, 0)
        return ops.expand_dims(ops.cast(bucket, "int64"), 1) + self.offsets[feature.name]

    def _gather(self, rows: Any) -> Any:
        if self.int8_rows is not None:
            numbers, scales = (tf.gather(table, rows) for table in self.int8_rows)
            return ops.cast(tf.cast(numbers, "float32") * scales, self.compute_dtype)
        if keras.backend.backend() == "tensorflow":
            # Reads and differentiates only these rows; `ops.take` would read the whole table.
            return ops.cast(tf.gather(local_copy(self.table), rows), self.compute_dtype)
        return ops.cast(ops.take(self.table, rows, axis=0), self.compute_dtype)

    def _scaled(self, feature: Any, values: Any) -> Any:
        values = ops.cast(values, "float32")
        is_there, largest = ops.isfinite(values), LARGEST_SCALED[feature.transform]
        if feature.transform == "log":
            values = ops.sign(values) * ops.log1p(ops.abs(values))
        if feature.transform != "none":
            center, scale = feature.center_and_scale
            values = (values - center) / scale
        values = ops.where(is_there, ops.clip(values, -largest, largest), ops.zeros_like(values))
        direction = self.directions[self.scaled.index(feature.name)]
        return ops.cast(ops.reshape(values, (-1, 1, 1)) * direction, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "schema": self.schema.model_dump(mode="json"),
            "dim": self.dim,
            "stddev": self.stddev,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FieldEmbedding":
        return cls(**config | {"schema": Schema.model_validate(config["schema"])})


def _has_rows(feature: Any) -> bool:
    return isinstance(feature, TOKEN_KINDS) or feature.transform == "bucketize"


def _run(feature: Any) -> str:
    """Equal for features that may be embedded together."""
    return feature.name if feature.is_list or not _has_rows(feature) else ""


def pool(vectors: Any, ids: Any) -> Any:
    """The mean `[B, 1, D]` of `[B, M, D]` where `ids [B, M]` is not padding."""
    present = ops.expand_dims(ops.cast(ops.not_equal(ids, PAD_ID), vectors.dtype), 2)
    total = ops.sum(vectors * present, axis=1, keepdims=True)
    return total / ops.maximum(ops.sum(present, axis=1, keepdims=True), 1)
