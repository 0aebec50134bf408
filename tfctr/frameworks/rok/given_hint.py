"""The teacher's own hint in place of a knowledge base: what a perfect imitation would bring."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfctr.frameworks.rok.imitation import standardised
from tfctr.retrieval.similar_rows import HINT


@keras.saving.register_keras_serializable("tfctr")
class GivenHint(keras.layers.Layer):
    """Hints as side outputs, standardised. They take a search, so a server does not have them.

    Args:
        size: int. Numbers of a hint.
    """

    built: bool

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self.size = size

    @property
    def reads(self) -> tuple[str, ...]:
        return (HINT,)

    def build(self, input_shape: Any = None) -> None:
        if not self.built:
            self.mean = self.add_weight((self.size,), "zeros", trainable=False, name="mean")
            self.std = self.add_weight((self.size,), "ones", trainable=False, name="std")
            self.built = True

    def set_scale(self, mean: Any, std: Any) -> None:
        """Takes what the numbers are standardised by, `[size]`."""
        self.mean.assign(mean)
        self.std.assign(std)

    def call(self, features: Mapping[str, Any]) -> Any:
        """`[B, size]`."""
        return standardised(features[HINT], self.mean, self.std)

    def _empty_row(self) -> dict[str, np.ndarray]:
        return {HINT: np.zeros((1, self.size), "float32")}

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "size": self.size}
