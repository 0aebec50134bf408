"""A student with fixed vectors of the item, of the user or of the context."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfctr.models.click_model import ClickModel, candidate_rows
from tfctr.models.given_vectors import joined, with_given
from tfctr.models.student import Student, refuse_names
from tfctr.schema import Schema, Vector

USER_VECTORS = "user_vectors"  # this student's part of `encode_user`


@keras.saving.register_keras_serializable("tfctr")
class VectorsStudent(Student):
    """Adds fields to any backbone: projections of fixed vectors.

    A vector is looked up by the id of a feature, and is not trained; a dense layer makes fields of
    it. An id without a vector has fields that are learned, the same for all. Fields of the user and
    the context are computed once a request.

    All numbers of a table are multiplied by its scale, which belongs to what is learned: later
    vectors, and a student that starts from this one, have the same.

    Args:
        schema: all features that the backbone and the tables read.
        backbone: not built yet.
        features: the feature of each table.
        widths: the length of the vectors of each table.
        fields: the number of fields of each table.
        in_request: for each table the input of requests with the vectors of ids that have none
            there, or None. Defaults to None for all.

    Examples:
        >>> student = VectorsStudent(schema, backbone, ["movie_id"], [384], [2])  # doctest: +SKIP
        >>> student.build()  # doctest: +SKIP
        >>> student.tables[0].assign(vectors)  # [ids of movies, 384]  # doctest: +SKIP
        >>> student.scales[0].assign(1 / vectors.std())  # doctest: +SKIP
    """

    own_tensors = (USER_VECTORS,)

    def __init__(
        self,
        schema: Schema,
        backbone: ClickModel,
        features: Sequence[str],
        widths: Sequence[int],
        fields: Sequence[int],
        in_request: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, schema, **kwargs)
        self.in_request = tuple(in_request or [None] * len(features))
        named = [name for name in self.in_request if name is not None]
        refuse_names([*(feature.name for feature in schema), *named], self.own_tensors)
        self.features = tuple(features)
        self.widths = tuple(widths)
        self.fields = tuple(fields)
        self.tables: list[Any] = []
        self.scales: list[Any] = []
        self.to_fields = [
            keras.layers.Dense(number * backbone.field_dim, use_bias=False, name=f"to_fields_{i}")
            for i, number in enumerate(self.fields)
        ]
        self.without: list[Any] = []
        of_item = [schema[name].side == "item" for name in self.features]
        self.of_item = tuple(i for i, is_so in enumerate(of_item) if is_so)
        self.of_user = tuple(i for i, is_so in enumerate(of_item) if not is_so)
        _ = self.of_requests  # refuses what the backbone's differ from

    def build_parts(self) -> None:
        super().build_parts()
        for i, (feature, width) in enumerate(zip(self.features, self.widths, strict=True)):
            # In float32, as numbers that are not scaled yet may be too large for another type.
            fixed = {"trainable": False, "dtype": "float32", "autocast": False}
            shape = (self.schema[feature].num_ids, width)
            self.tables.append(
                self.add_weight(shape, initializer="zeros", name=f"vectors_{i}", **fixed)
            )
            self.scales.append(self.add_weight((), initializer="ones", name=f"scale_{i}", **fixed))
            self.to_fields[i].build((None, width))
            size = self.fields[i] * self.backbone.field_dim
            self.without.append(self.add_weight((size,), initializer="zeros", name=f"without_{i}"))

    @property
    def data_variables(self) -> list[Any]:
        return [*super().data_variables, *self.tables]

    @property
    def of_requests(self) -> tuple[Any, ...]:
        own = [
            Vector(name=name, side=self.schema[feature].side, max_length=width)
            for name, feature, width in zip(
                self.in_request, self.features, self.widths, strict=True
            )
            if name is not None
        ]
        return joined(self.backbone, own)

    def own_fields(self, features: Mapping[str, Any], training: bool) -> Any:
        """Of the user and the context, then of the item."""
        return self._joined(self._made(self.of_user, features), features)

    def encode_user(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """The backbone's part, and `USER_VECTORS` `[B, n, D]` if a table is not of the item."""
        made = self._made(self.of_user, features)
        return super().encode_user(features) | ({} if made is None else {USER_VECTORS: made})

    def embed_candidates(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        once = {name: user[name] for name in self.own_tensors if name in user}
        rows = candidate_rows(once, items)
        own = self._joined(rows.get(USER_VECTORS), rows)
        return self.add_fields(super().embed_candidates(user, items), own)

    def _joined(self, once: Any, features: Mapping[str, Any]) -> Any:
        """The fields of the user and the context, `once`, then those of the item."""
        made = [found for found in (once, self._made(self.of_item, features)) if found is not None]
        return ops.concatenate(made, axis=1)

    def _made(self, places: Sequence[int], features: Mapping[str, Any]) -> Any:
        """Fields `[B, n, D]` of the tables at some places; None of none."""
        made = []
        for i in places:
            vectors = ops.take(self.tables[i], features[self.features[i]], axis=0)
            vectors = with_given(vectors, features, self.in_request[i])
            has_one = ops.any(vectors != 0, axis=1, keepdims=True)
            flat = self.to_fields[i](vectors * self.scales[i])
            flat = ops.where(has_one, flat, self.without[i])
            made.append(ops.reshape(flat, (-1, self.fields[i], self.backbone.field_dim)))
        return ops.concatenate(made, axis=1) if made else None
