"""The training of a student on its teachers' logits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from tfctr.models.click_model import ClickModel
from tfctr.models.schema_model import SchemaModel
from tfctr.schema import FIRST_TOKEN_ID


class Distillation(SchemaModel):
    """Trains a student by `(1 - a) BCE(y, s) + a T² BCE(sigmoid(t / T), s / T)`.

    `s` is the student's logit, `t` the mean of the teachers' logits, `y` the click; `T²` keeps the
    gradient of the second part as large at any temperature (Hinton et al., 2015,
    arXiv:1503.02531). A row without any teacher's logit learns from its click: `BCE(y, s)`. A call
    returns the student's logits `[B]`.

    With a share `b` of pairs the second part is `(1 - b)` of that, and `b` of the same for all
    pairs of a user's rows in the batch, with the differences of their logits in place of `t` and
    `s`: the order within a user, which GAUC measures (RankNet; Burges et al., 2005).

    Args:
        student: trained in place.
        fields: names of the teachers' logits, float `[B, 1]` each, NaN where there is none.
        weight: float. `a`.
        temperature: float. `T`.
        pairs: float. `b`.
        user: name of the feature that identifies users, if there are pairs. Unknown users have
            none.
    """

    def __init__(
        self,
        student: ClickModel,
        fields: Sequence[str],
        weight: float,
        temperature: float,
        pairs: float,
        user: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(student.schema, **kwargs)
        self.student = student
        self.teacher_fields = tuple(fields)
        self.weight = weight
        self.temperature = temperature
        self.pairs = pairs
        self.user = user

    def build(self, input_shape: Any = None) -> None:
        self.student.build()
        super().build(input_shape)

    @property
    def reads(self) -> tuple[str, ...]:
        own = [self.user] if self.user and self.user not in self.student.reads else []
        return (*self.student.reads, *self.teacher_fields, *own)

    @property
    def head(self) -> Any:
        return self.student.head

    @property
    def encoder_variables(self) -> list[Any]:
        return self.student.encoder_variables

    def call(self, features: Mapping[str, Any], training: bool = False) -> Any:
        return self.student(features, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        logits = ops.cast(y_pred, "float32")
        clicks = ops.cast(ops.reshape(y, (-1,)), "float32")
        taught, is_taught = self._taught(x)
        of_clicks = ops.binary_crossentropy(clicks, logits, from_logits=True)
        of_teachers = (1 - self.pairs) * self._distance(taught, logits)
        losses = (1 - self.weight) * of_clicks + self.weight * of_teachers
        loss = ops.mean(ops.where(is_taught, losses, of_clicks))
        if self.pairs:
            loss += (
                self.weight * self.pairs * self._of_pairs(x[self.user], taught, logits, is_taught)
            )
        return loss + sum(self.losses)

    def _taught(self, x: Mapping[str, Any]) -> tuple[Any, Any]:
        """The mean of the logits that there are, 0 without any, and whether there are any."""
        given = ops.concatenate([x[name] for name in self.teacher_fields], axis=1)
        exists = ops.isfinite(given)
        number = ops.sum(ops.cast(exists, "float32"), axis=1)
        # NaN must not be in an unused branch: its gradient would be NaN.
        total = ops.sum(ops.where(exists, given, ops.zeros_like(given)), axis=1)
        return total / ops.maximum(number, 1.0), number > 0

    def _distance(self, taught: Any, logits: Any) -> Any:
        """`T² BCE(sigmoid(t / T), s / T)` of each element."""
        soft = ops.sigmoid(taught / self.temperature)
        loss = ops.binary_crossentropy(soft, logits / self.temperature, from_logits=True)
        return self.temperature**2 * loss

    def _of_pairs(self, users: Any, taught: Any, logits: Any, is_taught: Any) -> Any:
        """The mean over pairs of rows `i` before `j` of one user, both with a teacher's logit."""
        counts = ops.logical_and(is_taught, users >= FIRST_TOKEN_ID)
        both = ops.logical_and(counts[:, None], counts[None])
        same = ops.logical_and(both, users[:, None] == users[None])
        pairs = ops.triu(ops.cast(same, "float32"), k=1)
        distances = self._distance(taught[:, None] - taught[None], logits[:, None] - logits[None])
        return ops.sum(pairs * distances) / ops.maximum(ops.sum(pairs), 1.0)

    def _empty_row(self) -> dict[str, np.ndarray]:
        taught = {name: np.zeros((1, 1), "float32") for name in self.teacher_fields}
        users = {self.user: np.zeros(1, "int64")} if self.user else {}
        return users | self.student._empty_row() | taught
