"""A student with fixed vectors of the item."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfctr.models.click_model import ClickModel
from tfctr.models.student import Student
from tfctr.schema import Schema


@keras.saving.register_keras_serializable("tfctr")
class VectorsStudent(Student):
    """Adds fields to any backbone: projections of fixed vectors of the item.

    A vector is looked up by the id of one of the item's features, and is not trained; a dense layer
    makes fields of it. An id without a vector has fields that are learned, the same for all.

    Args:
        schema: all features that the backbone and the tables read.
        backbone: not built yet.
        features: the feature of each table.
        widths: the length of the vectors of each table.
        fields: the number of fields of each table.

    Example:
        >>> student = VectorsStudent(schema, backbone, ["movie_id"], [384], [2])  # doctest: +SKIP
        >>> student.build()  # doctest: +SKIP
        >>> student.tables[0].assign(vectors)  # [ids of movies, 384]  # doctest: +SKIP
    """

    def __init__(
        self,
        schema: Schema,
        backbone: ClickModel,
        features: Sequence[str],
        widths: Sequence[int],
        fields: Sequence[int],
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, schema, **kwargs)
        self.features = tuple(features)
        self.widths = tuple(widths)
        self.fields = tuple(fields)
        self.tables: list[Any] = []
        self.to_fields = [
            keras.layers.Dense(number * backbone.field_dim, use_bias=False, name=f"to_fields_{i}")
            for i, number in enumerate(self.fields)
        ]
        self.without: list[Any] = []

    def build_parts(self) -> None:
        super().build_parts()
        for i, (feature, width) in enumerate(zip(self.features, self.widths, strict=True)):
            shape = (self.schema[feature].num_ids, width)
            self.tables.append(
                self.add_weight(shape, initializer="zeros", trainable=False, name=f"vectors_{i}")
            )
            self.to_fields[i].build((None, width))
            size = self.fields[i] * self.backbone.field_dim
            self.without.append(self.add_weight((size,), initializer="zeros", name=f"without_{i}"))

    @property
    def data_variables(self) -> list[Any]:
        return [*super().data_variables, *self.tables]

    def embed(
        self,
        features: Mapping[str, Any],
        names: Sequence[str] | None = None,
        training: bool = False,
    ) -> Any:
        """The backbone's fields, then those of the vectors; with `names` only the backbone's."""
        fields = self.backbone.embed(features, names=names, training=training)
        return fields if names is not None else self._add(fields, features)

    def embed_candidates(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        flat = {name: ops.reshape(items[name], (-1,)) for name in self.features}
        return self._add(super().embed_candidates(user, items), flat)

    def _add(self, fields: Any, features: Mapping[str, Any]) -> Any:
        made = []
        for i, name in enumerate(self.features):
            vectors = ops.take(self.tables[i], features[name], axis=0)
            has_one = ops.any(vectors != 0, axis=1, keepdims=True)
            flat = ops.where(has_one, self.to_fields[i](vectors), self.without[i])
            made.append(ops.reshape(flat, (-1, self.fields[i], self.backbone.field_dim)))
        return self.add_fields(fields, ops.concatenate(made, axis=1))
