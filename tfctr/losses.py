"""Log loss from logits."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfctr")
class LogLoss(keras.losses.Loss):
    """Binary cross-entropy of logits `[B]` against clicks `[B]`, one value a row.

    Keras' own takes the mean over the last axis first; with one logit a row that axis is the
    batch, and sample weights would weigh nothing.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true = ops.cast(ops.reshape(y_true, ops.shape(y_pred)), y_pred.dtype)
        return ops.binary_crossentropy(y_true, y_pred, from_logits=True)
