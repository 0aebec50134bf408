"""A transformer block for given keys and values (Vaswani et al., 2017, arXiv:1706.03762)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from tfctr.layers.flat_dense import FlatDense

NO_WEIGHT = -3e4  # a logit of masked places, or added to it; e^-3e4 is zero, and float16 holds it


class AttentionMask(NamedTuple):
    """Which places exist; computed once for all blocks that attend to them."""

    logits: Any  # [B, 1, 1, L], 0, or NO_WEIGHT for a masked place
    any: Any  # [B, 1, 1, 1], 1, or 0 if all places are masked


def attention_mask(exists: Any) -> AttentionMask:
    """The mask of `exists [B, L]`, bool or 1 and 0."""
    exists = ops.cast(exists, "float32")[:, None, None]
    return AttentionMask((1 - exists) * NO_WEIGHT, ops.max(exists, axis=3, keepdims=True))


def by_heads(x: Any, shape: Any, num_heads: int, layers: Sequence[Any]) -> list[Any]:
    """The outputs of dense layers on `x [B * M, d]`, by head: `[B, heads, M, d / heads]` each.

    One matrix product for all of them, and one transpose.

    Args:
        x: `[B * M, d]`.
        shape: `(B, M)`, one of which may be -1.
        num_heads: int. Must divide `d`.
        layers: built dense layers of width `d` without activation.
    """
    kernel = ops.concatenate([layer.kernel for layer in layers], axis=1)
    bias = ops.concatenate([layer.bias for layer in layers], axis=0)
    # `ops.add`, not `+`, because TensorFlow fuses it with the product.
    made = ops.add(ops.matmul(x, ops.cast(kernel, x.dtype)), ops.cast(bias, x.dtype))
    heads, width = num_heads * len(layers), x.shape[-1] // num_heads
    made = ops.transpose(ops.reshape(made, (*shape, heads, width)), (0, 2, 1, 3))
    return list(ops.split(made, len(layers), axis=1))


@keras.saving.register_keras_serializable("tfctr")
class AttendingBlock(keras.layers.Layer):
    """Attention to a sequence with given keys and values: `[B * M, d] -> [B * M, d]`.

    `u = LN(x + attention(x W_Q, keys, values) W_O)`, then `LN(u + W_2 gelu(W_1 u))`, the hidden
    layer `4 d` wide. As keys and values are inputs, a sequence and its candidates can attend to the
    sequence, whose keys and values are computed once for all candidates.

    Args:
        num_heads: int. Must divide `d`.
        dropout: float. On the residual branches. Defaults to 0.
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
        query: Any,
        keys: Any,
        values: Any,
        attention_mask: AttentionMask | None = None,
        own: Any = None,
        training: bool = False,
    ) -> Any:
        """The new `x [B * M, d]`.

        Args:
            x: `[B * M, d]`, the places that attend, as rows of one matrix.
            query: `[B, heads, M, d / heads]`, of these places: `by_heads` of `self.query`.
            keys, values: `[B, heads, L, d / heads]`, of the places attended to.
            attention_mask: of the places attended to; if all are masked, the attention is zero.
                Defaults to no mask.
            own: a further key and value `[B, heads, M, d / heads]` of each place that attends, to
                which it alone attends. Defaults to none.
        """
        logits = ops.matmul(query * query.shape[-1] ** -0.5, ops.swapaxes(keys, 2, 3))
        if attention_mask is not None:
            logits += ops.cast(attention_mask.logits, logits.dtype)
        if own is None:
            attended = ops.matmul(ops.softmax(logits), values)
            if attention_mask is not None:  # a softmax over masked places only is not zero
                attended *= ops.cast(attention_mask.any, attended.dtype)
        else:
            of_own = ops.sum(query * own[0], axis=3, keepdims=True) * query.shape[-1] ** -0.5
            weights = ops.softmax(ops.concatenate([logits, of_own], axis=3))
            attended = ops.matmul(weights[:, :, :, :-1], values) + weights[:, :, :, -1:] * own[1]
        attended = ops.reshape(ops.transpose(attended, (0, 2, 1, 3)), (-1, x.shape[-1]))
        u = self.norms[0](x + self.drop(self.output_projection(attended), training=training))
        return self.norms[1](u + self.drop(self.outer(self.inner(u)), training=training))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_heads": self.num_heads, "dropout": self.dropout}
