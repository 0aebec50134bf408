"""Selection of features by soft gates (Mao et al., 2023, arXiv:2304.00902)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfctr.layers.mlp import MLP


@keras.saving.register_keras_serializable("tfctr")
class FeatureGate(keras.layers.Layer):
    """`2 sigmoid(g) * x`, with a gate between 0 and 2 for each number of `x [B, n]`.

    `call(x, context)`: `g = W mlp(context) + b` with `context [B, c]`. `call(x)`: `g = b`, the
    same for every row.

    Args:
        units: widths of the MLP over the context. Defaults to `(64,)`.
    """

    def __init__(self, units: Sequence[int] = (64,), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = tuple(units)

    def build(self, x_shape: tuple[int | None, ...], context_shape: Any = None) -> None:
        width = x_shape[-1]
        self.bias = self.add_weight(shape=(width,), initializer="zeros", name="bias")
        if context_shape is not None:
            self.mlp = MLP(self.units, name="mlp")
            self.mlp.build(context_shape)
            self.dense = keras.layers.Dense(width, use_bias=False, name="dense")
            self.dense.build((None, self.units[-1] if self.units else context_shape[-1]))

    def call(self, x: Any, context: Any = None) -> Any:
        gate = self.bias
        if context is not None:
            gate = gate + self.dense(self.mlp(context))
        return 2 * ops.sigmoid(gate) * x

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": list(self.units)}
