"""A student that starts where a pre-training left its backbone."""

from typing import Any

import numpy as np
from keras import ops


def start_from(model: Any, pretrained: Any) -> None:
    """Gives a backbone the weights of a pretrained one of the same make; its head stays new.

    Raises:
        ValueError: the two are not of the same make.
    """
    own = {id(weight) for weight in model.head.weights}
    if [w.shape for w in model.weights] != [w.shape for w in pretrained.weights]:
        raise ValueError(
            f"`pretrained` should be a {type(model).__name__} with the same arguments. Received: "
            f"{type(pretrained).__name__}"
        )
    for weight, source in zip(model.weights, pretrained.weights, strict=True):
        if id(weight) not in own:
            weight.assign(np.asarray(ops.convert_to_numpy(source)))
