"""FiBiNET (Huang et al., 2019, arXiv:1905.09433)."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from tfctr.backbones.backbone import register
from tfctr.backbones.first_order_backbone import FirstOrderBackbone
from tfctr.layers.bilinear_interaction import BilinearInteraction
from tfctr.layers.mlp import MLP
from tfctr.layers.senet import SENET
from tfctr.schema import Schema


@register("fibinet")
class FiBiNET(FirstOrderBackbone):
    """Bilinear products of pairs of fields, plain and weighted by field, under a deep tower.

    `q = [mlp([pairs(x) ; pairs'(senet(x))]) ; sum of weights]`. As in DeepFM, a field's vector has
    one more number than `embedding_dim`: its first-order weight.

    Args:
        schema: the fields, in order; at least two.
        embedding_dim: int. Width `D` of the vectors that are multiplied. Defaults to 16.
        bilinear: which pairs share a matrix: `"all"`, `"each"` those with the same first field,
            `"interaction"` none. Defaults to `"interaction"`.
        reduction_ratio: int. Fields to hidden units, in the network that weighs fields. Defaults
            to 3.
        hidden_units: widths of the deep tower. Defaults to `(256, 128)`.
        dropout: float. In the deep tower. Defaults to 0.

    `represent` takes `[B, F, D + 1]` and gives `[B, hidden_units[-1] + 1]`. The tower's input is
    `F(F-1)D` wide.

    Raises:
        ValueError: another `bilinear`.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        bilinear: str = "interaction",
        reduction_ratio: int = 3,
        hidden_units: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, embedding_dim, **kwargs)
        self.bilinear = bilinear
        self.reduction_ratio = reduction_ratio
        self.hidden_units = tuple(hidden_units)
        self.dropout = dropout
        self.senet = SENET(reduction_ratio, name="senet")
        self.pairs = BilinearInteraction(bilinear, name="pairs")
        self.weighted_pairs = BilinearInteraction(bilinear, name="weighted_pairs")
        self.deep = MLP(hidden_units, dropout, name="deep")

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        vectors, first_order = self.split(embeddings)
        pairs = ops.concatenate(
            [self.pairs(vectors), self.weighted_pairs(self.senet(vectors))], axis=1
        )
        x = ops.reshape(pairs, (-1, pairs.shape[1] * pairs.shape[2]))
        return ops.concatenate([self.deep(x, training=training), first_order], axis=-1)
