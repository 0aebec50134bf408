"""Log loss from logits."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfctr")
class LogLoss(keras.losses.Loss):
    """Binary cross-entropy of logits `[B]` and clicks `[B]`, one value per row.

    Args:
        positive_weight: float. Weight of a row with a click. It multiplies the odds that a model
            learns; `tfctr.training.loop.train` corrects the trained model for it. Defaults to 1.

    `keras.losses.BinaryCrossentropy(from_logits=True)` is the same, but for `positive_weight`, and
    for logits that are `[B]`: it takes the mean over the last axis, so that sample weights would
    have no effect.
    """

    def __init__(self, positive_weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.positive_weight = positive_weight

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true = ops.cast(ops.reshape(y_true, ops.shape(y_pred)), y_pred.dtype)
        losses = ops.binary_crossentropy(y_true, y_pred, from_logits=True)
        if self.positive_weight == 1:
            return losses
        return losses * (1 + (self.positive_weight - 1) * y_true)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"positive_weight": self.positive_weight}
