"""The side of a transformer block that looks (Vaswani et al., 2017, arXiv:1706.03762)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from tfctr.layers.flat_dense import FlatDense

NO_WEIGHT = -1e9  # added to the logit of what is not there; e^-1e9 is zero


class Seen(NamedTuple):
    """Which places hold something; made once, for all blocks that look at them."""

    logits: Any  # [B, 1, 1, L], 0, or NO_WEIGHT where there is nothing
    any: Any  # [B, 1, 1, 1], 1, or 0 where all is nothing


def seen(exists: Any) -> Seen:
    """Of bool, or 1 and 0, `[B, L]`."""
    exists = ops.cast(exists, "float32")[:, None, None]
    return Seen((1 - exists) * NO_WEIGHT, ops.max(exists, axis=3, keepdims=True))


def by_heads(x: Any, shape: Any, num_heads: int, layers: Sequence[Any]) -> list[Any]:
    """What dense layers make of `x [B * M, d]`: `[B, heads, M, d / heads]` of each layer.

    One product of matrices for all of them, and one transpose.

    Args:
        x: `[B * M, d]`.
        shape: `(B, M)`, one of which may be -1.
        num_heads: int. Must divide `d`.
        layers: built dense layers of width `d` without activation.
    """
    kernel = ops.concatenate([layer.kernel for layer in layers], axis=1)
    bias = ops.concatenate([layer.bias for layer in layers], axis=0)
    # Not `+`: of `ops.add` TensorFlow makes one operation with the product.
    made = ops.add(ops.matmul(x, ops.cast(kernel, x.dtype)), ops.cast(bias, x.dtype))
    heads, width = num_heads * len(layers), x.shape[-1] // num_heads
    made = ops.transpose(ops.reshape(made, (*shape, heads, width)), (0, 2, 1, 3))
    return list(ops.split(made, len(layers), axis=1))


@keras.saving.register_keras_serializable("tfctr")
class AttendingBlock(keras.layers.Layer):
    """Places that look at a sequence whose keys and values are given: `[B * M, d] -> [B * M, d]`.

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
        query: Any,
        keys: Any,
        values: Any,
        seen: Seen | None = None,
        own: Any = None,
        training: bool = False,
    ) -> Any:
        """The new `x [B * M, d]`.

        Args:
            x: `[B * M, d]`, the places that look; places are rows, as a matrix product wants them.
            query: `[B, heads, M, d / heads]`, of these places: `by_heads` of `self.query`.
            keys, values: `[B, heads, L, d / heads]`, of the places looked at.
            seen: those that hold something. A place that finds nothing gets zero. All of them, if
                not given.
            own: a key and a value `[B, heads, M, d / heads]` of each place, which it alone sees
                beside the others; none if not given.
        """
        logits = ops.matmul(query * query.shape[-1] ** -0.5, ops.swapaxes(keys, 2, 3))
        if seen is not None:
            logits += ops.cast(seen.logits, logits.dtype)
        if own is None:
            attended = ops.matmul(ops.softmax(logits), values)
            if seen is not None:  # a softmax over nothing is none of zeros
                attended *= ops.cast(seen.any, attended.dtype)
        else:
            of_own = ops.sum(query * own[0], axis=3, keepdims=True) * query.shape[-1] ** -0.5
            weights = ops.softmax(ops.concatenate([logits, of_own], axis=3))
            attended = ops.matmul(weights[:, :, :, :-1], values) + weights[:, :, :, -1:] * own[1]
        attended = ops.reshape(ops.transpose(attended, (0, 2, 1, 3)), (-1, x.shape[-1]))
        u = self.norms[0](x + self.drop(self.output_projection(attended), training=training))
        return self.norms[1](u + self.drop(self.outer(self.inner(u)), training=training))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_heads": self.num_heads, "dropout": self.dropout}
