"""Field weights computed from all fields (Huang et al., 2019, arXiv:1905.09433)."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfctr")
class SENET(keras.layers.Layer):
    """Multiplies each field by a weight: `[B, F, D] -> [B, F, D]`.

    `a = ReLU(W_2 ReLU(W_1 z) + b)` with `z_i` the mean of field `i`'s vector, then `a_i x_i`.

    The paper has no `b`. It starts at 1, so that fields are unchanged at first: without it, small
    initial embeddings give weights near 0, and for half of the fields a ReLU that stays at 0.

    Args:
        reduction_ratio: int. `F / reduction_ratio` hidden units, at least 1.
    """

    def __init__(self, reduction_ratio: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reduction_ratio = reduction_ratio

    def build(self, input_shape: tuple[Any, ...]) -> None:
        batch, fields = input_shape[:2]
        reduced = max(1, fields // self.reduction_ratio)
        self.squeeze = keras.layers.Dense(reduced, "relu", use_bias=False, name="squeeze")
        self.excite = keras.layers.Dense(fields, "relu", bias_initializer="ones", name="excite")
        self.squeeze.build((batch, fields))
        self.excite.build((batch, reduced))

    def call(self, inputs: Any) -> Any:
        weights = self.excite(self.squeeze(ops.mean(inputs, axis=2)))
        return inputs * ops.expand_dims(weights, 2)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"reduction_ratio": self.reduction_ratio}
