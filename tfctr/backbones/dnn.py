"""A tower of dense layers (the deep half of Cheng et al., 2016, arXiv:1606.07792)."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from tfctr.backbones.backbone import Backbone, register
from tfctr.layers.mlp import MLP
from tfctr.schema import Schema


@register("dnn")
class DNN(Backbone):
    """`q = mlp(x)`, where `x` is the concatenation of all fields.

    Args:
        schema: the fields, in order.
        embedding_dim: int. Width `D` of each field's vector. Defaults to 16.
        hidden_units: widths of the tower. Defaults to `(256, 128)`.
        dropout: float. Defaults to 0.
        batch_norm: bool. Whether activations are normalised over the batch. Defaults to False.

    `represent` takes `[B, F, D]` and gives `[B, hidden_units[-1]]`.
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
        self.deep = MLP(hidden_units, dropout, batch_norm, name="deep")

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        x = ops.reshape(embeddings, (-1, embeddings.shape[1] * embeddings.shape[2]))
        return self.deep(x, training=training)
