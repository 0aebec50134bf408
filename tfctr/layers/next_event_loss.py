"""A loss that predicts the next event from a state (DIEN, Zhou et al., 2019)."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfctr")
class NextEventLoss(keras.layers.Layer):
    """Adds the paper's auxiliary loss in training; returns the states unchanged.

    The log loss of `sigmoid(<h_t, e_{t+1}>)` against 1, plus that of `sigmoid(<h_t, e'_{t+1}>)`
    against 0, each a mean over pairs of events. `e'` is the event of another row, half a batch
    away, so that it is no neighbour in the log. The paper samples it from all items.

    Args:
        weight: float. Weight of this loss; the log loss of clicks has 1. 0: no such loss.
    """

    def __init__(self, weight: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weight = weight

    def call(self, states: Any, events: Any, exists: Any, training: bool = False) -> Any:
        """`states [B, L, Q]`, `events [B, L, Q]`, `exists` bool `[B, L]` -> `states`."""
        if training and self.weight:
            half, last = ops.shape(exists)[0] // 2, exists.shape[1] - 1
            # Splits, because the gradient of a slice is a whole tensor padded with zeros.
            now, _ = ops.split(states, [last], axis=1)
            _, following = ops.split(events, [1], axis=1)
            others = ops.roll(following, half, axis=0)
            pairs = ops.logical_and(exists[:, :-1], exists[:, 1:])
            both = ops.logical_and(pairs, ops.roll(exists[:, 1:], half, axis=0))
            came = _mean(ops.softplus(-_scores(now, following)), pairs)
            did_not = _mean(ops.softplus(_scores(now, others)), both)
            self.add_loss(self.weight * (came + did_not))
        return states

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"weight": self.weight}


def _scores(states: Any, events: Any) -> Any:
    return ops.cast(ops.sum(states * events, axis=-1), "float32")


def _mean(values: Any, chosen: Any) -> Any:
    chosen = ops.cast(chosen, values.dtype)
    return ops.sum(values * chosen) / ops.maximum(ops.sum(chosen), 1)
