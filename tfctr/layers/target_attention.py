"""Attention from the candidate to a history (DIN, Zhou et al., 2018, arXiv:1706.06978)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfctr.layers.flat_dense import FlatDense
from tfctr.layers.mlp import MLP


@keras.saving.register_keras_serializable("tfctr")
class TargetAttention(keras.layers.Layer):
    """The sum of a history's events, weighted by a small network that reads the candidate.

    `sum_i sigmoid(a(q, k_i)) k_i` over the events, `a` a network on `[q ; k ; q * k]`. The weights
    do not sum to one, as in the paper, so that the sum shows the strength of an interest. The
    paper's `q - k` would add nothing: the first layer is linear in `q` and `k`. Zero if there is
    no event.

    Args:
        units: widths of the network. At least one.
    """

    def __init__(self, units: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = tuple(units)
        if not self.units:
            raise ValueError("`units` should hold at least one width. Received: ()")
        self.of_query = FlatDense(self.units[0], name="of_query")
        self.of_event = FlatDense(self.units[0], use_bias=False, name="of_event")
        self.of_product = FlatDense(self.units[0], use_bias=False, name="of_product")
        self.hidden = MLP(self.units[1:], name="hidden")
        self.score = FlatDense(1, name="score")

    def build(self, query_shape: tuple[Any, ...], keys_shape: Any, exists_shape: Any) -> None:
        batch, _, width = query_shape
        self.of_query.build((batch, None, 1, width))
        self.of_event.build(keys_shape)
        self.of_product.build(keys_shape)
        self.hidden.build((batch, None, None, self.units[0]))
        self.score.build((batch, None, None, self.units[-1]))

    def call(self, query: Any, keys: Any, exists: Any) -> Any:
        """The sums `[B, N, Q]`, from `N` candidates a row.

        Args:
            query: `[B, N, Q]`.
            keys: `[B, N, L, Q]`, or `[B, 1, L, Q]` if all candidates have the same events.
            exists: bool `[B, N, L]` or `[B, 1, L]`.
        """
        query = ops.expand_dims(query, 2)
        # The first layer in three parts: the query's is the same for all events, an event's for all
        # candidates, and no tensor `[q ; k ; q * k]` is made.
        x = self.of_query(query) + self.of_event(keys) + self.of_product(query * keys)
        scores = self.score(self.hidden(ops.relu(x)))
        weights = ops.sigmoid(scores) * ops.expand_dims(ops.cast(exists, scores.dtype), 3)
        return ops.sum(weights * keys, axis=2)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": list(self.units)}
