"""DeepFM (Guo et al., 2017, arXiv:1703.04247)."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from tfctr.backbones.backbone import register
from tfctr.backbones.first_order_backbone import FirstOrderBackbone
from tfctr.layers.fm import FactorizationMachine
from tfctr.layers.mlp import MLP
from tfctr.schema import Schema


@register("deepfm")
class DeepFM(FirstOrderBackbone):
    """First-order weights, all pairs of fields, and a deep tower, on the same vectors.

    A field's vector has one more number than `embedding_dim`: its first-order weight, so that one
    look-up serves all three parts. `q = [mlp(x) ; fm(x) ; sum of weights]`.

    Args:
        schema: the fields, in order.
        embedding_dim: int. Width of the vectors that are multiplied. Defaults to 16.
        hidden_units: widths of the deep tower. Defaults to `(256, 128)`.
        dropout: float. In the deep tower. Defaults to 0.
        batch_norm: bool. Whether the tower's activations are normalised over the batch. Defaults
            to False.

    `represent` takes `[B, F, D + 1]` and gives `[B, hidden_units[-1] + 2]`.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        hidden_units: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, embedding_dim, **kwargs)
        self.hidden_units = tuple(hidden_units)
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.pairs = FactorizationMachine(name="pairs")
        self.deep = MLP(hidden_units, dropout, batch_norm, name="deep")

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        vectors, first_order = self.split(embeddings)
        deep = self.deep(
            ops.reshape(vectors, (-1, vectors.shape[1] * vectors.shape[2])), training=training
        )
        return ops.concatenate([deep, self.pairs(vectors), first_order], axis=-1)
