"""Prompts for a language model from a CTR model's representation (arXiv:2310.09234)."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfctr")
class PromptGenerator(keras.layers.Layer):
    """`u = tanh(W q + b)`, then one dense layer for all prompts.

    Args:
        num_prompts: int. `K`.
        num_layers: int. `L`, of the encoder.
        num_heads: int. Of the encoder.
        width: int. `H`, of the encoder.
        where: `"layers"`: keys and values of each of the encoder's layers,
            `[B, L, 2, K, heads, H / heads]`; `"input"`: vectors `[B, K, H]` before the first.

    Takes `[B, q]`.
    """

    def __init__(
        self,
        num_prompts: int,
        num_layers: int,
        num_heads: int,
        width: int,
        where: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if where not in ("layers", "input"):
            raise ValueError(f"`where` should be 'layers' or 'input'. Received: {where!r}")
        self.num_prompts = num_prompts
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.width = width
        self.where = where
        self.inner = keras.layers.Dense(width, activation="tanh", name="inner")
        size = num_prompts * width * (2 * num_layers if where == "layers" else 1)
        self.outer = keras.layers.Dense(size, name="outer")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.inner.build(input_shape)
        self.outer.build((None, self.width))

    def call(self, representation: Any) -> Any:
        found = self.outer(self.inner(representation))
        if self.where == "input":
            return ops.reshape(found, (-1, self.num_prompts, self.width))
        heads = (self.num_heads, self.width // self.num_heads)
        return ops.reshape(found, (-1, self.num_layers, 2, self.num_prompts, *heads))

    def prompt(self, representation: Any) -> dict[str, Any]:
        """The prompts, by the name of the encoder's argument."""
        return {"prefixes" if self.where == "layers" else "prompts": self(representation)}

    def get_config(self) -> dict[str, Any]:
        names = ("num_prompts", "num_layers", "num_heads", "width", "where")
        return super().get_config() | {name: getattr(self, name) for name in names}
