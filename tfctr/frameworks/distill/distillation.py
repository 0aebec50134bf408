"""The training of a student on its teachers' logits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from tfctr.models.click_model import ClickModel
from tfctr.models.schema_model import SchemaModel


class Distillation(SchemaModel):
    """Trains a student by `(1 - a) BCE(y, s) + a T² BCE(sigmoid(t / T), s / T)`.

    `s` is the student's logit, `t` the mean of the teachers' logits, `y` the click; `T²` keeps the
    gradient of the second part as large at any temperature (Hinton et al., 2015,
    arXiv:1503.02531). A call returns the student's logits `[B]`.

    Args:
        student: trained in place.
        fields: names of the teachers' logits, float `[B, 1]` each.
        weight: float. `a`.
        temperature: float. `T`.
    """

    def __init__(
        self,
        student: ClickModel,
        fields: Sequence[str],
        weight: float,
        temperature: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(student.schema, **kwargs)
        self.student = student
        self.teacher_fields = tuple(fields)
        self.weight = weight
        self.temperature = temperature

    def build(self, input_shape: Any = None) -> None:
        self.student.build()
        super().build(input_shape)

    @property
    def reads(self) -> tuple[str, ...]:
        return (*self.student.reads, *self.teacher_fields)

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
        taught = sum(x[name][:, 0] for name in self.teacher_fields) / len(self.teacher_fields)
        soft = ops.sigmoid(taught / self.temperature)
        of_clicks = ops.binary_crossentropy(clicks, logits, from_logits=True)
        of_teachers = ops.binary_crossentropy(soft, logits / self.temperature, from_logits=True)
        share = self.weight * self.temperature**2
        losses = (1 - self.weight) * of_clicks + share * of_teachers
        return ops.mean(losses) + sum(self.losses)

    def _empty_row(self) -> dict[str, np.ndarray]:
        taught = {name: np.zeros((1, 1), "float32") for name in self.teacher_fields}
        return self.student._empty_row() | taught
