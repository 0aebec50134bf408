"""Factorization machine (Rendle, 2010)."""

from typing import Any

from keras import ops

from tfctr.backbones.backbone import register
from tfctr.backbones.first_order_backbone import FirstOrderBackbone
from tfctr.layers.fm import FactorizationMachine
from tfctr.schema import Schema


@register("fm")
class FM(FirstOrderBackbone):
    """First-order weights and all pairs of fields: `q = [fm(x) ; sum of weights]`.

    A field's vector has one more number than `embedding_dim`: its first-order weight.

    Args:
        schema: the fields, in order.
        embedding_dim: int. Width `D` of the vectors that are multiplied. Defaults to 16.

    `represent` takes `[B, F, D + 1]` and gives `[B, 2]`.
    """

    def __init__(self, schema: Schema, embedding_dim: int = 16, **kwargs: Any) -> None:
        super().__init__(schema, embedding_dim, **kwargs)
        self.pairs = FactorizationMachine(name="pairs")

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        vectors, first_order = self.split(embeddings)
        return ops.concatenate([self.pairs(vectors), first_order], axis=-1)
