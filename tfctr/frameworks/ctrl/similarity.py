"""The similarity of rows and texts (CTRL, arXiv:2306.02841), and its loss in little memory."""

from typing import Any

import tensorflow as tf
from keras import ops


def max_similarity(of: Any, to: Any) -> Any:
    """`[n, B]`: the sum over the sub-vectors of `of` of the greatest similarity with one of `to`.

    `sim(a, b) = Σ_m max_m' <a_m, b_m'>`. It is not symmetric.

    Args:
        of: `[n, M, d]`.
        to: `[B, M, d]`.
    """
    _, m, d = to.shape
    by_place = ops.reshape(ops.transpose(to, (1, 0, 2)), (-1, d))
    scores = ops.matmul(ops.reshape(of, (-1, d)), ops.transpose(by_place))
    # The maximum is over an axis that is not the last: for a short axis this is twice as fast.
    return ops.sum(ops.max(ops.reshape(scores, (-1, m, m, ops.shape(to)[0])), axis=2), axis=1)


def contrastive_loss(of: Any, to: Any, own: Any, excluded: Any, temperature: float) -> Any:
    """InfoNCE of `n` rows, `[n]`: `logsumexp_j(sim(a, b_j) / τ) - sim(a, b_own) / τ`.

    Args:
        of: `[n, M, d]`.
        to: `[B, M, d]`, with each row's own one.
        own: int `[n]`, the place of each row's own one.
        excluded: bool `[n, B]`: pairs that are no negatives, because their texts are equal.
        temperature: float. `τ`.
    """
    scores = max_similarity(of, to) / temperature
    own_score = ops.squeeze(ops.take_along_axis(scores, own[:, None], axis=1), axis=1)
    scores = ops.where(excluded, -1e9, scores)
    # The own one is also excluded, so it is added back.
    others = ops.logsumexp(scores, axis=1)
    return ops.logaddexp(others, own_score) - own_score


def tiled_gradients(
    rows: Any, texts: Any, keys: Any, temperature: float, tile: int
) -> tuple[Any, Any, Any]:
    """The loss in both directions, and its gradients, without all scores in memory.

    Args:
        rows: `[B, M, d]`.
        texts: `[B, M, d]`, each row's text.
        keys: int64 `[B]`, equal for equal texts. Rows with equal texts are not negatives of each
            other.
        temperature: float.
        tile: int. Number of rows whose scores, `tile * B * M`, are in memory at a time.

    Returns:
        The loss, a scalar: the mean over rows and both directions; its gradients, shaped like
        `rows` and `texts`.
    """
    size = tf.shape(keys)[0]

    def body(start: Any, loss: Any, of_rows: Any, of_texts: Any) -> Any:
        own = tf.range(start, tf.minimum(start + tile, size))
        excluded = tf.gather(keys, own)[:, None] == keys[None, :]
        with tf.GradientTape() as tape:
            tape.watch([rows, texts])
            both = [
                contrastive_loss(tf.gather(a, own), b, own, excluded, temperature)
                for a, b in ((rows, texts), (texts, rows))
            ]
            part = tf.add_n([tf.reduce_sum(losses) for losses in both])
            part /= 2 * tf.cast(size, part.dtype)
        row_part, text_part = tape.gradient(part, [rows, texts])
        row_part, text_part = tf.convert_to_tensor(row_part), tf.convert_to_tensor(text_part)
        return start + tile, loss + part, of_rows + row_part, of_texts + text_part

    _, loss, of_rows, of_texts = tf.while_loop(
        lambda start, *_: start < size,
        body,
        (0, tf.zeros((), rows.dtype), tf.zeros_like(rows), tf.zeros_like(texts)),
        parallel_iterations=1,  # with more, all tiles would be in memory
    )
    return loss, of_rows, of_texts
