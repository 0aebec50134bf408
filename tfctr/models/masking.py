"""Chooses a share of each row's places to be masked and predicted.

`keras_hub.layers.MaskedLMMaskGenerator` does not fit: it takes no seed, so validation rows would
have other masks each time, and it needs a row's tokens, where the parts of an event are masked
together. Nor can it draw random tokens from a part of the vocabulary, as texts need.
"""

import math
from typing import Any

from keras import ops


def choose(eligible: Any, draws: Any, rate: float) -> tuple[Any, Any, Any]:
    """Chooses `round(rate * n)` of a row's `n` eligible places, at least one if it has any.

    Args:
        eligible: bool `[B, T]`.
        draws: float `[B, T]` in `[0, 1)`; the places with the greatest are chosen.
        rate: float.

    Returns:
        int32 `[B, P]`, the chosen places; bool `[B, P]`, false where a row has fewer; bool
        `[B, T]`, the same by place.
    """
    size = eligible.shape[1]
    most = max(1, math.floor(rate * size + 0.5))
    count = ops.sum(ops.cast(eligible, "float32"), axis=1)
    wanted = ops.where(count > 0, ops.maximum(ops.floor(rate * count + 0.5), 1), 0)
    _, places = ops.top_k(ops.where(eligible, draws, -1.0), most)
    chosen = ops.cast(ops.arange(most), "float32")[None, :] < wanted[:, None]
    is_chosen = ops.any(
        ops.logical_and(
            ops.equal(places[:, :, None], ops.arange(size, dtype="int32")), chosen[:, :, None]
        ),
        axis=1,
    )
    return places, chosen, is_chosen
