"""Predicts the logits of a split's rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import Progress

from tfctr.models.schema_model import SchemaModel
from tfctr.training import distribution

EVALUATION_BATCH = 8192
FEW_STEPS = 16  # run eagerly, they take no longer than tracing a graph


def predict(model: SchemaModel, batches: Any, what: str, console: Console) -> np.ndarray:
    """Logits `[N]`, with a progress bar.

    Args:
        model: built.
        batches: a `tf.data.Dataset` of `(features, label)` with a known number of batches.
        what: a word for the progress bar.
        console: for the progress bar.
    """
    steps = int(batches.cardinality())
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=steps)
        if distribution.part(model.distribute_strategy).workers > 1:
            # Each worker reads all rows; Keras' `predict` would return them in another order.
            model._catch_up()
            logits = tf.function(lambda features: model(features, training=False), autograph=False)
            return np.concatenate([logits(features).numpy() for features, _ in batches])
        advance = keras.callbacks.LambdaCallback()
        advance.on_predict_batch_end = lambda batch, logs=None: bar.advance(task)
        with traced(model, steps):
            return np.asarray(model.predict(batches, verbose=0, callbacks=[advance]))


@contextmanager
def traced(model: SchemaModel, steps: int) -> Iterator[None]:
    """In this context the model's steps run as a graph, or eagerly if they are few."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    model.run_eagerly = steps <= FEW_STEPS and replicas == 1
    try:
        yield
    finally:
        model.run_eagerly = False
