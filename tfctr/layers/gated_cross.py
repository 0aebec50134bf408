"""Gated crosses of all fields (Wang et al., 2023, arXiv:2311.04635)."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfctr")
class GatedCross(keras.layers.Layer):
    """`x_0 * (W_c x + b) * sigmoid(W_g x) + x`: `[B, n], [B, n] -> [B, n]`.

    The gate selects the products of one order that help the prediction.
    """

    def build(self, x0_shape: tuple[int | None, ...], x_shape: tuple[int | None, ...]) -> None:
        self.cross = keras.layers.Dense(x0_shape[-1], name="cross")
        self.gate = keras.layers.Dense(x0_shape[-1], use_bias=False, name="gate")
        self.cross.build(x_shape)
        self.gate.build(x_shape)

    def call(self, x0: Any, x: Any) -> Any:
        return x0 * self.cross(x) * ops.sigmoid(self.gate(x)) + x
