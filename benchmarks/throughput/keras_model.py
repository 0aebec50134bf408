"""Keras alone: the model written with its layers, one table for all fields, its Adam, `fit`."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.throughput.task import CROSS_LAYERS, DIM, LEARNING_RATE, Task, load, log_loss


def make_model(task: Task) -> keras.Model:
    rows = keras.Input((len(task.fields),), dtype="int32")
    table = keras.layers.Embedding(sum(task.vocabularies), DIM)
    x0 = keras.layers.Flatten()(table(rows))
    x = x0
    for _ in range(CROSS_LAYERS):
        x = x0 * keras.layers.Dense(task.width)(x) + x
    deep = x0
    for units in task.hidden_units:
        deep = keras.layers.Dense(units, activation="relu")(deep)
    logits = keras.layers.Dense(1)(keras.layers.Concatenate()([x, deep]))
    return keras.Model(rows, logits)


def main() -> None:
    task, ids, labels, clock = load()
    rows = (ids + np.cumsum((0, *task.vocabularies[:-1]))).astype("int32")

    keras.utils.set_random_seed(1)
    model = make_model(task)
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        keras.losses.BinaryCrossentropy(from_logits=True),
        jit_compile=False,  # faster so on a CPU
    )

    def loss() -> float:
        return log_loss(labels[0], tf.sigmoid(model(rows[0])))

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = clock.step()

    before = loss()
    batches = tf.data.Dataset.from_tensor_slices((rows, labels[..., None])).repeat().prefetch(2)
    model.fit(batches, steps_per_epoch=1_000_000, verbose=0, callbacks=[Stop()])
    clock.report(parameters=model.count_params(), loss_before=before, loss_after=loss())


if __name__ == "__main__":
    main()
