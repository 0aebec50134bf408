"""Vectors of texts in large batches with little memory (Gao et al., 2021, arXiv:2101.06983)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

# By default TensorFlow computes up to ten parts at a time, with the memory of ten.
_one_by_one = partial(tf.while_loop, parallel_iterations=1)


def distinct_texts(tokens: Any, keys: Any, pad_id: int) -> tuple[Any, Any]:
    """The distinct texts of a batch, shortest first, and the index of each row's text.

    Args:
        tokens: int `[B, T]`.
        keys: int64 `[B]`, equal for equal texts.
        pad_id: int. The padding token.

    Returns:
        Tokens `[n, T]`, and int32 `[B]`, indices of them.
    """
    _, places = tf.unique(keys)
    count = tf.reduce_max(places) + 1
    first = tf.math.unsorted_segment_min(tf.range(tf.size(keys)), places, count)
    found = tf.gather(tokens, first)
    lengths = tf.reduce_sum(tf.cast(found != pad_id, tf.int32), axis=1)
    order = tf.argsort(lengths)  # an encoder computes a part up to the end of its longest text
    return tf.gather(found, order), tf.gather(tf.math.invert_permutation(order), places)


def encode_in_parts(encode: Callable[[Any], Any], tokens: Any, part: int) -> Any:
    """Vectors `[n, H]` of texts `[n, T]`, `part` at a time."""
    size = tf.shape(tokens)[0]
    parts = tf.TensorArray(tf.float32, -(-size // part), infer_shape=False)

    def body(i: Any, done: Any) -> Any:
        return i + 1, done.write(i, encode(tokens[i * part : (i + 1) * part]))

    _, parts = _one_by_one(lambda i, _: i * part < size, body, (0, parts))
    return parts.concat()


def gradients_in_parts(
    encode: Callable[[Any], Any],
    variables: list[Any],
    tokens: Any,
    upstream: Any,
    part: int,
) -> list[Any]:
    """Dense gradients of the variables, from the gradients of the vectors.

    Args:
        encode: tokens `[m, t]` -> vectors `[m, H]`; deterministic.
        variables: of `encode`.
        tokens: int `[n, T]`.
        upstream: `[n, H]`, gradients of the loss by the vectors.
        part: int. Number of texts encoded at a time, whose activations are in memory.
    """
    size = tf.shape(tokens)[0]

    def body(i: Any, *sums: Any) -> Any:
        with tf.GradientTape() as tape:
            vectors = encode(tokens[i * part : (i + 1) * part])
        of_part = upstream[i * part : (i + 1) * part]
        found = tape.gradient(vectors, variables, of_part, unconnected_gradients="zero")
        added = [s + tf.convert_to_tensor(g) for s, g in zip(sums, found, strict=True)]
        return (i + 1, *added)

    zeros = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
    _, *sums = _one_by_one(lambda i, *_: i * part < size, body, (0, *zeros))
    return sums
