"""Factorization machine: all pairs of fields (Rendle, 2010)."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfctr")
class FactorizationMachine(keras.layers.Layer):
    """Sum over pairs of fields of the product of their vectors: `[B, F, D] -> [B, 1]`.

    `sum_{i<j} <e_i, e_j> = 1/2 * sum_d ((sum_i e_id)^2 - sum_i e_id^2)`.
    """

    def call(self, inputs: Any) -> Any:
        square_of_sum = ops.square(ops.sum(inputs, axis=1))
        sum_of_squares = ops.sum(ops.square(inputs), axis=1)
        return 0.5 * ops.sum(square_of_sum - sum_of_squares, axis=1, keepdims=True)
