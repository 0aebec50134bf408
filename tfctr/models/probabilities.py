"""The probabilities of clicks, by a model that gives logits."""

from typing import Any

import numpy as np
from scipy.special import expit

from tfctr.models.click_model import ClickModel


def predict(
    model: ClickModel, x: Any, batch_size: int | None = None, verbose: int = 0
) -> np.ndarray:
    """Probabilities of a click, float32 `[N]`; arguments as for `model.predict`, errors as for
    `check`."""
    check(model)
    logits = model.predict(x, batch_size=batch_size, verbose=verbose)
    probabilities: np.ndarray = expit(np.asarray(logits, np.float32))
    return probabilities


def check(model: Any) -> None:
    """Checks that a model's outputs are logits of a click.

    Raises:
        TypeError: they are not.
    """
    if not isinstance(model, ClickModel):
        raise TypeError(
            f"model: found {type(model).__name__}; a backbone or a student is needed, whose "
            "outputs are logits of a click"
        )
