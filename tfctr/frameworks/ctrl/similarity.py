"""How alike a row and a text are (CTRL, arXiv:2306.02841), and a loss that memory bounds not."""

from typing import Any

import tensorflow as tf
from keras import ops


def max_similarity(of: Any, to: Any) -> Any:
    """`[n, B]`: for each of the sub-vectors of one the most alike of the other, summed.

    `sim(a, b) = Σ_m max_m' <a_m, b_m'>`. It is not symmetric: the maximum is over those of `to`.

    Args:
        of: `[n, M, d]`.
        to: `[B, M, d]`.
    """
    _, m, d = to.shape
    by_place = ops.reshape(ops.transpose(to, (1, 0, 2)), (-1, d))
    scores = ops.matmul(ops.reshape(of, (-1, d)), ops.transpose(by_place))
    # The maximum is over an axis that is not the last: over so short a one, that is twice as fast.
    return ops.sum(ops.max(ops.reshape(scores, (-1, m, m, ops.shape(to)[0])), axis=2), axis=1)


def contrastive_loss(of: Any, to: Any, own: Any, excluded: Any, temperature: float) -> Any:
    """InfoNCE of some rows, `[n]`: `logsumexp_j(sim(a, b_j) / τ) - sim(a, b_own) / τ`.

    Args:
        of: `[n, M, d]`.
        to: `[B, M, d]`, among them each row's own.
        own: int `[n]`, where that one is.
        excluded: bool `[n, B]`: pairs that are no negatives, for the same text.
        temperature: float. `τ`.
    """
    scores = max_similarity(of, to) / temperature
    own_score = ops.squeeze(ops.take_along_axis(scores, own[:, None], axis=1), axis=1)
    scores = ops.where(excluded, -1e9, scores)
    # The own one is among the excluded, so it is added back.
    others = ops.logsumexp(scores, axis=1)
    return ops.logaddexp(others, own_score) - own_score


def tiled_gradients(
    rows: Any, texts: Any, keys: Any, temperature: float, tile: int
) -> tuple[Any, Any, Any]:
    """The loss, both ways, and its gradients, without a score of all with all in memory.

    Args:
        rows: `[B, M, d]`.
        texts: `[B, M, d]`, each row's text.
        keys: int64 `[B]`, equal for equal texts. A row is not told apart from another one's text
            that is the same as its own.
        temperature: float.
        tile: int. Rows whose scores, `tile * B * M` of them, are in memory at a time.

    Returns:
        The loss, a scalar: the mean over rows and both ways; its gradients, shaped as `rows` and
        `texts`.
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
        parallel_iterations=1,  # of several, all tiles would be in memory
    )
    return loss, of_rows, of_texts
