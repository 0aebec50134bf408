"""A student that reads statistics of the user's events."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tfctr.frameworks.statistics.config import STORED
from tfctr.frameworks.statistics.user_statistics import UserStatistics
from tfctr.models.click_model import ClickModel
from tfctr.models.student import Student, refuse_names
from tfctr.schema import Schema

KNOT_DIM = 4  # width of a knot's vector
# The statistics' part of `encode_user`.
OF_USER = {
    "user_numbers": "numbers",
    "user_tastes": "tastes",
    "user_doubts": "doubts",
    "user_affinities": "affinities",
    "user_events": "events",
    "user_sums": "sums",
}


@keras.saving.register_keras_serializable("tfctr")
class StatisticsStudent(Student):
    """Adds fields to any backbone, made of `UserStatistics`.

    Each number is read scaled, and as a vector that is interpolated between the vectors of knots
    (Gorishniy et al., 2022, arXiv:2203.05556). A dense layer makes `num_fields` fields of them all.

    `encode_user` computes the user's part once per request. In training the numbers may be stored
    beside the rows (`reads_stored`); a loaded student always computes them.

    Args:
        schema: all features that the backbone and the statistics read.
        backbone: not built yet.
        statistics: of these items and grades.
        user, item: names of the features that identify both.
        items, grades: names of the histories.
        num_fields: int.

    Raises:
        ValueError: a feature has the name of a tensor of `encode_user`.
    """

    own_tensors = OF_USER
    reads_stored = False  # whether its rows have their numbers, float `[B, S]`, as `STORED`

    def __init__(
        self,
        schema: Schema,
        backbone: ClickModel,
        statistics: UserStatistics,
        user: str,
        item: str,
        items: str,
        grades: str,
        num_fields: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, schema, **kwargs)
        refuse_names([feature.name for feature in schema], OF_USER)
        self.statistics = statistics
        self.user = user
        self.item = item
        self.items = items
        self.grades = grades
        self.num_fields = num_fields
        self.vectors = keras.layers.Embedding(
            statistics.num_numbers * statistics.num_knots, KNOT_DIM, name="vectors"
        )
        self.to_fields = keras.layers.Dense(num_fields * backbone.field_dim, name="to_fields")
        self._size_of_vectors = statistics.num_numbers * KNOT_DIM

    def build_parts(self) -> None:
        super().build_parts()
        statistics = self.statistics
        if not statistics.built:  # a loaded one is
            statistics.build()
        self.vectors.build()
        self.to_fields.build((None, statistics.num_numbers + self._size_of_vectors))

    @property
    def data_variables(self) -> list[Any]:
        return [*super().data_variables, *self.statistics.table_variables]

    @property
    def reads(self) -> tuple[str, ...]:
        return (*super().reads, *([STORED] if self.reads_stored else []))

    @property
    def may_read(self) -> tuple[str, ...]:
        return (*super().may_read, STORED)

    def own_fields(self, features: Mapping[str, Any], training: bool) -> Any:
        if STORED in features:
            return self._fields(features[STORED])
        population = self.statistics.population(features[self.user], training)
        user = self.statistics.encode(features[self.items], features[self.grades], population)
        items = ops.expand_dims(features[self.item], 1)
        return self._fields(self.statistics.of_candidates(user, items, population))

    def encode_user(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """The backbone's part, and that of the statistics (`UserStatistics.encode`)."""
        population = self.statistics.population(features[self.items][:, 0], training=False)
        user = self.statistics.encode(features[self.items], features[self.grades], population)
        return super().encode_user(features) | {
            n: user[key] for n, key in OF_USER.items() if key in user
        }

    def embed_candidates(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        fields = super().embed_candidates(user, items)
        encoded = {key: user[name] for name, key in OF_USER.items() if name in user}
        ids = items[self.item]
        population = self.statistics.population(ids[:, 0], training=False)
        numbers = self.statistics.of_candidates(encoded, ids, population)
        return self.add_fields(fields, self._fields(numbers))

    def _fields(self, numbers: Any) -> Any:
        """`[B, N, S]` to `[B * N, num_fields, D]`."""
        statistics = self.statistics
        numbers = ops.stop_gradient(ops.reshape(numbers, (-1, statistics.num_numbers)))
        below, share = statistics.between(numbers)
        below = below + ops.arange(statistics.num_numbers) * statistics.num_knots
        start, end = self.vectors(below), self.vectors(below + 1)
        share = ops.cast(ops.expand_dims(share, -1), start.dtype)
        flat = ops.reshape(start + share * (end - start), (-1, self._size_of_vectors))
        read = ops.concatenate([ops.cast(statistics.scaled(numbers), flat.dtype), flat], axis=1)
        return ops.reshape(self.to_fields(read), (-1, self.num_fields, self.backbone.field_dim))
