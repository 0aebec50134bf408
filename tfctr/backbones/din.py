"""Deep Interest Network (Zhou et al., 2018, arXiv:1706.06978)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from keras import ops

from tfctr.backbones.backbone import register
from tfctr.backbones.sequence_backbone import SequenceBackbone
from tfctr.layers.attending_block import NO_WEIGHT
from tfctr.layers.positions import Positions
from tfctr.layers.target_attention import TargetAttention
from tfctr.schema import Schema


@register("din")
class DIN(SequenceBackbone):
    """Attention from the candidate to the events of the history, and an MLP over all fields.

    Args:
        schema: the fields, in order, with a sequence that shares a feature of the item.
        embedding_dim: int. Width `D` of each field's vector. Defaults to 16.
        attention_units: widths of the attention network. Defaults to `(64, 32)`.
        positions: bool. Whether events get learned position vectors, counted from the latest. The
            paper has none. Defaults to True.
        top_events: int. The candidate attends to so many events only, those with the greatest inner
            product of their vector with its own (ETA, Chen et al., 2021, arXiv:2108.04468, without
            hashing; SIM, arXiv:2006.05639). So a long history costs little more than a short one.
            Defaults to 0, all events.
        hidden_units: widths of the MLP. Defaults to `(256, 128)`.
        dropout: float. In the MLP. Defaults to 0.

    `embed` gives `[B, F - H + n, D]` where `H` sequences share `n` features of the item;
    `represent` takes `[B, F', D]` and gives `[B, hidden_units[-1]]`.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        attention_units: Sequence[int] = (64, 32),
        positions: bool = True,
        top_events: int = 0,
        hidden_units: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, embedding_dim, hidden_units, dropout, **kwargs)
        self.attention_units = tuple(attention_units)
        self.positions = positions
        self.top_events = top_events
        self.recency = Positions(name="recency") if positions else None
        self.attention = TargetAttention(attention_units, name="attention")

    def attend(self, query: Any, keys: Any, exists: Any) -> Any:
        return self.attend_candidates(ops.expand_dims(query, 1), keys, exists)

    def attend_candidates(self, query: Any, keys: Any, exists: Any) -> Any:
        placed = keys if self.recency is None else self.recency(keys)
        if 0 < self.top_events < keys.shape[1]:
            similarity = ops.matmul(query, ops.transpose(keys, (0, 2, 1)))
            similarity = ops.where(exists[:, None], similarity, NO_WEIGHT)
            places = tf.math.top_k(similarity, self.top_events, sorted=False).indices
            placed, exists = (tf.gather(of, places, batch_dims=1) for of in (placed, exists))
        else:
            placed, exists = placed[:, None], exists[:, None]
        interest = self.attention(query, placed, exists)
        return ops.reshape(interest, (-1, query.shape[2] // self.field_dim, self.field_dim))
