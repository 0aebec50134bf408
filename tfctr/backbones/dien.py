"""Deep Interest Evolution Network (Zhou et al., 2019, arXiv:1809.03672)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from tfctr.backbones.backbone import register
from tfctr.backbones.sequence_backbone import SequenceBackbone
from tfctr.layers.augru import AUGRU
from tfctr.layers.next_event_loss import NextEventLoss
from tfctr.schema import Schema


@register("dien")
class DIEN(SequenceBackbone):
    """Models the evolution of the user's interest in the candidate.

    A GRU reads the events; `a_t = softmax(<h_t, W q>)` over them; an AUGRU reads the states `h`
    with these weights, and its last state goes into an MLP with the fields.

    Args:
        schema: the fields, in order, with a sequence that shares a feature of the item.
        embedding_dim: int. Width `D` of each field's vector. Defaults to 16.
        auxiliary_weight: float. Weight of the loss, in training, that predicts the next event from
            each state; 0: no such loss. Defaults to 1, as in the paper.
        hidden_units: widths of the MLP. Defaults to `(256, 128)`.
        dropout: float. In the MLP. Defaults to 0.

    `embed` gives `[B, F - H + n, D]` where `H` sequences share `n` features of the item;
    `represent` takes `[B, F', D]` and gives `[B, hidden_units[-1]]`.
    """

    oldest_first: ClassVar[bool] = True

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        auxiliary_weight: float = 1.0,
        hidden_units: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, embedding_dim, hidden_units, dropout, **kwargs)
        self.auxiliary_weight = auxiliary_weight
        width = self.behaviours.width
        self.extraction = AUGRU(width, name="extraction")
        self.next_event = NextEventLoss(auxiliary_weight, name="next_event")
        self.meeting = keras.layers.Dense(width, use_bias=False, name="meeting")
        self.evolution = AUGRU(width, name="evolution")

    def attend(self, query: Any, keys: Any, exists: Any) -> Any:
        # No step needs a mask: padding is at the end, and its weight is 0.
        always = ops.ones_like(keys[:, :, 0])  # a GRU
        states = self.next_event(self.extraction(keys, always), keys, exists)
        scores = ops.sum(states * ops.expand_dims(self.meeting(query), 1), axis=-1)
        weights = ops.softmax(ops.where(exists, scores, -3e4))  # within float16
        interest = self.evolution(states, weights * ops.cast(exists, weights.dtype))[:, -1]
        return ops.reshape(interest, (-1, query.shape[1] // self.field_dim, self.field_dim))
