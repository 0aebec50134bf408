"""AutoInt (Song et al., 2019, arXiv:1810.11921)."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from tfctr.backbones.backbone import Backbone, register
from tfctr.layers.interacting import InteractingLayer
from tfctr.layers.mlp import MLP
from tfctr.schema import Schema


@register("autoint")
class AutoInt(Backbone):
    """Self-attention of the fields, and a deep tower (AutoInt+).

    `q = [flatten(attention(x)) ; mlp(flatten(x))]`; without `hidden_units` the attention only,
    which is plain AutoInt.

    Args:
        schema: the fields, in order.
        embedding_dim: int. Width `D` of each field's vector. Defaults to 16.
        num_attention_layers: int. Defaults to 3.
        num_heads: int. Of each attention layer. Defaults to 2.
        attention_dim: int. Width of one head, not of all together. Defaults to 16.
        hidden_units: widths of the deep tower. Defaults to `(256, 128)`.
        dropout: float. In the deep tower. Defaults to 0.

    `represent` takes `[B, F, D]`, gives `[B, F*num_heads*attention_dim + hidden_units[-1]]`.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        num_attention_layers: int = 3,
        num_heads: int = 2,
        attention_dim: int = 16,
        hidden_units: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, embedding_dim, **kwargs)
        self.num_attention_layers = num_attention_layers
        self.num_heads = num_heads
        self.attention_dim = attention_dim
        self.hidden_units = tuple(hidden_units)
        self.dropout = dropout
        self.attention = [
            InteractingLayer(num_heads, attention_dim, name=f"attention_{i}")
            for i in range(num_attention_layers)
        ]
        self.deep = MLP(hidden_units, dropout, name="deep")

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        x = embeddings
        for layer in self.attention:
            x = layer(x)
        attended = ops.reshape(x, (-1, x.shape[1] * x.shape[2]))
        if not self.hidden_units:
            return attended
        x0 = ops.reshape(embeddings, (-1, embeddings.shape[1] * embeddings.shape[2]))
        return ops.concatenate([attended, self.deep(x0, training=training)], axis=-1)
