"""Small weights as constants of a graph, so that what depends only on them is computed once."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Numbers in a weight. Reading a variable takes three operations, a few microseconds: little next to
# the product of a larger matrix and 100 candidates. And each signature that was asked keeps a
# copy of a constant in memory.
LARGEST = 2**16


def dense_as_constants(model: Any) -> keras.StatelessScope:
    """In this scope a model's weights are constants, except those of more than `LARGEST` numbers,
    such as embedding tables. In the file all signatures share one constant."""
    small = [weight for weight in model.weights if np.prod(weight.shape) <= LARGEST]
    return keras.StatelessScope(
        state_mapping=[(w, tf.constant(np.asarray(w), w.dtype)) for w in small]
    )
