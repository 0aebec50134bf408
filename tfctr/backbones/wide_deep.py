"""Wide & Deep (Cheng et al., 2016, arXiv:1606.07792)."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from tfctr.backbones.backbone import register
from tfctr.backbones.first_order_backbone import FirstOrderBackbone
from tfctr.layers.mlp import MLP
from tfctr.schema import Schema


@register("wide_deep")
class WideDeep(FirstOrderBackbone):
    """A linear part over all values, and a deep tower: `q = [mlp(x) ; sum of weights]`.

    A field's vector has one more number than `embedding_dim`: its weight in the linear part. The
    paper's hand-made crosses must be prepared as features, e.g. a column of `country=FR&hour=9`;
    both parts read them.

    Args:
        schema: the fields, in order.
        embedding_dim: int. Width `D` of the vectors of the deep tower. Defaults to 16.
        hidden_units: widths of the deep tower. Defaults to `(256, 128)`.
        dropout: float. In the deep tower. Defaults to 0.

    `represent` takes `[B, F, D + 1]` and gives `[B, hidden_units[-1] + 1]`.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        hidden_units: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, embedding_dim, **kwargs)
        self.hidden_units = tuple(hidden_units)
        self.dropout = dropout
        self.deep = MLP(hidden_units, dropout, name="deep")

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        vectors, first_order = self.split(embeddings)
        deep = self.deep(
            ops.reshape(vectors, (-1, vectors.shape[1] * vectors.shape[2])), training=training
        )
        return ops.concatenate([deep, first_order], axis=-1)
