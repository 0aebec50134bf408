"""The limit: a step's matrix products in TensorFlow, forward and backward, and nothing else."""

from itertools import pairwise

import tensorflow as tf

from benchmarks.throughput.task import BATCH, CROSS_LAYERS, load


def main() -> None:
    task, _, _, clock = load()
    widths = (task.width, *task.hidden_units)
    shapes = [(task.width, task.width)] * CROSS_LAYERS
    shapes += list(pairwise(widths))
    shapes += [(task.width + widths[-1], 1)]
    operands = [
        tuple(
            tf.Variable(tf.random.normal(size))
            for size in ((BATCH, inputs), (inputs, outputs), (BATCH, outputs))
        )
        for inputs, outputs in shapes
    ]

    @tf.function
    def step() -> list[tf.Tensor]:
        products = []
        for x, w, dy in operands:
            products += [
                tf.matmul(x, w),
                tf.matmul(x, dy, transpose_a=True),
                tf.matmul(dy, w, transpose_b=True),
            ]
        return products

    step()
    while not clock.step():
        step()
    clock.report()


if __name__ == "__main__":
    main()
