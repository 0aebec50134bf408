"""A dense layer for tensors of more than two axes."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfctr")
class FlatDense(keras.layers.Dense):
    """`keras.layers.Dense` on `[..., Q]`, as one matrix product of `[rows, Q]` and the kernel.

    For more than two axes Keras uses `tensordot`, which computes shapes with ten more operations
    and keeps TensorFlow from fusing product, bias and activation. This forward pass takes half
    the time (`benchmarks/dense.py`).
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """`[..., units]`."""
        if len(inputs.shape) < 3:
            return super().call(inputs, training=training)
        flat = super().call(ops.reshape(inputs, (-1, inputs.shape[-1])), training=training)
        leading = inputs.shape[:-1]
        if sum(size is None for size in leading) > 1:
            leading = ops.shape(inputs)[:-1]
        shape = [-1 if size is None else size for size in leading]
        return ops.reshape(flat, (*shape, self.units))
