"""A model of clicks in three steps."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tfctr.losses import LogLoss
from tfctr.schema import Schema
from tfctr.schema_model import SchemaModel


class ClickModel(SchemaModel):
    """A CTR model in three steps: `embed`, `represent`, `predict_logits`.

    Called on `{feature: values}` it gives logits `[B]`. `compile` needs only an optimizer: the loss
    is log loss unless another is given.
    """

    head: Any  # a dense layer whose bias is a constant in all logits
    embeds_fields_apart: bool = True  # else `embed` needs all features together
    reads_similar_rows: ClassVar[bool] = False  # `tfctr retrieve` finds them; not when serving

    @property
    def served_schema(self) -> Schema:
        """The features that it is served with; it may read more than the schema's."""
        return self.schema

    def embed(self, features: Mapping[str, Any], names: Sequence[str] | None = None) -> Any:
        """Vectors `[B, F, D]` of the fields in the schema's order; of `names` only, if given."""
        raise NotImplementedError

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        """What is known of a row before the last layer: `[B, F, D] -> [B, q]`."""
        raise NotImplementedError

    def predict_logits(self, representation: Any) -> Any:
        """Logits `[B]` from `[B, q]`. (`predict` is what Keras calls batch inference.)"""
        raise NotImplementedError

    def call(self, features: Mapping[str, Any], training: bool = False) -> Any:
        representation = self.represent(self.embed(features), training=training)
        return self.predict_logits(representation)

    def compile(self, optimizer: Any = "adam", loss: Any = None, **kwargs: Any) -> None:
        super().compile(optimizer=optimizer, loss=LogLoss() if loss is None else loss, **kwargs)
