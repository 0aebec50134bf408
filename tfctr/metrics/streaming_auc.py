"""AUC as a Keras metric, from logits."""

from typing import Any

import keras
from keras import ops

BINS = 1 << 16
LARGEST = 16.0  # logits beyond it, probabilities within 1e-7 of 0 or 1, share the outermost bins


@keras.saving.register_keras_serializable("tfctr")
class AUC(keras.metrics.Metric):
    """AUC of logits `[B]` and clicks `[B]`, for `compile(metrics=[tfctr.metrics.AUC()])`.

    Clicks and other rows are counted in 65,536 bins of equal width between the logits -16 and 16;
    two rows of one bin count as a tie, a half. It is NaN while one class is absent.

    `keras.metrics.AUC(from_logits=True)` counts at 200 probabilities of equal distance. Most click
    probabilities lie between two or three of these.

    Examples:
        >>> model.compile(tfctr.optimizers.LazyAdam(1e-3), metrics=[tfctr.metrics.AUC()])
    """

    def __init__(self, name: str = "auc", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        zeros = keras.initializers.Zeros()
        self.clicks = self.add_variable((BINS,), zeros, name="clicks")
        self.others = self.add_variable((BINS,), zeros, name="others")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        logits = ops.reshape(ops.cast(y_pred, "float32"), (-1,))
        labels = ops.reshape(ops.cast(y_true, "float32"), (-1,))
        share = (ops.clip(logits, -LARGEST, LARGEST) + LARGEST) / (2 * LARGEST)
        bins = ops.minimum(ops.cast(share * BINS, "int32"), BINS - 1)
        weights = ops.ones_like(labels)
        if sample_weight is not None:
            weights = weights * ops.reshape(ops.cast(sample_weight, "float32"), (-1,))
        self.clicks.assign_add(ops.segment_sum(weights * labels, bins, BINS))
        self.others.assign_add(ops.segment_sum(weights * (1 - labels), bins, BINS))

    def result(self) -> Any:
        clicks = self.clicks / ops.sum(self.clicks)
        others = self.others / ops.sum(self.others)
        return ops.sum(clicks * (ops.cumsum(others) - others / 2))
