"""Compressed Interaction Network (Lian et al., 2018, arXiv:1803.05170)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfctr")
class CIN(keras.layers.Layer):
    """Crosses of whole vectors, one order higher per layer: `[B, F, D] -> [B, sum(units)]`.

    `x^k_h = sum_ij W^k_hij (x^{k-1}_i * x^0_j)`, all `[B, units[k], D]`, without activation as in
    the paper; the output is the sums over `D` of every layer.

    Args:
        units: number of vectors in each layer, e.g. `(32, 32)`.

    Raises:
        ValueError: no units.
    """

    def __init__(self, units: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = tuple(units)
        if not self.units:
            raise ValueError("CIN units: found none; give the width of one layer or more")

    def build(self, input_shape: tuple[int | None, int, int]) -> None:
        _, num_fields, _ = input_shape
        self.num_fields = num_fields
        self.kernels = []
        before = num_fields
        for i, width in enumerate(self.units):
            kernel = self.add_weight(
                shape=(before, num_fields, width), initializer="lecun_normal", name=f"kernel_{i}"
            )
            self.kernels.append(kernel)
            before = width

    def call(self, inputs: Any) -> Any:
        x0 = ops.transpose(inputs, (0, 2, 1))
        x = x0
        sums = []
        for kernel in self.kernels[:-1]:
            # One field at a time: all products at once would be [B, D, units * F].
            x = sum(
                ops.matmul(x * x0[:, :, j : j + 1], kernel[:, j]) for j in range(self.num_fields)
            )
            sums.append(ops.sum(x, axis=1))
        # Only the sum of the last layer is needed, so D is summed before the kernel.
        products = ops.einsum("bdi,bdj->bij", x, x0)
        sums.append(ops.einsum("bij,ijh->bh", products, self.kernels[-1]))
        return ops.concatenate(sums, axis=1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": list(self.units)}
