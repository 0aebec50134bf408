"""A GRU with an attentional update gate (DIEN, Zhou et al., 2019, arXiv:1809.03672)."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfctr")
class AUGRU(keras.layers.Layer):
    """A GRU whose update gate is scaled by attention weights; returns the state after each event.

    `u, r = sigmoid(W x + U h + b)`, `c = tanh(W' x + r * U' h + b')`,
    `h <- (1 - a u) * h + a u * c`, from `h = 0`. An event of weight `a = 0` changes nothing; if
    all weights are 1 this is a GRU (Cho et al., 2014, arXiv:1406.1078).

    Args:
        units: int. Width of the state.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.gates = keras.layers.Dense(3 * units, name="gates")

    def build(self, inputs_shape: tuple[int | None, ...], weights_shape: Any) -> None:
        self.gates.build(inputs_shape)
        self.recurrent = self.add_weight(
            shape=(self.units, 3 * self.units), initializer="orthogonal", name="recurrent"
        )

    def call(self, inputs: Any, weights: Any) -> Any:
        """`inputs [B, L, Q]`, `weights [B, L]` -> `[B, L, units]`."""
        gates = self.gates(ops.transpose(inputs, (1, 0, 2)))  # `W x + b` of all steps at once
        weights = ops.expand_dims(ops.transpose(weights), 2)
        start = ops.zeros((ops.shape(inputs)[0], self.units), gates.dtype)
        _, states = ops.scan(self._step, start, (gates, weights))
        return ops.transpose(states, (1, 0, 2))

    def _step(self, h: Any, of_event: tuple[Any, Any]) -> tuple[Any, Any]:
        new, weight = of_event
        # Splits, because the gradient of a slice is a whole tensor padded with zeros.
        new, new_candidate = ops.split(new, [2 * self.units], axis=1)
        old, old_candidate = ops.split(ops.matmul(h, self.recurrent), [2 * self.units], axis=1)
        update, reset = ops.split(ops.sigmoid(new + old), 2, axis=1)
        candidate = ops.tanh(new_candidate + reset * old_candidate)
        h = h + weight * update * (candidate - h)
        return h, h

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": self.units}
