"""A student that is trained again on training and validation rows."""

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from tests.conftest import few_quick, world_config
from tests.training.killed import killed_at
from tests.training.test_training import weights
from tfctr import backbones
from tfctr.config import ConfigError, Training, load_run
from tfctr.data.dataset import Dataset
from tfctr.frameworks.ecdctr.config import AdsConfig
from tfctr.frameworks.rok.config import KnowledgeConfig
from tfctr.models.losses import LogLoss
from tfctr.retrieval.config import RetrievalConfig
from tfctr.stages import Run
from tfctr.training.checkpoint import TrainingState
from tfctr.training.loop import train
from tfctr.training.objectives import LastEpoch
from tfctr.training.optimizer import make_optimizer

QUIET = Console(quiet=True)
TRAINING: dict[str, Any] = {
    "batch_size": 256,
    "epochs": 6,
    "checkpoint_steps": 10,
    "seed": 4,
    "in_memory": True,
    "positive_weight": 2.0,
    "keep_negatives": 0.5,
    "optimizer": {"learning_rate": 0.05, "schedule": {"name": "linear"}},
}


def run_in(folder: Path, name: str = "student", **changes: Any) -> Run:
    source = {"format": "world", "users": 150, "items": 60, "events": 8_000, "seed": 3}
    content = {
        "name": name,
        "data": world_config(source=source).model_dump(mode="json"),
        "model": {"backbone": "dnn", "embedding_dim": 4, "hidden_units": [8], "dropout": 0.1},
        "training": TRAINING | changes,
        "predictions": True,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return Run(load_run(path), folder / "work", QUIET)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A refitted run, in the folder of one that was not."""
    folder = tmp_path_factory.mktemp("refit")
    run = run_in(folder, refit=True)
    (run.folder / "predictions").mkdir(parents=True)
    for path in (run.folder, run.folder / "predictions"):
        (path / "valid.parquet").touch()
    run.evaluate()
    return folder


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "train.json").read_text())


def by_hand(run: Run, epochs: int) -> list[np.ndarray]:
    """The weights after some epochs of a training on training and validation rows."""
    training, data = run.config.training, Dataset.open(run.data_folder)
    run.trained.import_models()
    keras.utils.set_random_seed(training.seed)
    model = run.trained.create_student(data, QUIET)
    joined: list[Any] = [
        data.train(
            training.batch_size,
            training.seed * 100_003 + epoch,
            in_memory=training.in_memory,
            keep_negatives=training.keep_negatives,
            splits=("train", "valid"),
        )
        for epoch in range(epochs)
    ]
    steps = int(joined[0].cardinality())
    optimizer = make_optimizer(training.optimizer, steps, training.epochs)
    model.compile(optimizer, loss=LogLoss(training.positive_weight))
    for rows in joined:
        model.fit(rows, epochs=1, verbose=0, shuffle=False)
    model.head.bias.assign_add([np.log(training.keep_negatives / training.positive_weight)])
    return weights(model)


@pytest.mark.parametrize("in_memory", few_quick([True, False], True))
def test_it_is_a_training_on_all_rows_for_as_many_epochs_as_were_chosen(
    folder: Path, tmp_path: Path, in_memory: bool
) -> None:
    run = run_in(folder, refit=True)
    if not in_memory:
        shutil.copytree(folder / "work" / "world", tmp_path / "work" / "world")
        run = run_in(tmp_path, refit=True, in_memory=False)
    run.train()
    epochs = manifest(run.folder)["best_epoch"]
    assert 1 < epochs < TRAINING["epochs"]  # the schedule is that of all of them
    for found, expected in zip(weights(run.load_model()), by_hand(run, epochs), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_manifest_tells_both_trainings_apart(folder: Path) -> None:
    found = manifest(folder / "work" / "student")
    first, again = found["epochs"], found["refit"]["epochs"]
    aucs = [epoch["valid_auc"] for epoch in first]
    assert found["best_epoch"] == len(again) == 1 + int(np.argmax(aucs))
    assert found["best_valid_auc"] == max(aucs)
    assert found["refit"]["rows"] == found["rows"]["train"] + found["rows"]["valid"]
    assert not [name for epoch in again for name in epoch if name.startswith("valid")]
    for epoch, before in zip(again, first, strict=False):
        assert epoch["learning_rate"] == pytest.approx(before["learning_rate"])


def test_only_test_rows_are_evaluated(folder: Path) -> None:
    run = run_in(folder, refit=True)
    assert list(json.loads((run.folder / "metrics.json").read_text())) == ["test"]
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "evaluate.json",
        "metrics.json",
        "model.keras",
        "predictions",
        "predictions.json",
        "test.parquet",
        "train.json",
        "vocabularies",
    ]
    assert [path.name for path in (run.folder / "predictions").iterdir()] == ["test.parquet"]
    logits = run.load_model().predict(Dataset.open(run.data_folder).test(1000), verbose=0)
    evaluated = pq.read_table(run.folder / "test.parquet")["logit"]
    np.testing.assert_allclose(evaluated, logits, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("refitting", [True, False])
def test_a_killed_one_ends_with_the_same_numbers(
    folder: Path, tmp_path: Path, refitting: bool
) -> None:
    shutil.copytree(folder / "work" / "world", tmp_path / "work" / "world")
    run, whole = (run_in(of, refit=True) for of in (tmp_path, folder))
    expected, training = manifest(whole.folder), whole.config.training
    data, first = Dataset.open(whole.data_folder), training.seed * 100_003
    steps = sum(
        int(data.train(256, first + epoch, None, True, training.keep_negatives).cardinality())
        for epoch in range(len(expected["epochs"]))
    )
    with killed_at(steps + 28 if refitting else 28):
        run.train()
    assert (run.folder / "refit-checkpoint.npz").is_file() == refitting
    run.train()
    found = manifest(run.folder)
    aucs = [[epoch["valid_auc"] for epoch in of["epochs"]] for of in (found, expected)]
    assert aucs[0] == aucs[1]
    models = [of.load_model() for of in (run, whole)]
    for one, other in zip(*map(weights, models), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not list(run.folder.glob("*.npz"))


def test_on_a_plateau_the_learning_rate_falls_where_it_did(
    world_data: Path, tmp_path: Path
) -> None:
    optimizer = {"learning_rate": 0.1, "schedule": {"name": "plateau", "factor": 0.5}}
    config = Training.model_validate(
        {"batch_size": 4096, "epochs": 8, "in_memory": True, "optimizer": optimizer}
    )
    rates = [0.1, 0.1, 0.05, 0.025, 0.025, 0.0125]
    history = [{"learning_rate": rate} for rate in rates]
    first = TrainingState(epoch=6, best_epoch=4, history=history)
    data = Dataset.open(world_data)
    model = backbones.create("lr", data.schema)
    state = train(model, data, config, tmp_path, QUIET, LastEpoch(config), first)
    found = [epoch["learning_rate"] for epoch in state.history]
    assert found == pytest.approx(rates[:5])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"training.rows": "pool"},
            "training: refit: adds validation rows to training rows, which needs rows: train, "
            "found 'pool'",
        ),
        (
            {"training.oov_rate": {"item_id": 0.1, "price": 0.1}},
            "training.oov_rate: 'price' is no categorical feature that the backbone reads; those "
            "are: user_id, age_group, hour, item_id, category",
        ),
        (
            {"training.oov_rate": {"item_id": 0.1}, "model.features": ["user_id", "price"]},
            "training.oov_rate: 'item_id' is no categorical feature that the backbone reads; those "
            "are: user_id",
        ),
        ({"training.oov_rate": {"item_id": 1.5}}, "training.oov_rate.item_id: found 1.5; input"),
        (
            {"starts_from": "student.yaml", "name": "next"},
            "starts_from: student has training.refit, so it has learned the validation rows that "
            "choose the best epoch here; leave refit out there",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    run_in(tmp_path, refit=True)
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump({"extends": "student.yaml", **changes}))
    with pytest.raises(ConfigError) as caught:
        load_run(path)
    assert f"{path}: {says}" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_start_from_a_refitted_run_of_other_data_is_allowed(tmp_path: Path) -> None:
    run_in(tmp_path, refit=True)
    path = tmp_path / "later.yaml"
    later = {"extends": "student.yaml", "name": "later", "starts_from": "student.yaml"}
    path.write_text(yaml.safe_dump(later | {"data.source.seed": 9}))
    assert load_run(path).training.refit


def test_only_a_student_is_refitted(tmp_path: Path) -> None:
    for key, value in {"refit": True, "oov_rate": {"item_id": 0.1}}.items():
        with pytest.raises(ValueError, match=f"{key}: found .*; only a run's student has it"):
            AdsConfig.model_validate({"training": {key: value}})
    plain, refitted = (run_in(tmp_path, "student", refit=of).config for of in (False, True))
    similar = {"name": "similar", "data": plain.data, "method": "dense"}
    RetrievalConfig.model_validate(similar | {"encoder": plain})
    with pytest.raises(ValueError, match=r"encoder: student has training\.refit, so it"):
        RetrievalConfig.model_validate(similar | {"encoder": refitted})
    for_rim = RetrievalConfig(name="similar", data=plain.data, fields=("category",))
    teacher = refitted.model_dump(exclude_defaults=True) | {
        "data": plain.data,
        "model": {"backbone": "rim"},
        "frameworks": [{"name": "rim", "similar": for_rim}],
    }
    with pytest.raises(ValueError, match=r"teacher: student has training\.refit, so it"):
        KnowledgeConfig.model_validate({"name": "knowledge", "teacher": teacher})
