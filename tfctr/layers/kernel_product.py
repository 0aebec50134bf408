"""Products of pairs of fields, each with its own matrix (Qu et al., 2018)."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfctr")
class KernelProduct(keras.layers.Layer):
    """`e_i W_ij e_j` for all pairs `i < j`: `[B, F, D] -> [B, F(F-1)/2]`.

    It is the outer product of the pair, summed with weights: `sum_de W_ij[d, e] e_i[d] e_j[e]`
    (arXiv:1807.00311). Pairs are in the order (0, 1), (0, 2), ... (1, 2), ...
    """

    def build(self, input_shape: tuple[int | None, int, int]) -> None:
        _, num_fields, dim = input_shape
        self.num_fields = num_fields
        self.kernel = self.add_weight(
            shape=(num_fields * (num_fields - 1) // 2, dim, dim),
            initializer=keras.initializers.RandomNormal(stddev=dim**-0.5),
            name="kernel",
        )

    def call(self, inputs: Any) -> Any:
        fields = ops.unstack(inputs, num=self.num_fields, axis=1)
        products = []
        first = 0
        for i in range(self.num_fields - 1):
            others = ops.stack(fields[i + 1 :], axis=1)
            kernels = self.kernel[first : first + others.shape[1]]
            first += others.shape[1]
            left = ops.einsum("bd,pde->bpe", fields[i], kernels)
            products.append(ops.sum(left * others, axis=2))
        return ops.concatenate(products, axis=1)
