"""Gated Deep & Cross Network (Wang et al., 2023, arXiv:2311.04635)."""

from collections.abc import Sequence
from typing import Any

from tfctr.backbones.backbone import register
from tfctr.backbones.cross_backbone import CrossBackbone
from tfctr.layers.gated_cross import GatedCross
from tfctr.schema import Schema


@register("gdcn")
class GDCN(CrossBackbone):
    """Gated crosses of all fields, parallel to a deep tower or below it.

    `x_{l+1} = x_0 * (W_c x_l + b) * sigmoid(W_g x_l) + x_l`, then `q = [x_L ; mlp(x_0)]`
    (parallel, GDCN-P) or `q = mlp(x_L)` (stacked, GDCN-S).

    Args:
        schema: the fields, in order.
        embedding_dim: int. Width `D` of each field's vector. Defaults to 16.
        structure: `"parallel"` or `"stacked"`. Defaults to `"parallel"`.
        num_cross_layers: int. Defaults to 3.
        hidden_units: widths of the deep tower. Defaults to `(256, 128)`.
        dropout: float. In the deep tower. Defaults to 0.

    `represent` takes `[B, F, D]` and gives `[B, F*D + hidden_units[-1]]` (parallel) or
    `[B, hidden_units[-1]]` (stacked).

    Raises:
        ValueError: another `structure`.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        structure: str = "parallel",
        num_cross_layers: int = 3,
        hidden_units: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            schema,
            embedding_dim,
            GatedCross,
            num_cross_layers,
            hidden_units,
            dropout,
            structure,
            **kwargs,
        )
