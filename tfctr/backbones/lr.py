"""Logistic regression."""

from typing import Any

from keras import ops

from tfctr.backbones.backbone import Backbone, register
from tfctr.schema import Schema


@register("lr")
class LR(Backbone):
    """One weight per value; the logit is their sum plus a bias.

    `represent` takes `[B, F, 1]` and gives `[B, 1]`.
    """

    def __init__(self, schema: Schema, **kwargs: Any) -> None:
        super().__init__(schema, embedding_dim=1, **kwargs)

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        return ops.sum(embeddings, axis=1)
