"""Learned positions (BERT, Devlin et al., 2019, arXiv:1810.04805)."""

from typing import Any

import keras


@keras.saving.register_keras_serializable("tfctr")
class Positions(keras.layers.Layer):
    """Adds a learned vector to each position of a sequence: `[B, L, Q] -> [B, L, Q]`."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.table = self.add_weight(
            shape=input_shape[1:],
            initializer=keras.initializers.RandomNormal(stddev=0.01),
            name="table",
        )

    def call(self, inputs: Any) -> Any:
        return inputs + self.table
