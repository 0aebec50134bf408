"""Training: the best epoch's weights, and the same numbers after a kill."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from rich.console import Console

from tfctr import backbones, metrics, training
from tfctr.config import Training
from tfctr.data.dataset import Dataset
from tfctr.data.manifest import DataError

CONFIG = {
    "batch_size": 512,
    "epochs": 3,
    "optimizer": {"name": "lazy_adam", "learning_rate": 0.01, "embedding_l2": 1e-3},
}


def fit(data: Dataset, folder: Path, **changes: Any) -> tuple[Any, training.Progressed]:
    keras.utils.set_random_seed(7)
    model = backbones.create(
        "dcn_v2", data.schema, embedding_dim=4, hidden_units=[8], dropout=0.2, num_cross_layers=1
    )
    config = Training.model_validate(CONFIG | changes)
    progressed = training.train(model, data, config, folder, Console(quiet=True))
    return model, progressed


def weights(model: Any) -> list[np.ndarray]:
    return [np.array(w) for w in model.weights]


@pytest.fixture(scope="module")
def data(world_data: Path) -> Dataset:
    return Dataset.open(world_data)


def test_the_model_is_left_with_the_weights_of_the_best_epoch(
    data: Dataset, tmp_path: Path
) -> None:
    model, progressed = fit(data, tmp_path, epochs=4)
    aucs = [epoch["valid_auc"] for epoch in progressed.history]
    assert progressed.best_auc == max(aucs)
    assert progressed.best_epoch == int(np.argmax(aucs))
    labels = data.columns("valid", ["label"])["label"]
    found = metrics.auc(labels, model.predict(data.valid(1000), verbose=0))
    assert found == pytest.approx(max(aucs), abs=1e-6)
    assert found > 0.6


def test_it_stops_when_patience_is_over(data: Dataset, tmp_path: Path) -> None:
    _, progressed = fit(
        data, tmp_path, epochs=30, patience=1, optimizer={"name": "adam", "learning_rate": 0.1}
    )
    assert len(progressed.history) == progressed.best_epoch + 2 < 30


@pytest.mark.parametrize(("killed_at", "in_memory"), [(11, True), (32, True), (70, False)])
def test_a_killed_training_ends_with_the_same_numbers(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int, in_memory: bool
) -> None:
    """32 steps are an epoch; a checkpoint is written every 10."""
    whole, expected = fit(data, tmp_path / "whole", checkpoint_steps=10, in_memory=in_memory)

    class Killed(Exception):
        pass

    after = training._Watcher.on_train_batch_end
    steps = 0

    def die(self: Any, batch: int, logs: Any = None) -> None:
        nonlocal steps
        after(self, batch, logs)
        steps += 1
        if steps == killed_at:
            raise Killed

    monkeypatch.setattr(training._Watcher, "on_train_batch_end", die)
    with pytest.raises(Killed):
        fit(data, tmp_path / "killed", checkpoint_steps=10, in_memory=in_memory)
    monkeypatch.undo()
    again, resumed = fit(data, tmp_path / "killed", checkpoint_steps=10, in_memory=in_memory)
    assert [e["valid_auc"] for e in resumed.history] == [e["valid_auc"] for e in expected.history]
    for found, wanted in zip(weights(again), weights(whole), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_every_optimizer_of_the_config_trains(data: Dataset, tmp_path: Path) -> None:
    for name in ("lazy_adam", "lazy_adagrad", "adam", "adagrad"):
        _, progressed = fit(
            data, tmp_path / name, epochs=1, optimizer={"name": name, "learning_rate": 0.02}
        )
        assert progressed.history[0]["loss"] < 0.7


def test_a_diverged_training_says_so(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no longer finite; lower training.optimizer.learning_rate"
    ):
        fit(data, tmp_path, optimizer={"name": "lazy_adam", "learning_rate": 1e30})


def test_validation_rows_of_one_label_are_refused(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "columns", lambda split, names: {"label": np.zeros(50, np.float32)})
    with pytest.raises(DataError, match="all 50 validation rows have the label 0"):
        fit(data, tmp_path)
