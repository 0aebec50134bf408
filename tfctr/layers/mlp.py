"""A tower of dense layers."""

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable("tfctr")
class MLP(keras.layers.Layer):
    """`[..., n] -> [..., units[-1]]`: dense, ReLU and dropout, once for each width.

    Args:
        units: widths, e.g. `(256, 128)`. None: the input is returned.
        dropout: float. Share of activations dropped behind each layer. Defaults to 0.
    """

    def __init__(self, units: Sequence[int], dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = tuple(units)
        self.dropout = dropout
        self.stack = []
        for i, width in enumerate(self.units):
            self.stack.append(keras.layers.Dense(width, activation="relu", name=f"dense_{i}"))
            if dropout:
                self.stack.append(keras.layers.Dropout(dropout, name=f"dropout_{i}"))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for layer in self.stack:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = inputs
        for layer in self.stack:
            x = layer(x, training=training) if isinstance(layer, keras.layers.Dropout) else layer(x)
        return x

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": list(self.units), "dropout": self.dropout}
