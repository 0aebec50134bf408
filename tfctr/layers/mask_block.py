"""Hidden layers masked by the instance (Wang et al., 2021, arXiv:2102.07619)."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfctr")
class MaskBlock(keras.layers.Layer):
    """`ReLU(LN(W (mask * hidden)))` with `mask = W_2 ReLU(W_1 x + b_1) + b_2`: `[B, units]`.

    `call(x, hidden)`: the instance `x [B, n]` makes the mask of `hidden [B, m]`.

    Args:
        units: int. Width of the output.
        reduction_ratio: float. `m * reduction_ratio` hidden units between `W_1` and `W_2`.
            Defaults to 2.
    """

    def __init__(self, units: int, reduction_ratio: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.reduction_ratio = reduction_ratio

    def build(self, x_shape: tuple[Any, ...], hidden_shape: tuple[Any, ...]) -> None:
        width = hidden_shape[-1]
        aggregated = max(1, int(width * self.reduction_ratio))
        self.aggregate = keras.layers.Dense(aggregated, activation="relu", name="aggregate")
        self.project = keras.layers.Dense(width, name="project")
        self.dense = keras.layers.Dense(self.units, use_bias=False, name="dense")
        # Its inputs are as small as the initial rows.
        self.norm = keras.layers.LayerNormalization(epsilon=1e-12, name="norm")
        self.aggregate.build(x_shape)
        self.project.build((x_shape[0], aggregated))
        self.dense.build(hidden_shape)
        self.norm.build((x_shape[0], self.units))

    def call(self, x: Any, hidden: Any) -> Any:
        mask = self.project(self.aggregate(x))
        return ops.relu(self.norm(self.dense(mask * hidden)))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "units": self.units,
            "reduction_ratio": self.reduction_ratio,
        }
