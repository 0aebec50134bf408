"""Self-attention between fields (Song et al., 2019, arXiv:1810.11921)."""

from typing import Any

import keras
from keras import ops

from tfctr.layers.flat_dense import FlatDense


@keras.saving.register_keras_serializable("tfctr")
class InteractingLayer(keras.layers.Layer):
    """Self-attention of the fields: `[B, F, D] -> [B, F, num_heads * head_dim]`.

    `ReLU([h_1 ; ... ; h_H] + W_res x)` with `h = softmax(Q K^T) V`, where `Q`, `K` and `V` are
    linear in `x`. As in the paper, there are no biases and `Q K^T` is not scaled.

    Args:
        num_heads: int. `H`.
        head_dim: int. Width of one head.
    """

    def __init__(self, num_heads: int, head_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_dim = head_dim
        width = num_heads * head_dim
        self.query = FlatDense(width, use_bias=False, name="query")
        self.key = FlatDense(width, use_bias=False, name="key")
        self.value = FlatDense(width, use_bias=False, name="value")
        self.residual = FlatDense(width, use_bias=False, name="residual")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for layer in (self.query, self.key, self.value, self.residual):
            layer.build(input_shape)

    def call(self, inputs: Any) -> Any:
        query, key, value = (
            self._heads(layer(inputs)) for layer in (self.query, self.key, self.value)
        )
        weights = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))), axis=-1)
        mixed = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))  # [B, F, H, head_dim]
        residual = self.residual(inputs)
        return ops.relu(ops.reshape(mixed, (-1, *residual.shape[1:])) + residual)

    def _heads(self, x: Any) -> Any:
        """`[B, F, H * head_dim] -> [B, H, F, head_dim]`."""
        heads = ops.reshape(x, (-1, x.shape[1], self.num_heads, self.head_dim))
        return ops.transpose(heads, (0, 2, 1, 3))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_heads": self.num_heads, "head_dim": self.head_dim}
