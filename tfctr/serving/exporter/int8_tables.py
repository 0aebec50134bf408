"""Embedding tables as rows of int8 with a scale each: `D + 4` bytes in place of `4D`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.quantizers import abs_max_quantize

from tfctr.models.transfer import tables

ROWS_AT_A_TIME = 2**18


def quantized(table: Any) -> tuple[np.ndarray, np.ndarray]:
    """Int8 rows `[V, D]` and float32 scales `[V, 1]`; their product is nearest to `[V, D]`.

    Each row is scaled by its own greatest number, so each number is off by a 254th of it at most.
    """
    rows = np.empty(table.shape, np.int8)
    scales = np.empty((table.shape[0], 1), np.float32)
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        some = slice(start, start + ROWS_AT_A_TIME)
        rows[some], inverse = abs_max_quantize(table[some], axis=-1, to_numpy=True)
        scales[some] = 1 / inverse
    return rows, scales


@contextmanager
def int8_tables(model: Any) -> Iterator[list[Any]]:
    """In this scope a model's `FieldEmbedding`s read int8 rows; its weights stay as they are.

    Yields:
        What the graphs that are traced in the scope read: the variables of the tables, and the
        weights of the model that are no tables.
    """
    layers = {id(layer.table): layer for layer in tables(model)}
    read = [weight.value for weight in model.weights if id(weight) not in layers]
    try:
        for layer in layers.values():
            rows, scales = quantized(keras.ops.convert_to_tensor(layer.table))
            layer.int8_rows = (
                tf.Variable(rows, trainable=False, name="rows"),
                tf.Variable(scales, trainable=False, name="scales"),
            )
            read += [*layer.int8_rows]
        yield read
    finally:
        for layer in layers.values():
            layer.int8_rows = None
