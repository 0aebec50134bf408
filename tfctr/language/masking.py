"""Masks tokens of texts (Devlin et al., 2019, arXiv:1810.04805)."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tfctr.models.masking import choose

MASKED, RANDOM = 0.8, 0.1  # shares of the chosen tokens; the others are unchanged


def mask_tokens(
    tokens: Any, special: Mapping[str, int], candidates: np.ndarray, rate: float, seed: Any
) -> tuple[Any, Any, Any]:
    """Masks a share of each text's tokens.

    Of a text's `n` tokens that are not special, `round(rate * n)` are chosen, at least one if it
    has any; of these, 80% are replaced by the mask, 10% by a random token, and 10% are left.

    Args:
        tokens: int32 `[B, T]`.
        special: ids of `pad`, `start`, `end` and `mask`.
        candidates: int `[V']`, to draw random tokens from.
        rate: float.
        seed: a seed of `keras.random`.

    Returns:
        Masked tokens `[B, T]`; int32 `[B, P]`, the places of the chosen tokens; bool `[B, P]`,
        false where a text has fewer.
    """
    draws = keras.random.uniform((3, *ops.shape(tokens)), seed=seed)
    words = ops.ones_like(tokens, dtype="bool")
    for name in ("pad", "start", "end"):
        words = ops.logical_and(words, ops.not_equal(tokens, special[name]))
    places, chosen, is_chosen = choose(words, draws[0], rate)
    random = ops.take(
        ops.convert_to_tensor(candidates, dtype="int32"),
        ops.cast(ops.floor(draws[2] * len(candidates)), "int32"),
    )
    kept = draws[1] >= MASKED + RANDOM
    masked = ops.where(draws[1] < MASKED, special["mask"], ops.where(kept, tokens, random))
    return ops.where(is_chosen, masked, tokens), places, chosen
