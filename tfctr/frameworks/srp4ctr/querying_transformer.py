"""Attention of learned queries to a user's events (Q-Former, arXiv:2301.12597, in SRP4CTR)."""

from typing import Any

import keras
from keras import ops

from tfctr.layers.attending_block import AttendingBlock, AttentionMask, by_heads
from tfctr.layers.flat_dense import FlatDense


@keras.saving.register_keras_serializable("tfctr")
class QueryingTransformer(keras.layers.Layer):
    """`m` learned queries, shifted by the user's fields, attend to each other and to the events.

    `P_u = P + reshape(W u)`, then blocks of self-attention and of attention to the events. The
    candidate is no input, so a request has one result for all candidates.

    Args:
        num_queries: int. `m`.
        dim: int. `d`, the events'.
        num_heads: int. Must divide `d`.
        num_blocks: int.
        dropout: float.
    """

    def __init__(
        self,
        num_queries: int,
        dim: int,
        num_heads: int,
        num_blocks: int,
        dropout: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_queries = num_queries
        self.dim = dim
        self.num_heads = num_heads
        self.num_blocks = num_blocks
        self.dropout = dropout
        self.queries = self.add_weight(
            (num_queries, dim),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="queries",
        )
        self.of_user = FlatDense(num_queries * dim, use_bias=False, name="of_user")
        names = ("own_key", "own_value", "key", "value")
        self.projections = [
            {name: FlatDense(dim, name=f"{name}_{i}") for name in names} for i in range(num_blocks)
        ]
        self.among = [
            AttendingBlock(num_heads, dropout, name=f"among_{i}") for i in range(num_blocks)
        ]
        self.events = [
            AttendingBlock(num_heads, dropout, name=f"events_{i}") for i in range(num_blocks)
        ]

    def build(self, user_shape: Any, events_shape: Any, attention_mask_shape: Any) -> None:
        if user_shape[-1]:
            self.of_user.build(user_shape)
        shape = (None, None, self.dim)
        for projections in self.projections:
            for layer in projections.values():
                layer.build(shape)
        for block in (*self.among, *self.events):
            block.build(shape)

    def call(
        self, user: Any, events: Any, attention_mask: AttentionMask, training: bool = False
    ) -> Any:
        """`[B, m, d]`.

        Args:
            user: `[B, U]`, the concatenated fields of user and context; `U` may be 0.
            events: `[B, L, d]`.
            attention_mask: of the events.
        """
        batch = ops.shape(events)[0]
        x = ops.broadcast_to(self.queries[None], (batch, self.num_queries, self.dim))
        if user.shape[-1]:
            x = x + ops.reshape(self.of_user(user), (-1, self.num_queries, self.dim))
        x = ops.reshape(x, (-1, self.dim))
        of_queries, of_events = (-1, self.num_queries), (-1, events.shape[1])
        events = ops.reshape(events, (-1, self.dim))
        for layers, among, to_events in zip(self.projections, self.among, self.events, strict=True):
            asking = (among.query, layers["own_key"], layers["own_value"])
            own = by_heads(x, of_queries, self.num_heads, asking)
            x = among(x, *own, training=training)
            query = by_heads(x, of_queries, self.num_heads, [to_events.query])
            looked_at = (layers["key"], layers["value"])
            found = by_heads(events, of_events, self.num_heads, looked_at)
            x = to_events(x, *query, *found, attention_mask, training=training)
        return ops.reshape(x, (*of_queries, self.dim))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_queries": self.num_queries,
            "dim": self.dim,
            "num_heads": self.num_heads,
            "num_blocks": self.num_blocks,
            "dropout": self.dropout,
        }
