"""Losses that make embeddings from descriptions like those that are trained."""

from typing import Any

from keras import ops

SMALLEST = 1e-6


def regression(made: Any, trained: Any, weights: Any) -> Any:
    """The squared distance between both, over the variance of the trained ones: 1 if the mean of
    all is made.

    Args:
        made: `[B, D]`.
        trained: `[B, D]`, which get no gradient.
        weights: `[B]`, 1 for rows that count, else 0.

    Returns:
        A scalar.
    """
    trained, weights = ops.stop_gradient(trained), weights[:, None]
    number = ops.maximum(ops.sum(weights), 1.0)
    center = ops.sum(weights * trained, axis=0, keepdims=True) / number
    spread = ops.sum(weights * ops.square(trained - center))
    return ops.sum(weights * ops.square(made - trained)) / ops.maximum(spread, SMALLEST)


def contrast(made: Any, trained: Any, weights: Any, ids: Any, temperature: float) -> Any:
    """InfoNCE: each made embedding finds the trained one of its item among those of the batch, by
    cosine (van den Oord et al., 2018, arXiv:1807.03748).

    Args:
        made, trained, weights: as for `regression`.
        ids: int `[B]`. Other rows of the same item are neither right nor wrong.
        temperature: float. Cosines are divided by it.
    """
    trained = ops.stop_gradient(trained)
    made, trained = (ops.normalize(x, axis=1, epsilon=SMALLEST) for x in (made, trained))
    scores = ops.matmul(made, ops.transpose(trained)) / temperature
    own = ops.eye(ops.shape(ids)[0], dtype="bool")
    left_out = ops.logical_and(ids[:, None] == ids[None], ops.logical_not(own))
    left_out = ops.logical_or(left_out, weights[None] == 0)
    scores = ops.where(ops.logical_and(left_out, ops.logical_not(own)), -1e9, scores)
    right = ops.sum(ops.where(own, ops.log_softmax(scores, axis=1), 0.0), axis=1)
    return -ops.sum(weights * right) / ops.maximum(ops.sum(weights), 1.0)
