"""tfctr: `DCNv2` and `LazyAdam` through `fit`, its rows in memory as `Dataset.train` feeds them."""

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from beam_pipelines.tfrecord.examples import Field, encode, layout
from benchmarks.throughput.task import (
    BATCH,
    CROSS_LAYERS,
    DIM,
    LEARNING_RATE,
    Task,
    load,
    log_loss,
)
from tfctr.backbones import Backbone, create
from tfctr.data import Dataset
from tfctr.data.manifest import FORMAT, write_manifest
from tfctr.optimizers import LazyAdam


def write_dataset(task: Task, ids: np.ndarray, labels: np.ndarray, directory: Path) -> Dataset:
    """The directory that `prepare` would write, but for the vocabularies' tokens."""
    sizes = list(zip(task.fields, task.vocabularies, strict=True))
    fields = [Field("label"), *(Field.ids(name, size) for name, size in sizes)]
    columns = dict(zip(task.fields, ids.reshape(-1, ids.shape[2]).T, strict=True))
    records = b"".join(encode(fields, {**columns, "label": labels.reshape(-1)}))
    (directory / "train.tfrecord").write_bytes(records)
    shard = {"name": "train.tfrecord", "rows": labels.size, "bytes": len(records)}
    features = [
        {"name": name, "kind": "categorical", "side": "context", "vocabulary_size": size}
        for name, size in sizes
    ]
    manifest = {
        "format": FORMAT,
        "config": {"compression": "none"},
        "schema": {"features": features},
        "layout": layout(fields),
        "splits": {"train": {"rows": labels.size, "shards": [shard]}},
    }
    write_manifest(manifest, str(directory / "manifest.json"))
    return Dataset.open(directory)


def make_model(task: Task, data: Dataset) -> Backbone:
    model = create(
        "dcn_v2",
        data.schema,
        embedding_dim=DIM,
        num_cross_layers=CROSS_LAYERS,
        hidden_units=task.hidden_units,
    )
    model.build()
    model.compile(LazyAdam(LEARNING_RATE))
    return model


def main() -> None:
    task, ids, labels, clock = load()
    keras.utils.set_random_seed(1)
    with tempfile.TemporaryDirectory() as directory:
        data = write_dataset(task, ids, labels, Path(directory))
        rows = data.train(BATCH, seed=1, in_memory=True)
    model = make_model(task, data)
    first = {name: tf.constant(ids[0, :, i]) for i, name in enumerate(task.fields)}

    def loss() -> float:
        return log_loss(labels[0], tf.sigmoid(model(first)))

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = clock.step()

    before = loss()
    stop = Stop()
    while not model.stop_training:
        model.fit(rows, verbose=0, shuffle=False, callbacks=[stop])
    clock.report(parameters=model.count_params(), loss_before=before, loss_after=loss())


if __name__ == "__main__":
    main()
