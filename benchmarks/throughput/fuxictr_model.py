"""FuxiCTR on PyTorch: its layers, its base model's `compile` and `train_epoch`."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from fuxictr.features import FeatureMap

from benchmarks.fuxictr_model import DCNv2
from benchmarks.throughput.task import (
    DIM,
    LEARNING_RATE,
    THREADS,
    Clock,
    Task,
    load,
    log_loss,
)


def make_feature_map(task: Task) -> FeatureMap:
    feature_map = FeatureMap("benchmark", ".")
    feature_map.default_emb_dim = DIM
    feature_map.labels = ["label"]
    for name, size in zip(task.fields, task.vocabularies, strict=True):
        feature_map.features[name] = {"type": "categorical", "source": "", "vocab_size": size}
    feature_map.num_fields = feature_map.get_num_fields()
    feature_map.set_column_index()
    return feature_map


def make_batches(task: Task, ids: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    batches = []
    for columns, label in zip(ids.transpose(0, 2, 1), labels, strict=True):
        batch = {
            name: torch.from_numpy(np.ascontiguousarray(column))
            for name, column in zip(task.fields, columns, strict=True)
        }
        batches.append(batch | {"label": torch.from_numpy(label)})
    return batches


def until_time_is_up(batches: list[dict[str, Any]], clock: Clock) -> Iterator[dict[str, Any]]:
    for batch in itertools.cycle(batches):
        yield batch  # gone on from when its step is done
        if clock.step():
            return


def main() -> None:
    torch.set_num_threads(THREADS)
    torch.manual_seed(1)
    task, ids, labels, clock = load()
    batches = make_batches(task, ids, labels)
    model = DCNv2(make_feature_map(task), ".", 0.0, LEARNING_RATE, 0.0, task.hidden_units)
    # What `fit` sets before it calls `train_epoch`; no evaluation comes between.
    model._max_gradient_norm, model._eval_steps = 10.0, 1_000_000_000
    model._total_steps, model._stop_training = 0, False

    def loss() -> float:
        with torch.no_grad():
            return log_loss(labels[0], model(batches[0])["y_pred"].numpy())

    before = loss()
    model.train_epoch(until_time_is_up(batches, clock))
    parameters = sum(p.numel() for p in model.parameters())
    clock.report(parameters=parameters, loss_before=before, loss_after=loss())


if __name__ == "__main__":
    main()
