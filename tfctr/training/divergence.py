"""What is said of a training whose numbers are no longer finite."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from tfctr.data.dataset import Dataset
from tfctr.data.manifest import DataError
from tfctr.schema import Numeric

UNUSUAL = 100  # of a scaled number, which rarely is above 5
LOWER = "lower training.optimizer.learning_rate"


class Diverged(DataError):
    """A model's weights, or what it computes, are no longer finite.

    Args:
        what: that is not finite, e.g. "the likelihoods".
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} are no longer finite; {LOWER}")
        self.what = what

    def during(self, when: str, data: Dataset, names: Sequence[str]) -> DataError:
        """The error of a training, with the extreme inputs that its rows have, if any.

        Args:
            when: it was found, e.g. "epoch 2, by step 32 of 100".
            data: that the model learned from.
            names: of the features that it reads.
        """
        found = extreme_inputs(data, names)
        if not found:
            return DataError(f"{when}: {self}")
        one = len(found) == 1
        return DataError(
            f"{when}: {self.what} are no longer finite. The training rows have extreme numbers: "
            f"{', '.join(found)}. Write transform: robust or transform: log for "
            f"{'this feature' if one else 'these features'}, or clean such rows; if this does not "
            f"help, {LOWER}"
        )


def has_finite_weights(model: Any) -> bool:
    """Whether all numbers of all weights are finite."""
    return all(np.isfinite(ops.convert_to_numpy(weight)).all() for weight in model.weights)


def extreme_inputs(data: Dataset, names: Sequence[str]) -> list[str]:
    """The numeric features of `names` with a number in the training rows that a model reads as more
    than `UNUSUAL`, e.g. `price = 3e+38`."""
    measured = data.manifest.get("numbers", {})  # by `prepare`
    found = []
    for feature in data.schema.inputs:
        if feature.name not in names or not is_scaled(feature) or feature.name not in measured:
            continue
        ends = [measured[feature.name][end] for end in ("min", "max")]
        farthest = max(ends, key=lambda number: abs(feature.scaled(number)))
        if abs(feature.scaled(farthest)) > UNUSUAL:
            found.append(f"{feature.name} = {farthest:g}")
    return found


def is_scaled(feature: Any) -> bool:
    """Whether a model reads a feature as a number, and not as a token or a bucket."""
    return isinstance(feature, Numeric) and feature.transform != "bucketize"
