"""MaskNet (Wang et al., 2021, arXiv:2102.07619)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfctr.backbones.backbone import Backbone, register
from tfctr.layers.mask_block import MaskBlock
from tfctr.layers.mlp import MLP
from tfctr.schema import Schema

STRUCTURES = ("parallel", "serial")


@register("masknet")
class MaskNet(Backbone):
    """Blocks that multiply their input by a mask computed from the whole row.

    With `x` the flat vectors and `n` the same vectors, each normalised: parallel blocks read `n`,
    `q = mlp([block_1(x, n) ; block_2(x, n) ; ...])`; a serial block reads the block before it,
    `q = mlp(... block_2(x, block_1(x, n)))`.

    Args:
        schema: the fields, in order.
        embedding_dim: int. Width `D` of each field's vector. Defaults to 16.
        structure: `"parallel"` or `"serial"`. Defaults to `"parallel"`.
        num_blocks: int. Defaults to 3.
        block_units: int. Output width of a block. Defaults to 64.
        reduction_ratio: float. Hidden units of the mask's network per unit of the mask. Defaults
            to 2.
        hidden_units: widths of the deep tower on the blocks. Defaults to `(256, 128)`; `()` with
            serial blocks for SerMaskNet as published.
        dropout: float. In the deep tower. Defaults to 0.

    `represent` takes `[B, F, D]` and gives `[B, hidden_units[-1]]`.

    Raises:
        ValueError: another `structure`; no blocks.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        structure: str = "parallel",
        num_blocks: int = 3,
        block_units: int = 64,
        reduction_ratio: float = 2.0,
        hidden_units: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, embedding_dim, **kwargs)
        if structure not in STRUCTURES:
            raise ValueError(f"structure: found {structure!r}; allowed: {', '.join(STRUCTURES)}")
        if num_blocks < 1:
            raise ValueError(f"num_blocks: found {num_blocks}; allowed: 1 or more")
        self.structure = structure
        self.num_blocks = num_blocks
        self.block_units = block_units
        self.reduction_ratio = reduction_ratio
        self.hidden_units = tuple(hidden_units)
        self.dropout = dropout
        # Keras' default epsilon, 1e-3, is too large for vectors that start at a stddev of 1e-4.
        self.norm = keras.layers.LayerNormalization(epsilon=1e-12, name="norm")
        self.blocks = [
            MaskBlock(block_units, reduction_ratio, name=f"block_{i}") for i in range(num_blocks)
        ]
        self.deep = MLP(hidden_units, dropout, name="deep")

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        width = embeddings.shape[1] * embeddings.shape[2]
        x = ops.reshape(embeddings, (-1, width))
        hidden = ops.reshape(self.norm(embeddings), (-1, width))
        if self.structure == "parallel":
            hidden = ops.concatenate([block(x, hidden) for block in self.blocks], axis=-1)
        else:
            for block in self.blocks:
                hidden = block(x, hidden)
        return self.deep(hidden, training=training)
