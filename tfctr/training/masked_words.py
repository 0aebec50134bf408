"""The objective of masked language modelling."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from rich.console import Console

from tfctr.data.dataset import Dataset
from tfctr.training.divergence import Diverged
from tfctr.training.objectives import Objective


class MaskedWordsObjective(Objective):
    """The best epoch has the greatest log likelihood of the masked tokens in validation rows.

    The model returns log likelihoods, and bools for those that count, as a `MaskedLM` does.

    Args:
        data: its valid split is read.
        reads: the features that the model reads.
    """

    chosen_by = "valid_log_likelihood"
    title = "validation log likelihood of a masked token"
    rows: ClassVar[int] = 16_384  # number of validation rows to read
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
            raise Diverged("the likelihoods of masked tokens")
        return {"valid_log_likelihood": total / max(count, 1)}
