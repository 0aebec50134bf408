"""Training: the best epoch's weights, and the same numbers after a kill."""

import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from tests.conftest import few_quick
from tests.training.killed import killed_at
from tfctr import backbones, metrics, stages
from tfctr.config import ConfigError, Training
from tfctr.data.dataset import Dataset
from tfctr.data.manifest import DataError
from tfctr.schema import Schema
from tfctr.training.checkpoint import TrainingState
from tfctr.training.divergence import Diverged
from tfctr.training.loop import train
from tfctr.training.objectives import Clicks, LastEpoch
from tfctr.training.predict import check_finite

CONFIG: dict[str, Any] = {
    "batch_size": 512,
    "epochs": 3,
    "optimizer": {"name": "lazy_adam", "learning_rate": 0.01, "embedding_l2": 1e-3},
}


NAMES = {"auc": "auc", "gauc": "gauc", "loss": "log_loss"}


def fit(
    data: Dataset,
    folder: Path,
    to_the_end: bool = False,
    console: Console | None = None,
    **changes: Any,
) -> tuple[Any, TrainingState]:
    keras.utils.set_random_seed(7)
    model = backbones.create(
        "dcn_v2", data.schema, embedding_dim=4, hidden_units=[8], dropout=0.2, num_cross_layers=1
    )
    config = Training.model_validate(CONFIG | changes)
    objective = LastEpoch(config)
    if not to_the_end:
        objective = Clicks(data, config, model.reads)
    state = train(model, data, config, folder, console or Console(quiet=True), objective)
    return model, state


def weights(model: Any) -> list[np.ndarray]:
    return [np.array(w) for w in model.weights]


@pytest.fixture(scope="module")
def data(world_data: Path) -> Dataset:
    return Dataset.open(world_data)


def test_the_model_is_left_with_the_weights_of_the_best_epoch(
    data: Dataset, tmp_path: Path
) -> None:
    model, state = fit(data, tmp_path, epochs=4)
    aucs = [epoch["valid_auc"] for epoch in state.history]
    assert state.best_score == max(aucs)
    assert state.best_epoch == int(np.argmax(aucs))
    labels = data.columns("valid", ["label"])["label"]
    found = metrics.auc(labels, model.predict(data.valid(1000), verbose=0))
    assert found == pytest.approx(max(aucs), abs=1e-6)
    assert found > 0.6


@pytest.mark.parametrize(
    ("chosen_by", "said"),
    [
        ("gauc", "validation GAUC {gauc:.4f}, log loss {loss:.4f}"),
        pytest.param(
            "log_loss",
            "validation log loss {loss:.4f}, AUC {auc:.4f}",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_best_epoch_is_that_of_the_chosen_measure(
    data: Dataset, tmp_path: Path, chosen_by: str, said: str
) -> None:
    printed = io.StringIO()
    changes = {"epochs": 12, "patience": 2, "optimizer": {"learning_rate": 0.05}}
    model, state = fit(
        data, tmp_path, console=Console(file=printed, width=200), chosen_by=chosen_by, **changes
    )
    sign = -1 if chosen_by == "log_loss" else 1
    scores = [sign * epoch[f"valid_{chosen_by}"] for epoch in state.history]
    assert state.best_epoch == int(np.argmax(scores))
    assert state.best_score == sign * max(scores)
    assert len(scores) == state.best_epoch + 3 < 12  # it learns by heart soon, and is stopped
    columns = data.columns("valid", ["label", "user_key"])
    logits = model.predict(data.valid(1000), verbose=0)
    last = state.history[-1]
    for epoch, line in zip(state.history, printed.getvalue().splitlines(), strict=True):
        named = {name: epoch[f"valid_{full}"] for name, full in NAMES.items()}
        assert said.format(**named) in line
    assert "(best)" in printed.getvalue().splitlines()[state.best_epoch]
    found = {
        "gauc": metrics.gauc(columns["label"], logits, columns["user_key"]),
        "log_loss": metrics.log_loss(columns["label"], logits),
    }
    assert found[chosen_by] == pytest.approx(state.best_score, abs=1e-6)
    assert found[chosen_by] != pytest.approx(last[f"valid_{chosen_by}"], abs=1e-6)


def test_a_plateau_is_of_the_chosen_measure(data: Dataset, tmp_path: Path) -> None:
    optimizer = {"learning_rate": 0.1, "schedule": {"name": "plateau", "factor": 0.5}}
    _, state = fit(data, tmp_path, optimizer=optimizer, chosen_by="log_loss", epochs=5, patience=5)
    best, expected = math.inf, 0.1
    for epoch in state.history:
        assert epoch["learning_rate"] == pytest.approx(expected)
        if epoch["valid_log_loss"] >= best:
            expected *= 0.5
        best = min(best, epoch["valid_log_loss"])
    assert expected < 0.1


def test_gauc_needs_a_user_with_both_labels(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Training(chosen_by="gauc")
    rows = data.columns("valid", ["label", "user_key"])
    each_alone = rows | {"user_key": np.arange(len(rows["label"]))}
    monkeypatch.setattr(data, "columns", lambda split, names: each_alone)
    with pytest.raises(DataError, match="no user has validation rows of both labels"):
        Clicks(data, config, [])
    assert Clicks(data, Training(), []).users is None
    nobodys = data.manifest | {"config": data.manifest["config"] | {"user": None}}
    monkeypatch.setattr(data, "manifest", nobodys)
    with pytest.raises(ConfigError, match=r"training.chosen_by: 'gauc' needs the key 'user'"):
        Clicks(data, config, [])


def test_it_stops_when_patience_is_over(data: Dataset, tmp_path: Path) -> None:
    _, state = fit(
        data, tmp_path, epochs=30, patience=1, optimizer={"name": "adam", "learning_rate": 0.1}
    )
    assert len(state.history) == state.best_epoch + 2 < 30


@pytest.mark.parametrize(
    ("step", "in_memory", "compact"),
    [
        (11, True, True),  # the checkpoint has bfloat16 too
        pytest.param(32, True, False, marks=pytest.mark.slow),
        pytest.param(70, False, False, marks=pytest.mark.slow),
    ],
)
def test_a_killed_training_ends_with_the_same_numbers(
    data: Dataset, tmp_path: Path, step: int, in_memory: bool, compact: bool
) -> None:
    """32 steps are an epoch; a checkpoint is written every 10."""
    changes: dict[str, Any] = {"checkpoint_steps": 10, "in_memory": in_memory}
    changes["optimizer"] = CONFIG["optimizer"] | {"compact_state": compact}
    whole, expected = fit(data, tmp_path / "whole", **changes)
    with killed_at(step):
        fit(data, tmp_path / "killed", **changes)
    again, resumed = fit(data, tmp_path / "killed", **changes)
    assert [e["valid_auc"] for e in resumed.history] == [e["valid_auc"] for e in expected.history]
    for found, wanted in zip(weights(again), weights(whole), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_every_optimizer_of_the_config_trains(data: Dataset, tmp_path: Path) -> None:
    for name in ("lazy_adam", "lazy_adagrad", "adam", "adagrad"):
        _, state = fit(
            data, tmp_path / name, epochs=1, optimizer={"name": name, "learning_rate": 0.02}
        )
        assert state.history[0]["loss"] < 0.7


SCHEDULES: list[tuple[dict[str, Any], list[float]]] = [
    ({"name": "linear", "final": 0.25}, [0.01, 0.0075, 0.005]),
    ({"name": "exponential", "decay": 0.5}, [0.01, 0.005, 0.0025]),
    (
        {"name": "cosine", "final": 0.2},
        [0.01, 0.01 * (0.2 + 0.8 * 0.75), 0.01 * (0.2 + 0.8 * 0.25)],
    ),
    ({"name": "cosine", "warmup_epochs": 1}, [0.0, 0.01, 0.005]),
]


@pytest.mark.parametrize(("schedule", "rates"), SCHEDULES, ids=lambda value: str(value))
def test_the_learning_rate_follows_the_schedule(
    data: Dataset, tmp_path: Path, schedule: dict[str, Any], rates: list[float]
) -> None:
    """The rates at the starts of three epochs."""
    optimizer = {"learning_rate": 0.01, "schedule": schedule}
    _, state = fit(data, tmp_path, optimizer=optimizer, in_memory=True)
    found = [epoch["learning_rate"] for epoch in state.history]
    np.testing.assert_allclose(found, rates, rtol=1e-5)


@pytest.mark.slow
def test_on_a_plateau_the_learning_rate_falls(data: Dataset, tmp_path: Path) -> None:
    optimizer = {"learning_rate": 0.2, "schedule": {"name": "plateau", "factor": 0.1}}
    _, state = fit(data, tmp_path, optimizer=optimizer, epochs=6, patience=6, in_memory=True)
    best, expected = -1.0, 0.2
    for epoch in state.history:
        assert epoch["learning_rate"] == pytest.approx(expected)
        if epoch["valid_auc"] <= best:
            expected *= 0.1
        best = max(best, epoch["valid_auc"])
    assert expected < 0.2


@pytest.mark.parametrize("in_memory", few_quick([True, False], True))
def test_weights_and_missing_negatives_do_not_shift_the_predictions(
    data: Dataset, tmp_path: Path, in_memory: bool
) -> None:
    """Both make clicks look more likely; what is left of it in the trained model is nothing."""
    labels = data.columns("valid", ["label"])["label"]
    ratios = {}
    for name, changes in {
        "plain": {},
        "weighted": {"positive_weight": 4.0},
        "sampled": {"keep_negatives": 0.25},
    }.items():
        model, state = fit(data, tmp_path / name, epochs=2, in_memory=in_memory, **changes)
        logits = model.predict(data.valid(1000), verbose=0)
        ratios[name] = metrics.calibration_ratio(labels, 1 / (1 + np.exp(-logits)))
        found = metrics.log_loss(labels, logits)
        best = state.history[state.best_epoch]
        assert best["valid_log_loss"] == pytest.approx(found, abs=1e-5)
    # Without the correction they would be twice as high, or more.
    assert ratios["weighted"] == pytest.approx(ratios["plain"], rel=0.3)
    assert ratios["sampled"] == pytest.approx(ratios["plain"], rel=0.3)


@pytest.mark.parametrize(
    "precision", few_quick(["mixed_bfloat16", "mixed_float16"], "mixed_float16")
)
def test_a_model_trained_in_mixed_precision_is_saved_in_full(
    data: Dataset, tmp_path: Path, precision: str
) -> None:
    with stages.training._precision(precision):
        model, state = fit(data, tmp_path, in_memory=True)
        assert model.deep.stack[0].compute_dtype == precision.removeprefix("mixed_")
        assert model.fields.table.dtype == "float32"
    assert state.best_score > 0.6
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.deep.stack[0].compute_dtype == "float32"
    logits = again.predict(data.valid(1000), verbose=0)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, model.predict(data.valid(1000), verbose=0), atol=0.05)


@pytest.mark.slow
def test_tensorboard_shows_losses_and_rates(data: Dataset, tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    _, state = fit(data, tmp_path, tensorboard=True, in_memory=True)
    found = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    events = {name: found.Tensors(name) for name in found.Tags()["tensors"]}
    assert set(events) == {*state.history[0], "loss_so_far", "examples_per_second"}
    aucs = [float(tf.make_ndarray(event.tensor_proto)) for event in events["valid_auc"]]
    np.testing.assert_allclose(aucs, [epoch["valid_auc"] for epoch in state.history])
    assert [event.step for event in events["valid_auc"]] == [32, 64, 96]


@pytest.mark.parametrize("to_the_end", [False, True])
def test_a_diverged_training_says_so(data: Dataset, tmp_path: Path, to_the_end: bool) -> None:
    says = (
        r"^epoch 1, by step 16 of 32: the model's weights are no longer finite; "
        r"lower training.optimizer.learning_rate$"
    )
    with pytest.raises(DataError, match=says):
        fit(data, tmp_path, to_the_end, optimizer={"name": "lazy_adam", "learning_rate": 1e30})


def test_a_diverged_training_names_the_extreme_numbers_that_it_read() -> None:
    features = [
        {"name": name, "kind": "numeric", "side": "item", "mean": 5.0, "std": 2.0}
        | ({"transform": "bucketize", "boundaries": [5.0]} if name == "age" else {})
        for name in ("price", "size", "age", "depth", "unread")
    ]
    ends = {"price": (3.0, 3e38), "size": (0.0, 9.0), "age": (0.0, 1e9), "depth": (-4e3, 9.0)}
    ends["unread"] = (0.0, 1e9)
    data: Any = SimpleNamespace(
        schema=Schema.model_validate({"features": features}),
        manifest={"numbers": {n: {"min": low, "max": high} for n, (low, high) in ends.items()}},
    )
    error = Diverged("the likelihoods")
    text = str(error.during("epoch 2", data, ["price", "size", "age", "depth", "city"]))
    assert text.startswith(
        "epoch 2: the likelihoods are no longer finite. The training rows have extreme numbers: "
        "price = 3e+38, depth = -4000. Write transform: robust or transform: log for these features"
    )
    assert text.endswith("if this does not help, lower training.optimizer.learning_rate")
    assert str(error.during("epoch 2", data, ["size"])) == (
        "epoch 2: the likelihoods are no longer finite; lower training.optimizer.learning_rate"
    )


def test_validation_rows_of_one_label_are_refused(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "columns", lambda split, names: {"label": np.zeros(50, np.float32)})
    with pytest.raises(DataError, match="all 50 validation rows have the label 0"):
        fit(data, tmp_path)


def test_a_number_without_a_finite_score_is_named_and_blames_no_learning_rate() -> None:
    price = {"name": "price", "kind": "numeric", "side": "item", "transform": "none"}
    columns = {"row_id": np.array([7, 9]), "price": np.array([1.0, 3e38], np.float32)}
    data: Any = SimpleNamespace(
        schema=Schema.model_validate({"features": [price]}),
        directory="work/shop",
        columns=lambda split, names: {name: columns[name] for name in names},
    )
    model: Any = SimpleNamespace(weights=[np.ones(3)])
    check_finite(np.array([0.0, 1.0]), model, data, "test")
    with pytest.raises(DataError, match=r"1 rows of test .* row 9 of the log, with price = 3e\+38"):
        check_finite(np.array([0.0, np.nan]), model, data, "test")
    with pytest.raises(DataError, match=r"lower training\.optimizer\.learning_rate"):
        check_finite(np.array([np.inf, 0.0]), model, data, "test")  # of an ordinary row
    model.weights = [np.array([np.nan])]
    with pytest.raises(DataError, match=r"lower training\.optimizer\.learning_rate"):
        check_finite(np.array([0.0, np.nan]), model, data, "test")
