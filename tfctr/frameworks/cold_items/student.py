"""A student that can score items without training rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfctr.frameworks.cold_items.alignment import contrast, regression
from tfctr.models.click_model import ClickModel, candidate_rows
from tfctr.models.given_vectors import joined, with_given
from tfctr.models.student import Student
from tfctr.schema import FIRST_TOKEN_ID, Vector


@keras.saving.register_keras_serializable("tfctr")
class ColdItemsStudent(Student):
    """Makes the embedding of a new item from its vector and its attributes.

    A new item is an id without (enough) training rows, and every id out of vocabulary, whose vector
    is 0. In training a share of the other rows are read as if their item were new, so the layers
    that make embeddings learn from clicks; and a loss aligns what they make of known items with the
    embeddings of these.

    `is_new`, bool `[ids]`, and `vectors`, float `[ids, W]`, are set from data. Until then all ids
    of tokens are known, and all vectors 0. Vectors are multiplied by `scale`, so that their mean
    square is about 1.

    Args:
        backbone: not built yet; it reads `feature`.
        feature: name of the item's feature whose embedding is made.
        width: int. `W`; 0: there are no vectors.
        attributes: names of further item features of the backbone.
        hidden_units: of the layers that make an embedding; none: it is a linear map.
        dropout: float. Share of the numbers in vectors and attributes that training hides.
        rate: float. Share of the training rows whose item counts as new.
        alignment: "regression", "contrast" or "none".
        weight: float. Of the alignment's loss.
        temperature: float. Of the contrast.
        in_request: the input of requests with the vectors of ids that have none. Defaults to None.

    Examples:
        >>> student = ColdItemsStudent(  # doctest: +SKIP
        ...     backbone, "movie_id", 384, ["genres"], [64], 0.0, 0.2, "regression", 0.1, 0.1
        ... )
        >>> student.build()  # doctest: +SKIP
        >>> student.is_new.assign(rows_of_id < 5)  # doctest: +SKIP
        >>> student.vectors.assign(titles)  # [ids of movies, 384]  # doctest: +SKIP
        >>> student.scale.assign(1 / titles.std())  # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: ClickModel,
        feature: str,
        width: int,
        attributes: Sequence[str],
        hidden_units: Sequence[int],
        dropout: float,
        rate: float,
        alignment: str,
        weight: float,
        temperature: float,
        in_request: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.feature = feature
        self.width = width
        self.attributes = tuple(attributes)
        self.hidden_units = tuple(hidden_units)
        self.dropout = dropout
        self.rate = rate
        self.alignment = alignment
        self.weight = weight
        self.temperature = temperature
        self.in_request = in_request
        _ = self.of_requests  # refuses what the backbone's differ from
        self.hidden = [
            keras.layers.Dense(units, "relu", name=f"hidden_{i}")
            for i, units in enumerate(self.hidden_units)
        ]
        self.hide = keras.layers.Dropout(dropout)
        self.to_embedding = keras.layers.Dense(backbone.field_dim, name="to_embedding")
        self.chance = keras.random.SeedGenerator()

    def build_parts(self) -> None:
        super().build_parts()
        ids = self.schema[self.feature].num_ids
        self.is_new = self.add_weight(
            (ids,), initializer="zeros", dtype="bool", trainable=False, name="is_new"
        )
        self.is_new.assign(ops.arange(ids) < FIRST_TOKEN_ID)
        if self.width:
            # In float32, as numbers that are not scaled yet may be too large for another type.
            fixed = {"trainable": False, "dtype": "float32", "autocast": False}
            shape = (ids, self.width)
            self.vectors = self.add_weight(shape, initializer="zeros", name="vectors", **fixed)
            self.scale = self.add_weight((), initializer="ones", name="scale", **fixed)
        size = self.width + len(self.attributes) * self.backbone.field_dim
        for layer in (*self.hidden, self.to_embedding):
            layer.build((None, size))
            size = layer.units

    @property
    def data_variables(self) -> list[Any]:
        own = [self.is_new, *([self.vectors] if self.width else [])]
        return [*super().data_variables, *own]

    @property
    def of_requests(self) -> tuple[Any, ...]:
        name = self.in_request
        own = [Vector(name=name, side="item", max_length=self.width)] if name else []
        return joined(self.backbone, own)

    def embed(
        self,
        features: Mapping[str, Any],
        names: Sequence[str] | None = None,
        training: bool = False,
    ) -> Any:
        fields = self.backbone.embed(features, names=names, training=training)
        if names is not None and self.feature not in names:
            return fields
        read = [name for name in self.field_names if names is None or name in names]
        given = fields
        if missing := [name for name in self.attributes if name not in read]:
            more = self.backbone.embed(features, names=missing)
            given, read = ops.concatenate([fields, more], axis=1), [*read, *missing]
        return self._replace(fields, given, read, features, training)

    def embed_candidates(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        fields = super().embed_candidates(user, items)
        own = {n: values for n, values in items.items() if n in (self.feature, self.in_request)}
        rows = candidate_rows({}, own)
        return self._replace(fields, fields, [*self.field_names], rows, training=False)

    def make(
        self, features: Mapping[str, Any], attributes: Sequence[Any], training: bool = False
    ) -> Any:
        """Embeddings `[B, D]` of items, from their vectors and from fields `[B, D]`."""
        parts = [*attributes]
        if self.width:
            vectors = ops.take(self.vectors, features[self.feature], axis=0)
            vectors = with_given(vectors, features, self.in_request) * self.scale
            parts = [ops.cast(vectors, self.compute_dtype), *attributes]
        made = self.hide(ops.concatenate(parts, axis=1), training=training)
        for layer in (*self.hidden, self.to_embedding):
            made = layer(made)
        return made

    def _replace(
        self,
        fields: Any,
        given: Any,
        read: Sequence[str],
        features: Mapping[str, Any],
        training: bool,
    ) -> Any:
        """The fields with that of `feature` made where the item is new; `given` are fields of the
        features `read`, the attributes among them."""
        ids = features[self.feature]
        place = read.index(self.feature)
        trained = fields[:, place]
        # Attributes are read as the backbone has learned them.
        attributes = [ops.stop_gradient(given[:, read.index(name)]) for name in self.attributes]
        made = ops.cast(self.make(features, attributes, training), fields.dtype)
        is_new = ops.take(self.is_new, ids, axis=0)
        if training:
            if self.alignment != "none":
                self.add_loss(self.weight * self._align(made, trained, is_new, ids))
            drawn = keras.random.uniform(ops.shape(ids), seed=self.chance)
            is_new = ops.logical_or(is_new, drawn < self.rate)
        chosen = ops.where(is_new[:, None], made, trained)
        return ops.concatenate([fields[:, :place], chosen[:, None], fields[:, place + 1 :]], axis=1)

    def _align(self, made: Any, trained: Any, is_new: Any, ids: Any) -> Any:
        known = ops.cast(ops.logical_not(is_new), "float32")
        made, trained = ops.cast(made, "float32"), ops.cast(trained, "float32")
        if self.alignment == "contrast":
            return contrast(made, trained, known, ids, self.temperature)
        return regression(made, trained, known)
