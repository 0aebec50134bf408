"""A student that adds one constant field."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfctr.models.click_model import ClickModel
from tfctr.models.student import Student


@keras.saving.register_keras_serializable("tests")
class ToyStudent(Student):
    """Any model, with one further field that holds `value`."""

    def __init__(self, backbone: ClickModel, value: float = 1.0, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.value = value

    def embed(
        self,
        features: Mapping[str, Any],
        names: Sequence[str] | None = None,
        training: bool = False,
    ) -> Any:
        fields = super().embed(features, names=names, training=training)
        return fields if names is not None else self._add(fields)

    def embed_candidates(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        return self._add(super().embed_candidates(user, items))

    def _add(self, fields: Any) -> Any:
        constant = ops.zeros_like(fields[:, :1, : self.field_dim]) + self.value
        return self.add_fields(fields, constant)
