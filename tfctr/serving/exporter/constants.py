"""Weights as constants of a graph, so that TensorFlow computes what depends on them alone once."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Numbers of a weight. To read a variable takes three operations, some microseconds: nothing beside
# a matrix product with more numbers than these, for 100 candidates. And a constant is kept in
# memory once for each signature that was asked.
LARGEST = 2**16


def dense_as_constants(model: Any) -> keras.StatelessScope:
    """In this scope a model's weights are constants, but those of more than `LARGEST` numbers, such
    as the tables of embeddings. All signatures share one constant in the file."""
    small = [weight for weight in model.weights if np.prod(weight.shape) <= LARGEST]
    return keras.StatelessScope(
        state_mapping=[(w, tf.constant(np.asarray(w), w.dtype)) for w in small]
    )
