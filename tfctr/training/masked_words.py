"""The objective of masked language modelling."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from rich.console import Console

from tfctr.data.dataset import Dataset
from tfctr.data.manifest import DataError
from tfctr.training.objectives import Objective


class MaskedWordsObjective(Objective):
    """The best epoch has the greatest likelihood of validation rows' masked tokens.

    The model's call returns log likelihoods and which of them count, as a `MaskedLM`'s does.
    """

    chosen_by = "valid_log_likelihood"
    title = "validation log likelihood of a hidden token"
    rows: ClassVar[int] = 16_384  # number of rows to measure
    batch: ClassVar[int] = 512

    def __init__(self, data: Dataset, reads: Sequence[str]) -> None:
        rows = data.valid(self.batch, features=reads)
        self.batches = rows.take(self.rows // self.batch)

    def measure(self, model: Any, console: Console) -> dict[str, float]:
        """`valid_log_likelihood`: the mean per token, in nats."""
        model._catch_up()
        call = tf.function(
            lambda features: model(features, training=False), autograph=False, reduce_retracing=True
        )
        total, count = 0.0, 0
        for features, _ in self.batches:
            likelihoods, chosen = (found.numpy() for found in call(features))
            total += float(likelihoods[chosen].sum(dtype=np.float64))
            count += int(chosen.sum())
        if not np.isfinite(total):
            raise DataError("likelihoods are no longer finite; lower the learning rate")
        return {"valid_log_likelihood": total / max(count, 1)}
