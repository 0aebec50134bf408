"""FinalMLP (Mao et al., 2023, arXiv:2304.00902)."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from tfctr.backbones.backbone import Backbone, register
from tfctr.layers.bilinear_fusion import BilinearFusion
from tfctr.layers.feature_gate import FeatureGate
from tfctr.layers.mlp import MLP
from tfctr.schema import Schema


@register("finalmlp")
class FinalMLP(Backbone):
    """Two deep towers, each behind its own feature gate, fused by products.

    `x = mlp_1(gate_1(e))`, `y = mlp_2(gate_2(e))` of the flat vectors `e`. The paper's logit,
    `b + w_1 x + w_2 y + sum_h x_h^T W_h y_h` over the heads `h`, is `head(q)` of

        q = [x ; y ; (x_1 W_1) * y_1 ; ... ; (x_H W_H) * y_H]

    since the head's weights `v_h` of the last parts give `x_h^T W_h diag(v_h) y_h`.

    Args:
        schema: the fields, in order.
        embedding_dim: int. Width `D` of each field's vector. Defaults to 16.
        hidden_units: widths of the first tower. Defaults to `(256, 128)`.
        second_hidden_units: widths of the second tower. Defaults to those of the first.
        num_heads: int. `H`; divides the last widths of both towers. Defaults to 1.
        gate_1_fields: names of the features that the first gate reads, e.g. those of the user. If
            there are none, the gate is learned and the same for every row.
        gate_2_fields: the same for the second gate, e.g. of the item.
        gate_units: widths of the MLP inside a gate that reads features. Defaults to `(64,)`.
        dropout: float. In both towers. Defaults to 0.

    `represent` takes `[B, F, D]` and gives `[B, n + 2m]` for towers that end `n` and `m` wide.
    Additional fields must come after the schema's, because the gates use their positions.

    Raises:
        ValueError: a gate names no feature of the schema; when built, `num_heads` does not divide.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        hidden_units: Sequence[int] = (256, 128),
        second_hidden_units: Sequence[int] | None = None,
        num_heads: int = 1,
        gate_1_fields: Sequence[str] = (),
        gate_2_fields: Sequence[str] = (),
        gate_units: Sequence[int] = (64,),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, embedding_dim, **kwargs)
        self.hidden_units = tuple(hidden_units)
        self.second_hidden_units = (
            self.hidden_units if second_hidden_units is None else tuple(second_hidden_units)
        )
        self.num_heads = num_heads
        self.gate_1_fields = tuple(gate_1_fields)
        self.gate_2_fields = tuple(gate_2_fields)
        self.gate_units = tuple(gate_units)
        self.dropout = dropout
        self._gate_1_columns = self._columns("gate_1_fields", self.gate_1_fields)
        self._gate_2_columns = self._columns("gate_2_fields", self.gate_2_fields)
        self.gate_1 = FeatureGate(gate_units, name="gate_1")
        self.gate_2 = FeatureGate(gate_units, name="gate_2")
        self.deep_1 = MLP(self.hidden_units, dropout, name="deep_1")
        self.deep_2 = MLP(self.second_hidden_units, dropout, name="deep_2")
        self.fusion = BilinearFusion(num_heads, name="fusion")

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        flat = ops.reshape(embeddings, (-1, embeddings.shape[1] * embeddings.shape[2]))
        x = self.gate_1(flat, _context(embeddings, self._gate_1_columns))
        y = self.gate_2(flat, _context(embeddings, self._gate_2_columns))
        x = self.deep_1(x, training=training)
        y = self.deep_2(y, training=training)
        return ops.concatenate([x, y, self.fusion(x, y)], axis=-1)

    def _columns(self, argument: str, names: Sequence[str]) -> list[int]:
        fields = [feature.name for feature in self.schema.inputs]
        for name in names:
            if name not in fields:
                raise ValueError(f"{argument}: found {name!r}; allowed: {', '.join(fields)}")
        return [fields.index(name) for name in names]


def _context(embeddings: Any, columns: Sequence[int]) -> Any:
    """The vectors of some fields, flat: `[B, c * D]`; None without fields."""
    if not columns:
        return None
    return ops.concatenate([embeddings[:, column] for column in columns], axis=-1)
