"""A field of the vectors that earlier models had for a user or an item."""

from typing import Any

import keras
from keras import ops

from tfctr.layers.flat_dense import FlatDense


@keras.saving.register_keras_serializable("tfctr")
class HistoricalFusion(keras.layers.Layer):
    """Attention of a current vector over snapshots of it (E-CDCTR, arXiv:2408.16238).

    `a_k = softmax_k(<W_q e, W_k h_k> / sqrt(D))` over the existing snapshots, and
    `t = sum_k a_k W_v h_k`. One more key and value are learned; a user or item without a snapshot
    has only these.

    Snapshots are constants: they get no gradient.

    Args:
        dim: int. Width `D` of the current vector and of the field.
    """

    def __init__(self, dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.of_query = FlatDense(dim, use_bias=False, name="of_query")
        self.of_key = FlatDense(dim, use_bias=False, name="of_key")
        self.of_value = FlatDense(dim, use_bias=False, name="of_value")

    def build(
        self,
        current_shape: tuple[int | None, ...],
        snapshots_shape: tuple[int | None, ...],
        exist_shape: Any = None,
    ) -> None:
        self.of_query.build(current_shape)
        self.of_key.build(snapshots_shape)
        self.of_value.build(snapshots_shape)
        small = keras.initializers.RandomNormal(stddev=0.01)
        self.no_key = self.add_weight((self.dim,), initializer=small, name="no_key")
        self.no_value = self.add_weight((self.dim,), initializer=small, name="no_value")

    def call(self, current: Any, snapshots: Any, exist: Any) -> Any:
        """`[..., D]`, `[..., n, d]` and 1 or 0 `[..., n]` to `[..., D]`."""
        snapshots = ops.stop_gradient(ops.cast(snapshots, self.compute_dtype))
        query = self.of_query(current)
        scores = ops.sum(ops.expand_dims(query, -2) * self.of_key(snapshots), axis=-1)
        nothing = ops.sum(query * self.no_key, axis=-1, keepdims=True)
        scores = ops.concatenate([scores, nothing], axis=-1) / self.dim**0.5
        there = ops.concatenate([ops.cast(exist, "bool"), ops.ones_like(nothing, "bool")], axis=-1)
        scores = ops.where(there, ops.cast(scores, "float32"), -1e9)
        shares = ops.cast(ops.softmax(scores), self.compute_dtype)
        found = ops.sum(ops.expand_dims(shares[..., :-1], -1) * self.of_value(snapshots), axis=-2)
        return found + shares[..., -1:] * self.no_value

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"dim": self.dim}
