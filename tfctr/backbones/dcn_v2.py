"""Deep & Cross Network V2 (Wang et al., 2021, arXiv:2008.13535)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from keras_rs.layers import FeatureCross

from tfctr.backbones.backbone import register
from tfctr.backbones.cross_backbone import CrossBackbone
from tfctr.schema import Schema


@register("dcn_v2")
class DCNv2(CrossBackbone):
    """Crosses of all fields, parallel to a deep tower or below it.

    `x_{l+1} = x_0 * (W_l x_l + b_l) + x_l`, then `q = [x_L ; mlp(x_0)]` where the two are
    parallel, `q = mlp(x_L)` where the tower is stacked on the crosses.

    Args:
        schema: the fields, in order.
        embedding_dim: int. Width `D` of each field's vector. Defaults to 16.
        num_cross_layers: int. Defaults to 3.
        hidden_units: widths of the deep tower. Defaults to `(256, 128)`.
        dropout: float. In the deep tower. Defaults to 0.
        structure: `"parallel"` or `"stacked"`. Defaults to `"parallel"`.
        rank: int. Of each `W_l`, which is then a product `U V` of `[F*D, rank]` and
            `[rank, F*D]`: cheaper below `F*D / 2`; the paper lost nothing at `F*D / 4`.
            None, the default: a full matrix `[F*D, F*D]`.
        batch_norm: bool. Whether the tower's activations are normalised over the batch. Defaults
            to False.

    `represent` takes `[B, F, D]` and gives `[B, F*D + hidden_units[-1]]`, or
    `[B, hidden_units[-1]]` where stacked.

    Raises:
        ValueError: no such `structure`.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        num_cross_layers: int = 3,
        hidden_units: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        structure: str = "parallel",
        rank: int | None = None,
        batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            schema,
            embedding_dim,
            partial(FeatureCross, projection_dim=rank),
            num_cross_layers,
            hidden_units,
            dropout,
            structure,
            batch_norm,
            **kwargs,
        )
        self.rank = rank
