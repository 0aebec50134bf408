"""Attention from a row to its similar rows (RIM, Qin et al., 2021, arXiv:2108.05252)."""

from typing import Any

import keras
from keras import ops

from tfctr.layers.attending_block import NO_WEIGHT


@keras.saving.register_keras_serializable("tfctr")
class RowAttention(keras.layers.Layer):
    """The mean of `K` rows' vectors, weighted by attention between their fields and the target's.

    `a_k = softmax_k(<W x + b, s_k> / sqrt(n))` over the rows that exist, and `sum_k a_k v_k`; `s_k`
    are the `n` numbers of row `k`'s first `num_fields` vectors, `v_k` all its vectors. Zero if no
    row exists. (The paper does not divide by the root; then one row soon gets all the weight.)

    Args:
        num_fields: int. Number of a row's vectors that are compared with the target.
    """

    def __init__(self, num_fields: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_fields = num_fields

    def build(self, fields_shape: Any, rows_shape: Any, exists_shape: Any) -> None:
        _, num_fields, dim = fields_shape
        self.query: Any = keras.layers.Dense(self.num_fields * dim, name="query")
        self.query.build((None, num_fields * dim))

    def call(self, fields: Any, rows: Any, exists: Any) -> Any:
        """`fields [B, F, D]`, `rows [B, K, V, D]`, `exists` bool `[B, K]` -> `[B, V, D]`."""
        k, num_vectors, dim = rows.shape[1:]
        size = self.num_fields * dim
        values = ops.reshape(rows, (-1, k, num_vectors * dim))
        query = self.query(ops.reshape(fields, (-1, fields.shape[1] * dim)))
        scores = ops.matmul(values[:, :, :size], ops.expand_dims(query, 2)) / size**0.5
        exists = ops.expand_dims(exists, 2)
        scores = ops.where(exists, scores, NO_WEIGHT)
        weights = ops.softmax(scores, axis=1) * ops.cast(exists, scores.dtype)
        sums = ops.matmul(ops.transpose(weights, (0, 2, 1)), values)
        return ops.reshape(sums, (-1, num_vectors, dim))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_fields": self.num_fields}
