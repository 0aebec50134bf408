"""xDeepFM (Lian et al., 2018, arXiv:1803.05170)."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from tfctr.backbones.backbone import register
from tfctr.backbones.first_order_backbone import FirstOrderBackbone
from tfctr.layers.cin import CIN
from tfctr.layers.mlp import MLP
from tfctr.schema import Schema


@register("xdeepfm")
class XDeepFM(FirstOrderBackbone):
    """A compressed interaction network, a linear part and a deep tower, on the same vectors.

    A field's vector has one more number than `embedding_dim`: its weight in the linear part.
    `q = [mlp(x) ; cin(x) ; sum of weights]`.

    Args:
        schema: the fields, in order.
        embedding_dim: int. Width `D` of the vectors that are multiplied. Defaults to 16.
        cin_units: vectors in each layer of the interaction network; the paper has up to three
            layers of 100 to 200, at `D * F * cin_units[i] * cin_units[i+1]` products a row.
            Defaults to `(32, 32)`.
        hidden_units: widths of the deep tower. Defaults to `(256, 128)`.
        dropout: float. In the deep tower. Defaults to 0.

    `represent` takes `[B, F, D + 1]` and gives `[B, hidden_units[-1] + sum(cin_units) + 1]`.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        cin_units: Sequence[int] = (32, 32),
        hidden_units: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, embedding_dim, **kwargs)
        self.cin_units = tuple(cin_units)
        self.hidden_units = tuple(hidden_units)
        self.dropout = dropout
        self.cin = CIN(cin_units, name="cin")
        self.deep = MLP(hidden_units, dropout, name="deep")

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        vectors, first_order = self.split(embeddings)
        deep = self.deep(
            ops.reshape(vectors, (-1, vectors.shape[1] * vectors.shape[2])), training=training
        )
        return ops.concatenate([deep, self.cin(vectors), first_order], axis=-1)
