"""The cross of the first Deep & Cross Network (Wang et al., 2017, arXiv:1708.05123)."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfctr")
class VectorCross(keras.layers.Layer):
    """`x0 * (x . w) + b + x`, with vectors `w` and `b`: `[B, n], [B, n] -> [B, n]`."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        width = input_shape[-1]
        self.kernel = self.add_weight(shape=(width, 1), initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(width,), initializer="zeros", name="bias")

    def call(self, x0: Any, x: Any) -> Any:
        return x0 * ops.matmul(x, self.kernel) + self.bias + x
