"""DeepCTR on Keras 2: its `DCN` with matrices for cross layers, which is DCNv2, and `fit`."""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before TensorFlow is imported

from typing import Any

import numpy as np
import requests
import tensorflow as tf

from benchmarks.throughput.task import CROSS_LAYERS, DIM, LEARNING_RATE, Task, load, log_loss


def offline(url: str) -> Any:
    raise requests.ConnectionError(f"no version check: {url}")


requests.get = offline  # type: ignore[assignment]  # DeepCTR asks for its newest version when imported

import deepctr.inputs  # noqa: E402
import deepctr.layers.core  # noqa: E402
import deepctr.layers.interaction  # noqa: E402
import deepctr.models.dcn  # noqa: E402
from deepctr.feature_column import SparseFeat  # noqa: E402
from deepctr.models import DCN  # noqa: E402

for module in (deepctr.inputs, deepctr.layers.core, deepctr.layers.interaction):
    module.l2 = lambda strength: None  # 0 * sum(w ** 2) would read whole tables at every step


def no_linear_part(features: dict[str, Any], columns: list[Any], **kwargs: Any) -> Any:
    """Zeros `[B, 1]`; DeepCTR's own are `[1, 1]`, which today's Keras 2 does not add."""
    first = next(iter(features.values()))
    return tf.keras.layers.Lambda(lambda ids: tf.zeros_like(ids, "float32"))(first)


deepctr.models.dcn.get_linear_logit = no_linear_part


def make_model(task: Task) -> Any:
    columns = [
        SparseFeat(name, size, embedding_dim=DIM)
        for name, size in zip(task.fields, task.vocabularies, strict=True)
    ]
    return DCN(
        [],
        columns,
        cross_num=CROSS_LAYERS,
        cross_parameterization="matrix",
        dnn_hidden_units=task.hidden_units,
        l2_reg_embedding=0,
        l2_reg_cross=0,
    )


def main() -> None:
    task, ids, labels, clock = load()
    tf.keras.utils.set_random_seed(1)
    model = make_model(task)
    model.compile(tf.keras.optimizers.Adam(LEARNING_RATE), "binary_crossentropy")
    columns = {
        name: np.ascontiguousarray(ids[..., i : i + 1].astype("int32"))
        for i, name in enumerate(task.fields)
    }

    def loss() -> float:
        first = {name: tf.constant(column[0]) for name, column in columns.items()}
        return log_loss(labels[0], model(first))

    class Stop(tf.keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = clock.step()

    before = loss()
    batches = tf.data.Dataset.from_tensor_slices((columns, labels[..., None])).repeat().prefetch(2)
    model.fit(batches, steps_per_epoch=1_000_000, verbose=0, callbacks=[Stop()])
    clock.report(parameters=model.count_params(), loss_before=before, loss_after=loss())


if __name__ == "__main__":
    main()
