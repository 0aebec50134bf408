"""The base class of backbones with crosses and a deep tower."""

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from tfctr.backbones.backbone import Backbone
from tfctr.layers.mlp import MLP
from tfctr.schema import Schema

STRUCTURES = ("parallel", "stacked")


class CrossBackbone(Backbone):
    """Crosses of all fields `x_{l+1} = cross_l(x_0, x_l)`, parallel to a deep tower or below it.

    `represent` takes `[B, F, D]` and gives `[x_L ; mlp(x_0)]`, `[B, F*D + hidden_units[-1]]`, where
    the two are parallel, and `mlp(x_L)`, `[B, hidden_units[-1]]`, where the tower is stacked.

    Args:
        make_cross: creates the layer of a name, which is called on `x_0` and `x_l` `[B, F*D]`.

    Raises:
        ValueError: no such `structure`.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int,
        make_cross: Callable[..., Any],
        num_cross_layers: int,
        hidden_units: Sequence[int],
        dropout: float,
        structure: str = "parallel",
        batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        if structure not in STRUCTURES:
            raise ValueError(f"structure: found {structure!r}; allowed: {', '.join(STRUCTURES)}")
        super().__init__(schema, embedding_dim, **kwargs)
        self.num_cross_layers = num_cross_layers
        self.hidden_units = tuple(hidden_units)
        self.dropout = dropout
        self.structure = structure
        self.batch_norm = batch_norm
        self.crosses = [make_cross(name=f"cross_{i}") for i in range(num_cross_layers)]
        self.deep = MLP(hidden_units, dropout, batch_norm, name="deep")

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        x0 = ops.reshape(embeddings, (-1, embeddings.shape[1] * embeddings.shape[2]))
        x = x0
        for cross in self.crosses:
            x = cross(x0, x)
        if self.structure == "stacked":
            return self.deep(x, training=training)
        return ops.concatenate([x, self.deep(x0, training=training)], axis=-1)
