"""A block of a transformer encoder (Vaswani et al., 2017, arXiv:1706.03762)."""

from typing import Any

import keras
from keras import ops

from tfctr.layers.flat_dense import FlatDense


@keras.saving.register_keras_serializable("tfctr")
class TransformerBlock(keras.layers.Layer):
    """Attention and a feed-forward network, as in BST: `[B, M, Q] -> [B, M, Q]`.

    `s = LN(x + attention(x, y))`, then `LN(s + W2 leaky_relu(W1 s))`, the hidden layer `4 Q` wide.

    Args:
        num_heads: int. Must divide `Q`.
        dropout: float. On attention weights and on the residual branches. Defaults to 0.
    """

    def __init__(self, num_heads: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.dropout = dropout
        self.norms = [
            keras.layers.LayerNormalization(epsilon=1e-5, name=f"norm_{i}") for i in range(2)
        ]
        self.drop = keras.layers.Dropout(dropout, name="drop")

    def build(self, x_shape: tuple[int | None, ...], y_shape: Any, exists_shape: Any) -> None:
        width = x_shape[-1] or 0
        if width % self.num_heads:
            raise ValueError(
                f"`num_heads` should divide the width {width}. Received: {self.num_heads}"
            )
        self.attention = keras.layers.MultiHeadAttention(
            self.num_heads, width // self.num_heads, dropout=self.dropout, name="attention"
        )
        self.attention.build(x_shape, y_shape)
        self.inner = FlatDense(4 * width, activation="leaky_relu", name="inner")
        self.inner.build(x_shape)
        self.outer = FlatDense(width, name="outer")
        self.outer.build((*x_shape[:-1], 4 * width))
        for norm in self.norms:
            norm.build(x_shape)

    def call(self, x: Any, y: Any, exists: Any, training: bool = False) -> Any:
        """The new `x [B, M, Q]`.

        Args:
            x: `[B, M, Q]`, the places that attend: all of `y`, or some.
            y: `[B, L, Q]`, the places attended to.
            exists: bool `[B, L]`, false at padding of `y`; at least one place per row exists.
        """
        mask = ops.expand_dims(exists, 1)
        attended = self.attention(x, y, attention_mask=mask, training=training)
        s = self.norms[0](x + self.drop(attended, training=training))
        return self.norms[1](s + self.drop(self.outer(self.inner(s)), training=training))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_heads": self.num_heads, "dropout": self.dropout}
