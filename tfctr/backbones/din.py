"""Deep Interest Network (Zhou et al., 2018, arXiv:1706.06978)."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from tfctr.backbones.backbone import register
from tfctr.backbones.sequence_backbone import SequenceBackbone
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
        hidden_units: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, embedding_dim, hidden_units, dropout, **kwargs)
        self.attention_units = tuple(attention_units)
        self.positions = positions
        self.recency = Positions(name="recency") if positions else None
        self.attention = TargetAttention(attention_units, name="attention")

    def attend(self, query: Any, keys: Any, exists: Any) -> Any:
        if self.recency is not None:
            keys = self.recency(keys)
        interest = self.attention(query, keys, exists)
        return ops.reshape(interest, (-1, query.shape[1] // self.field_dim, self.field_dim))
