"""The probabilities of clicks, by a model that gives logits."""

from typing import Any

import numpy as np
from scipy.special import expit

from tfctr.models.click_model import ClickModel


def predict(
    model: ClickModel, x: Any, batch_size: int | None = None, verbose: int = 0
) -> np.ndarray:
    """Probabilities of a click, float32 `[N]`: `model.predict` gives their logits.

    Args:
        model: a backbone or a student.
        x: as for `model.predict`: `{feature: values}` with ids and floats, one value or list a row,
            or batches, such as `data.test(4096)`. Rows as they are in a log have no ids yet; the
            exported model scores these: docs/serving.md.
        batch_size: int, for arrays. Defaults to Keras' 32.
        verbose: int, 1 for Keras' progress bar. Defaults to 0.

    Raises:
        TypeError: the model is not one of clicks.

    Examples:
        >>> tfctr.predict(model, data.test(4096))  # [N], in the order of data.columns("test")
    """
    if not isinstance(model, ClickModel):
        raise TypeError(
            f"model: found {type(model).__name__}; a backbone or a student is needed, whose "
            "outputs are logits of a click"
        )
    logits = model.predict(x, batch_size=batch_size, verbose=verbose)
    probabilities: np.ndarray = expit(np.asarray(logits, np.float32))
    return probabilities
