"""Fusion of two streams by products (Mao et al., 2023, arXiv:2304.00902)."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfctr")
class BilinearFusion(keras.layers.Layer):
    """`[(x_1 W_1) * y_1 ; ... ; (x_H W_H) * y_H]` of the `H` equal parts of `x [B, n]`, `y [B, m]`.

    Returns `[B, m]`. A weighted sum of it is `sum_h x_h^T W'_h y_h`, with the weights in `W'`.

    Args:
        num_heads: int. `H`. Defaults to 1.

    Raises:
        ValueError: when built, `num_heads` does not divide both widths.
    """

    def __init__(self, num_heads: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def build(self, x_shape: tuple[Any, ...], y_shape: tuple[Any, ...]) -> None:
        n, m = x_shape[-1], y_shape[-1]
        if n % self.num_heads or m % self.num_heads:
            raise ValueError(f"num_heads: found {self.num_heads}; allowed: divisors of {n} and {m}")
        n, m = n // self.num_heads, m // self.num_heads
        limit = (6 / (n + m)) ** 0.5  # Glorot's for one head; Keras would count all heads together
        self.kernel = self.add_weight(
            shape=(self.num_heads, n, m),
            initializer=keras.initializers.RandomUniform(-limit, limit),
            name="kernel",
        )

    def call(self, x: Any, y: Any) -> Any:
        heads = ops.reshape(x, (-1, self.num_heads, x.shape[-1] // self.num_heads))
        left = ops.einsum("bhn,hnm->bhm", heads, self.kernel)
        return ops.reshape(left, (-1, y.shape[-1])) * y

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_heads": self.num_heads}
