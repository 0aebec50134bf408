"""The base class of backbones with first-order weights."""

from typing import Any

from keras import ops

from tfctr.backbones.backbone import Backbone


class FirstOrderBackbone(Backbone):
    """A field's vector has one more number than `embedding_dim`: its first-order weight.

    So one look-up serves all parts of the model.
    """

    @property
    def field_dim(self) -> int:
        return self.embedding_dim + 1

    def split(self, embeddings: Any) -> tuple[Any, Any]:
        """`[B, F, D + 1]` -> the vectors `[B, F, D]`, and the sum of the weights `[B, 1]`."""
        vectors, weights = embeddings[:, :, :-1], embeddings[:, :, -1]
        return vectors, ops.sum(weights, axis=1, keepdims=True)
