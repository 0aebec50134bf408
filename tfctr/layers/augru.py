"""A GRU with an attentional update gate (DIEN, Zhou et al., 2019, arXiv:1809.03672)."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfctr")
class AUGRU(keras.layers.Layer):
    """Reads a sequence with more care where the weights are larger; gives its last state.

    `u, r = sigmoid(W x + U h + b)`, `c = tanh(W' x + r * U' h + b')`,
    `h <- (1 - a u) * h + a u * c`, from `h = 0`. An event of weight `a = 0` changes nothing.

    Args:
        units: int. Width of the state.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.gates = keras.layers.Dense(3 * units, name="gates")
        self.steps = keras.layers.RNN(_Step(units, name="step"), name="steps")

    def build(self, inputs_shape: tuple[int | None, ...], weights_shape: Any) -> None:
        self.gates.build(inputs_shape)
        self.steps.build((*inputs_shape[:-1], 3 * self.units + 1))

    def call(self, inputs: Any, weights: Any) -> Any:
        """`inputs [B, L, Q]`, `weights [B, L]` -> `[B, units]`."""
        gates = self.gates(inputs)  # `W x + b` of all steps at once
        return self.steps(ops.concatenate([gates, ops.expand_dims(weights, 2)], axis=-1))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": self.units}


@keras.saving.register_keras_serializable("tfctr")
class _Step(keras.layers.Layer):
    """From `[W x + b ; a]` and `h` to the next `h`."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.state_size = units

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.recurrent = self.add_weight(
            shape=(self.units, 3 * self.units), initializer="orthogonal", name="recurrent"
        )

    def call(self, inputs: Any, states: Any) -> tuple[Any, Any]:
        (h,) = states
        n = self.units
        new, old = inputs[:, :-1], ops.matmul(h, self.recurrent)
        gates = ops.sigmoid(new[:, : 2 * n] + old[:, : 2 * n])
        candidate = ops.tanh(new[:, 2 * n :] + gates[:, n:] * old[:, 2 * n :])
        update = inputs[:, -1:] * gates[:, :n]
        h = h + update * (candidate - h)
        return h, [h]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": self.units}
