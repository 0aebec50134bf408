"""Deep & Cross Network (Wang et al., 2017, arXiv:1708.05123)."""

from collections.abc import Sequence
from typing import Any

from tfctr.backbones.backbone import register
from tfctr.backbones.cross_backbone import CrossBackbone
from tfctr.layers.vector_cross import VectorCross
from tfctr.schema import Schema


@register("dcn")
class DCN(CrossBackbone):
    """Crosses of all fields, with a weight vector each, and a deep tower.

    `x_{l+1} = x_0 * (x_l . w_l) + b_l + x_l`, then `q = [x_L ; mlp(x_0)]`.

    Args:
        schema: the fields, in order.
        embedding_dim: int. Width `D` of each field's vector. Defaults to 16.
        num_cross_layers: int. Defaults to 3.
        hidden_units: widths of the deep tower. Defaults to `(256, 128)`.
        dropout: float. In the deep tower. Defaults to 0.

    `represent` takes `[B, F, D]` and gives `[B, F*D + hidden_units[-1]]`.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        num_cross_layers: int = 3,
        hidden_units: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            schema,
            embedding_dim,
            VectorCross,
            num_cross_layers,
            hidden_units,
            dropout,
            **kwargs,
        )
