"""Losses that make embeddings from descriptions like those that are trained."""

from typing import Any

from keras import ops

SMALLEST = 1e-6
CONTRASTED = 512  # rows of a batch: the cost of a contrast grows with their square


def regression(made: Any, trained: Any, weights: Any) -> Any:
    """The mean squared distance between both.

    It is not divided by the spread of the trained ones: that is close to 0 before they have learned
    anything, and the loss would then be all that counts.

    Args:
        made: `[B, D]`.
        trained: `[B, D]`, which get no gradient.
        weights: `[B]`, 1 for rows that count, else 0.

    Returns:
        A scalar.
    """
    distances = ops.sum(ops.square(made - ops.stop_gradient(trained)), axis=1)
    return ops.sum(weights * distances) / ops.maximum(ops.sum(weights), 1.0)


def contrast(made: Any, trained: Any, weights: Any, ids: Any, temperature: float) -> Any:
    """InfoNCE: each made embedding finds the trained one of its item among those of the batch's
    first `CONTRASTED` rows, by cosine (van den Oord et al., 2018, arXiv:1807.03748).

    Args:
        made, trained, weights: as for `regression`.
        ids: int `[B]`. Other rows of the same item are neither right nor wrong.
        temperature: float. Cosines are divided by it.
    """
    made, trained, weights, ids = (x[:CONTRASTED] for x in (made, trained, weights, ids))
    trained = ops.stop_gradient(trained)
    made, trained = (ops.normalize(x, axis=1, epsilon=SMALLEST) for x in (made, trained))
    scores = ops.matmul(made, ops.transpose(trained)) / temperature
    own = ops.eye(ops.shape(ids)[0], dtype="bool")
    left_out = ops.logical_and(ids[:, None] == ids[None], ops.logical_not(own))
    left_out = ops.logical_or(left_out, weights[None] == 0)
    scores = ops.where(ops.logical_and(left_out, ops.logical_not(own)), -1e9, scores)
    right = ops.sum(ops.where(own, ops.log_softmax(scores, axis=1), 0.0), axis=1)
    return -ops.sum(weights * right) / ops.maximum(ops.sum(weights), 1.0)
