"""The side of a transformer block that looks (Vaswani et al., 2017, arXiv:1706.03762)."""

from typing import Any

import keras
from keras import ops

from tfctr.layers.flat_dense import FlatDense

NO_WEIGHT = -1e9  # a logit of what is not there; e^-1e9 is zero


@keras.saving.register_keras_serializable("tfctr")
class AttendingBlock(keras.layers.Layer):
    """Places that look at a sequence whose keys and values are given: `[B, M, d] -> [B, M, d]`.

    `u = LN(x + attention(x W_Q, keys, values) W_O)`, then `LN(u + W_2 gelu(W_1 u))`, the hidden
    layer `4 d` wide. With keys and values of another's making, a sequence can be looked at by
    itself and by candidates, and is the same for all of these.

    Args:
        num_heads: int. Must divide `d`.
        dropout: float. Of what is added to `x` and `u`. Defaults to 0.
    """

    def __init__(self, num_heads: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.dropout = dropout
        self.norms = [
            keras.layers.LayerNormalization(epsilon=1e-5, name=f"norm_{i}") for i in range(2)
        ]
        self.drop = keras.layers.Dropout(dropout, name="drop")

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        width = x_shape[-1] or 0
        if width % self.num_heads:
            raise ValueError(
                f"`num_heads` should divide the width {width}. Received: {self.num_heads}"
            )
        self.query = FlatDense(width, name="query")
        self.output_projection = FlatDense(width, name="output_projection")
        self.inner = FlatDense(4 * width, activation="gelu", name="inner")
        self.outer = FlatDense(width, name="outer")
        for layer in (self.query, self.output_projection, self.inner, *self.norms):
            layer.build(x_shape)
        self.outer.build((*x_shape[:-1], 4 * width))

    def call(
        self,
        x: Any,
        keys: Any,
        values: Any,
        exists: Any,
        own: Any = None,
        training: bool = False,
    ) -> Any:
        """The new `x [B, M, d]`.

        Args:
            x: `[B, M, d]`, the places that look.
            keys, values: `[B, L, d]`, of the places looked at.
            exists: bool `[B, L]`, those that hold something. A place that finds nothing gets zero.
            own: a key and a value `[B, M, d]` of each place, which it alone sees beside the others;
                none if not given.
        """
        weights, own_weights = self._weights(x, keys, exists, own)
        attended = ops.einsum("bhml,blhd->bmhd", weights, self._heads(values))
        if own is not None:
            attended += ops.transpose(own_weights, (0, 2, 1, 3)) * self._heads(own[1])
        else:  # a softmax over nothing is none of zeros
            finds = ops.any(exists, axis=1)[:, None, None, None]
            attended *= ops.cast(finds, attended.dtype)
        attended = self.output_projection(ops.reshape(attended, ops.shape(x)))
        u = self.norms[0](x + self.drop(attended, training=training))
        return self.norms[1](u + self.drop(self.outer(self.inner(u)), training=training))

    def _weights(self, x: Any, keys: Any, exists: Any, own: Any) -> tuple[Any, Any]:
        """Weights `[B, heads, M, L]`, and of each place's own `[B, heads, M, 1]`."""
        query = self._heads(self.query(x)) / (x.shape[-1] // self.num_heads) ** 0.5
        logits = ops.einsum("bmhd,blhd->bhml", query, self._heads(keys))
        exists = ops.expand_dims(exists, (1, 2))
        logits = ops.where(exists, logits, NO_WEIGHT)
        if own is None:
            return ops.softmax(logits), None
        of_own = ops.sum(query * self._heads(own[0]), axis=3, keepdims=True)
        logits = ops.concatenate([logits, ops.transpose(of_own, (0, 2, 1, 3))], axis=3)
        weights = ops.softmax(logits)
        return weights[:, :, :, :-1], weights[:, :, :, -1:]

    def _heads(self, x: Any) -> Any:
        """`[B, M, d] -> [B, M, heads, d / heads]`."""
        return ops.reshape(x, (*ops.shape(x)[:2], self.num_heads, x.shape[-1] // self.num_heads))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_heads": self.num_heads, "dropout": self.dropout}
