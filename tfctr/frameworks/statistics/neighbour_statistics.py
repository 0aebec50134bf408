"""Statistics of the events whose items are similar to a candidate."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

FADINGS = (15.0, 60.0)  # events after which one weighs 1 / e
TOP = 15  # watched neighbours
NUMBERS = 6 + len(FADINGS)
# Added to the sums of similarities that a mean is divided by: the fewer there are, the closer is
# the mean to 0.
PRIOR, TOP_PRIOR, SQUARE_PRIOR, FADING_PRIOR = 0.5, 0.2, 0.02, 0.3


@keras.saving.register_keras_serializable("tfctr")
class NeighbourStatistics(keras.layers.Layer):
    """What a user said of the items that are similar to a candidate.

    `d` is a deviation less the mean deviation of the user's latest 50 events, `s` the similarity of
    an event's item to the candidate; sums are over events with neighbours of the candidate. The
    numbers are `Σ s d / Σ |s|`, `Σ |s|`, `Σ s |s| d / Σ s²`; over the 15 most similar items alone
    the mean of `d` and of the deviation, weighted by `s`; `Σ s d / Σ |s|` of events that fade,
    twice; and the greatest `s`.

    `encode` sorts a user's events by item, so that `of_candidates` finds those of a neighbour by
    binary search: its cost hardly grows with the history.

    Args:
        num_rows: int. Ids of items of all populations.
        neighbours: int. `K` of each item.
    """

    def __init__(self, num_rows: int, neighbours: int, **kwargs: Any) -> None:
        super().__init__(trainable=False, dtype="float32", **kwargs)
        self.num_rows = num_rows
        self.neighbours = neighbours

    def build(self, input_shape: Any = None) -> None:
        shape = (self.num_rows, self.neighbours)
        self.ids = self.add_weight(shape, "zeros", "int32", trainable=False, name="ids")
        self.similarities = self.add_weight(
            shape, "zeros", trainable=False, autocast=False, name="similarities"
        )
        self.built = True

    def set_tables(self, ids: np.ndarray, similarities: np.ndarray) -> None:
        """Takes ids and similarities `[rows, K]` of items, by falling absolute similarity."""
        self.ids.assign(ids)
        self.similarities.assign(similarities)

    def encode(self, items: Any, deviation: Any, usual: Any, known: Any, lag: Any) -> list[Any]:
        """A user's events by item.

        Args:
            items: ids `[B, L]`.
            deviation, known, lag: float `[B, L]`; events that are not known do not count, and have
                the deviation 0.
            usual: float `[B, 1]`. Mean deviation of the user.

        Returns:
            The ids, ascending, int32 `[B, L]`; and cumulative sums `[B, L + 1, C]` of the events in
            this order.
        """
        residual = (deviation - usual) * known
        found = [known, deviation, residual]
        for fading in FADINGS:
            weight = ops.exp(-lag / fading)
            found += [known * weight, residual * weight]
        order = ops.argsort(items, axis=1)
        by_item = tf.gather(ops.stack(found, axis=2), order, batch_dims=1)
        sums = ops.pad(ops.cumsum(by_item, axis=1), ((0, 0), (1, 0), (0, 0)))
        return [tf.gather(ops.cast(items, "int32"), order, batch_dims=1), sums]

    def of_candidates(self, items: Any, sums: Any, rows: Any) -> list[Any]:
        """The numbers, each `[B, N, 1]`.

        Args:
            items, sums: from `encode`.
            rows: int `[B, N]`, the candidates' rows of the tables.
        """
        similarity = ops.take(self.similarities, rows, axis=0)
        neighbours = ops.reshape(ops.take(self.ids, rows, axis=0), (ops.shape(rows)[0], -1))
        first = tf.searchsorted(items, neighbours, side="left")
        behind = tf.searchsorted(items, neighbours, side="right")
        own = tf.gather(sums, behind, batch_dims=1) - tf.gather(sums, first, batch_dims=1)
        own = ops.reshape(own, (*ops.shape(similarity), sums.shape[2]))
        strength = ops.abs(similarity)
        is_similar = ops.cast(ops.logical_and(own[..., 0] > 0.5, similarity > 0), "float32")
        watched = similarity * is_similar
        top = watched * ops.cast(ops.cumsum(is_similar, axis=2) <= TOP, "float32")
        weights = [similarity, strength, similarity * strength, strength**2, top]
        sums = ops.matmul(ops.stack(weights, axis=2), own)  # `[B, N, 5, C]`
        signed, absolute, squared, square, best = ops.unstack(sums, axis=2)

        def mean(numerator: Any, column: int, weight: Any, prior: float, of: int = 0) -> Any:
            return numerator[..., column] / (weight[..., of] + prior)

        found = [
            mean(signed, 2, absolute, PRIOR),
            absolute[..., 0],
            mean(squared, 2, square, SQUARE_PRIOR),
            mean(best, 2, best, TOP_PRIOR),
            mean(best, 1, best, TOP_PRIOR),
        ]
        for number in range(len(FADINGS)):
            weight, value = 3 + 2 * number, 4 + 2 * number
            found.append(mean(signed, value, absolute, FADING_PRIOR, of=weight))
        found.append(ops.max(watched, axis=2))
        return [ops.expand_dims(number, 2) for number in found]

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "num_rows": self.num_rows, "neighbours": self.neighbours}
