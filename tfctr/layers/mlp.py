"""A tower of dense layers."""

from collections.abc import Sequence
from typing import Any

import keras

TRAINED_OTHERWISE = (keras.layers.Dropout, keras.layers.BatchNormalization)


@keras.saving.register_keras_serializable("tfctr")
class MLP(keras.layers.Layer):
    """`[..., n] -> [..., units[-1]]`: dense, ReLU and dropout for each width.

    Args:
        units: widths, e.g. `(256, 128)`. Without any, the input is returned.
        dropout: float. Share of activations dropped after each layer. Defaults to 0.
        batch_norm: bool. Activations are normalised over the batch before each ReLU. Defaults to
            False.
    """

    def __init__(
        self,
        units: Sequence[int],
        dropout: float = 0.0,
        batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = tuple(units)
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.stack = []
        for i, width in enumerate(self.units):
            activation = None if batch_norm else "relu"
            self.stack.append(keras.layers.Dense(width, activation=activation, name=f"dense_{i}"))
            if batch_norm:
                # Keras' 0.99 would need hundreds of steps; a day of ads has some tens.
                norm = keras.layers.BatchNormalization(momentum=0.9, name=f"norm_{i}")
                self.stack += [norm, keras.layers.ReLU(name=f"relu_{i}")]
            if dropout:
                self.stack.append(keras.layers.Dropout(dropout, name=f"dropout_{i}"))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for layer in self.stack:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def call(self, inputs: Any, training: bool = False, first: int = 0) -> Any:
        """`first`: the layer of the stack that reads `inputs`, for whoever computed those before
        it."""
        x = inputs
        for layer in self.stack[first:]:
            x = layer(x, training=training) if isinstance(layer, TRAINED_OTHERWISE) else layer(x)
        return x

    def get_config(self) -> dict[str, Any]:
        names = ("dropout", "batch_norm")
        return (
            super().get_config()
            | {"units": list(self.units)}
            | {k: getattr(self, k) for k in names}
        )
