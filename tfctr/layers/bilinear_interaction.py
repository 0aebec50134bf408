"""Bilinear products of pairs of fields (Huang et al., 2019, arXiv:1905.09433)."""

from typing import Any

import keras
from keras import ops

BILINEAR = ("all", "each", "interaction")


@keras.saving.register_keras_serializable("tfctr")
class BilinearInteraction(keras.layers.Layer):
    """`(x_i W) * x_j` for the pairs of fields `i < j`: `[B, F, D] -> [B, F(F-1)/2, D]`.

    Pairs come in the order (0, 1), (0, 2), ..., (1, 2), ...

    Args:
        bilinear: which pairs share a `W [D, D]`: `"all"`, `"each"` those with the same `i`,
            `"interaction"` none. Defaults to `"interaction"`.

    Raises:
        ValueError: another `bilinear`; when built, fewer than two fields.
    """

    def __init__(self, bilinear: str = "interaction", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if bilinear not in BILINEAR:
            raise ValueError(f"bilinear: found {bilinear!r}; allowed: {', '.join(BILINEAR)}")
        self.bilinear = bilinear

    def build(self, input_shape: tuple[Any, ...]) -> None:
        _, fields, dim = input_shape
        if fields < 2:
            raise ValueError(f"bilinear interactions need at least 2 fields, found {fields}")
        pairs = fields * (fields - 1) // 2
        matrices = {"all": 1, "each": fields - 1, "interaction": pairs}[self.bilinear]
        limit = (3 / dim) ** 0.5  # Glorot's for one matrix; Keras would treat all as a convolution
        self.kernel = self.add_weight(
            shape=(dim, matrices, dim),
            initializer=keras.initializers.RandomUniform(-limit, limit),
            name="kernel",
        )

    def call(self, inputs: Any) -> Any:
        _, fields, dim = inputs.shape
        products = []
        first = 0
        # A step per field, not per pair; one batched product over all pairs is much slower.
        for i in range(fields - 1):
            count = fields - 1 - i if self.bilinear == "interaction" else 1
            kernel = ops.reshape(self.kernel[:, first : first + count], (dim, count * dim))
            left = ops.reshape(ops.matmul(inputs[:, i], kernel), (-1, count, dim))
            products.append(left * inputs[:, i + 1 :])
            if self.bilinear != "all":
                first += count
        return ops.concatenate(products, axis=1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"bilinear": self.bilinear}
