"""Predicts the logits of a split's rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import Progress

from tfctr.data.dataset import ROW, Dataset
from tfctr.data.manifest import DataError
from tfctr.models.schema_model import SchemaModel
from tfctr.schema import LARGEST_SCALED, Numeric
from tfctr.training import distribution
from tfctr.training.divergence import UNUSUAL, Diverged, has_finite_weights, is_scaled

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


def check_finite(logits: np.ndarray, model: SchemaModel, data: Dataset, split: str) -> None:
    """Checks the logits `[N]` of a split's rows.

    Raises:
        DataError: one is not finite, and a number of its row is too large.
        Diverged: one is not finite for another reason.
    """
    rows = np.flatnonzero(~np.isfinite(logits))
    if not len(rows):
        return
    if has_finite_weights(model):
        features = [f for f in data.schema.inputs if is_scaled(f)]
        columns = data.columns(split, [ROW, *(f.name for f in features)])
        at = {f.name: columns[f.name][rows[0]] for f in features}
        sizes = {f.name: _size(f, at[f.name]) for f in features}
        name = max(sizes, key=lambda name: sizes[name], default=None)
        if name is not None and sizes[name] > UNUSUAL:
            raise DataError(
                f"{data.directory}: {len(rows):,} rows of {split} have no finite score; the first "
                f"is row {columns[ROW][rows[0]]} of the log, with {name} = {at[name]:g}: write "
                "transform: robust or transform: log for this feature, or clean the row"
            )
    raise Diverged("the model's logits")


def _size(feature: Numeric, number: float) -> float:
    """Of a number as the model reads it."""
    if not np.isfinite(number):
        return 0.0
    return min(abs(feature.scaled(float(number))), LARGEST_SCALED[feature.transform])


@contextmanager
def traced(model: SchemaModel, steps: int) -> Iterator[None]:
    """In this context the model's steps run as a graph, or eagerly if they are few."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    model.run_eagerly = steps <= FEW_STEPS and replicas == 1
    try:
        yield
    finally:
        model.run_eagerly = False
