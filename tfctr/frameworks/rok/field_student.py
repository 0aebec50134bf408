"""A student whose knowledge base adds fields."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tfctr.frameworks.rok.history_knowledge import OF_USER
from tfctr.models.click_model import ClickModel, candidate_rows
from tfctr.models.student import Student, refuse_names
from tfctr.schema import Schema


@keras.saving.register_keras_serializable("tfctr")
class FieldStudent(Student):
    """Adds fields to any backbone: a dense layer of the hint that a knowledge base predicts.

    The knowledge base is not trained further. `encode_user` computes its part of the user once per
    request.

    Args:
        schema: all features that the backbone and the knowledge base read.
        backbone: not built yet.
        knowledge: `HistoryKnowledge`, or `GivenHint`, which cannot be served.
        num_fields: int.

    Raises:
        ValueError: a feature has the name of a tensor of `encode_user`.
    """

    own_tensors = OF_USER

    def __init__(
        self,
        schema: Schema,
        backbone: ClickModel,
        knowledge: Any,
        num_fields: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, schema, **kwargs)
        refuse_names([feature.name for feature in schema], OF_USER)
        self.knowledge = knowledge
        self.num_fields = num_fields
        self.knowledge.trainable = False
        self.to_fields = keras.layers.Dense(num_fields * backbone.field_dim, name="to_fields")

    def build_parts(self) -> None:
        super().build_parts()
        self.knowledge.build()
        self.to_fields.build((None, self.knowledge.size))

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*super().reads, *self.knowledge.reads)))

    def own_fields(self, features: Mapping[str, Any], training: bool) -> Any:
        return self._fields(self.knowledge.call(features))

    def encode_user(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """The backbone's part, and the knowledge base's (`HistoryKnowledge.encode_user`)."""
        return super().encode_user(features) | self.knowledge.encode_user(features)

    def embed_candidates(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        fields = super().embed_candidates(user, items)
        known = {name: user[name] for name in OF_USER}
        rows = candidate_rows(known, {name: items[name] for name in self.knowledge.of_item})
        return self.add_fields(fields, self._fields(self.knowledge.of_candidates(rows)))

    def _fields(self, hint: Any) -> Any:
        """`[B, size]` to `[B, num_fields, D]`."""
        made = self.to_fields(ops.stop_gradient(hint))
        return ops.reshape(made, (-1, self.num_fields, self.backbone.field_dim))

    def _empty_row(self) -> dict[str, Any]:
        return super()._empty_row() | self.knowledge._empty_row()
