"""Training that goes on from an earlier run's model, with other rows and other tokens."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from tests.conftest import few_quick
from tests.training.later_run import rows_by_token
from tfctr import backbones
from tfctr.cli import app
from tfctr.config import ConfigError, load_run
from tfctr.data import Dataset
from tfctr.data.vocabulary import Vocabulary
from tfctr.models.transfer import carry_on
from tfctr.schema import MASK_ID, OOV_ID
from tfctr.stages import Run
from tfctr.training.earlier_model import EarlierModel

TRAINING = {
    "batch_size": 32,
    "epochs": 2,
    "optimizer": {"learning_rate": 0.01, "embedding_l2": 1e-3},
}


def write_log(path: Path, users: range, items: range, seed: int, dearer: int = 0) -> None:
    """A line an impression; the last user and item are the most frequent, and so come first."""
    rng = np.random.default_rng(seed)
    lines = ["user,item,price,click,time"]
    for time in range(600):
        user, item = (int(len(of) * rng.random() ** 0.5) for of in (users, items))
        click = int((user + item) % 3 == 0)
        lines.append(
            f"u{users[user]},{items[item]},{(item % 7) * (1 + dearer) + dearer}.5,{click},{time}"
        )
    path.write_text("\n".join(lines) + "\n")


def write_config(folder: Path, name: str, log: str, **changes: Any) -> Path:
    content = {
        "name": name,
        "data": {
            "name": f"{name}-data",
            "source": {"format": "csv", "events": log},
            "label": {"column": "click"},
            "time": {"column": "time"},
            "user": "user",
            "item": "item",
            "features": [
                {"name": "user", "kind": "categorical", "side": "user"},
                {"name": "item", "kind": "categorical", "side": "item", "dtype": "int"},
                {"name": "price", "kind": "numeric", "side": "item"},
                {
                    "name": "range",
                    "kind": "numeric",
                    "side": "item",
                    "column": "price",
                    "transform": "bucketize",
                    "num_buckets": 4,
                },
            ],
        },
        "model": {"backbone": "deepfm", "embedding_dim": 4, "hidden_units": [8]},
        "training": TRAINING,
        "export": {"directory": str(folder / "saved_models")},
    } | changes
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run_of(path: Path) -> Run:
    return Run(load_run(path), path.parent / "work", Console(quiet=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of yesterday's log; today's has lost some users and items, and has others."""
    folder = tmp_path_factory.mktemp("starts-from")
    write_log(folder / "yesterday.csv", range(0, 40), range(0, 30), seed=1)
    write_log(folder / "today.csv", range(10, 60), range(5, 45), seed=2)
    write_config(folder, "yesterday", "yesterday.csv")
    run = run_of(folder / "yesterday.yaml")
    run.prepare()
    run.train()
    return folder


def started(folder: Path, name: str, start: str, log: str = "today.csv", **changes: Any) -> Run:
    """A run whose training changes nothing, so that its model is the one that it started from."""
    training = TRAINING | {"epochs": 1, "optimizer": {"name": "lazy_adam", "learning_rate": 1e-30}}
    settings = {"starts_from": start, "training": training} | changes
    run = run_of(write_config(folder, name, log, **settings))
    run.prepare()
    run.train()
    return run


STARTS = ["yesterday.yaml", "work/yesterday/model.keras"]


@pytest.mark.parametrize("start", few_quick(STARTS, STARTS[0]))
def test_weights_move_with_their_tokens(folder: Path, start: str) -> None:
    run = started(folder, f"today-{Path(start).suffix[1:]}", start)
    before, after = run_of(folder / "yesterday.yaml"), run
    for name, dtype in (("user", "string"), ("item", "int")):
        old, new = (rows_by_token(of, name, dtype) for of in (before, after))
        assert [*old] != [*new]
        assert 0 < len(old.keys() & new.keys()) < len(new)
        assert old.keys() - new.keys()
        for token in old.keys() & new.keys():
            np.testing.assert_allclose(new[token], old[token], atol=1e-6)
        for token in new.keys() - old.keys():
            assert np.abs(new[token]).max() < 6e-4  # as it was drawn: 1e-4 wide
    models = [of.load_model() for of in (before, after)]
    for ours, theirs in zip(*(model.weights for model in models), strict=True):
        if ours.shape == theirs.shape and "table" not in ours.path:
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6)
    special = np.array([0, OOV_ID, MASK_ID])
    old, new = (np.asarray(model.fields.rows("user", special)) for model in models)
    np.testing.assert_allclose(old, new, atol=1e-6)


def test_raw_rows_keep_their_logits_whatever_the_new_numbers_are(folder: Path) -> None:
    write_log(folder / "dearer.csv", range(10, 60), range(5, 45), seed=2, dearer=9)
    runs = (
        run_of(folder / "yesterday.yaml"),
        started(folder, "dearer", "yesterday.yaml", "dearer.csv"),
    )
    users, items = ["u12", "u30", "u39", None], [7, 20, 29, 12]
    prices = np.array([0.5, 6.5, np.nan, 70.0], np.float32)
    logits, means = [], []
    for run in runs:
        data = Dataset.open(run.data_folder)
        ids = {
            name: Vocabulary.open(data.vocabulary_file(name), dtype).ids(pa.array(values))
            for name, dtype, values in (("user", "string", users), ("item", "int", items))
        }
        assert (ids["item"] > OOV_ID).all()
        rows = {name: np.asarray(values) for name, values in ids.items()}
        model = run.load_model()
        logits.append(model.predict(rows | {"price": prices, "range": prices}, verbose=0))
        means.append(data.schema["price"].mean)
        assert model.schema["price"].mean == means[0]
    assert means[1] > 5 * means[0]
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-5)


def test_numbers_that_are_read_in_another_way_are_refused(folder: Path) -> None:
    start = EarlierModel(folder / "work" / "yesterday" / "model.keras")
    schema = start.model.schema
    changed = schema.fitted({"price": {"transform": "log", "mean": 0.0, "std": 9.0}})
    changed = start.with_its_numbers(changed)
    assert changed["price"].mean == schema["price"].mean
    model = backbones.DeepFM(changed, embedding_dim=4, hidden_units=(8,))
    model.build()
    with pytest.raises(
        ValueError, match=r"'price' is read by standardize .* by log .* in this one"
    ):
        carry_on(model, start.model)


@pytest.mark.processes
def test_the_earlier_run_is_trained_first_and_is_part_of_the_key(tmp_path: Path) -> None:
    write_log(tmp_path / "yesterday.csv", range(0, 20), range(0, 20), seed=1)
    write_log(tmp_path / "today.csv", range(5, 25), range(0, 25), seed=2)
    write_config(tmp_path, "yesterday", "yesterday.csv")
    path = write_config(tmp_path, "today", "today.csv", starts_from="yesterday.yaml")
    result = CliRunner().invoke(app, ["run", str(path), "--work", str(tmp_path / "work")])
    assert result.exit_code == 0, result.output
    assert "tokens in its vocabularies: user" in result.output
    assert (tmp_path / "work" / "yesterday" / "model.keras").is_file()
    again = CliRunner().invoke(app, ["run", str(path), "--work", str(tmp_path / "work")])
    assert "train is done" in again.output
    assert "tokens in its vocabularies" not in again.output
    key = run_of(path).trained.key()
    write_config(tmp_path, "yesterday", "yesterday.csv", training=TRAINING | {"seed": 2})
    earlier = run_of(path).earlier
    assert earlier is not None
    earlier.prepare()
    assert run_of(path).trained.key() != key


def test_another_model_in_the_same_file_is_another_start(folder: Path, tmp_path: Path) -> None:
    run = started(folder, "today-again", "work/yesterday/model.keras")
    key, path = run.trained.key(), folder / "work" / "yesterday" / "model.keras"
    content = path.read_bytes()
    try:
        keras.models.load_model(run.folder / "model.keras").save(path)
        assert run.trained.key() != key
    finally:
        path.write_bytes(content)
    assert run.trained.key() == key


def test_training_on_keeps_what_its_rows_do_not_touch(tmp_path: Path) -> None:
    """Tokens of the earlier log that are in the vocabulary, but in no training row."""
    write_log(tmp_path / "yesterday.csv", range(0, 30), range(0, 30), seed=1)
    lines = (tmp_path / "yesterday.csv").read_text().splitlines()
    # The newest rows, from which training goes on, are of half of the users; the oldest are a
    # pool, which vocabularies know and nobody trains on.
    newest = [line for line in lines[1:] if int(line.split(",")[0][1:]) < 15]
    later = [f"{line.rpartition(',')[0]},{700 + i}" for i, line in enumerate(newest * 8)]
    (tmp_path / "today.csv").write_text("\n".join([*lines, *later]) + "\n")
    write_config(tmp_path, "yesterday", "yesterday.csv")
    share = (len(lines) - 1) / (len(lines) - 1 + len(later))
    path = write_config(tmp_path, "today", "today.csv", starts_from="yesterday.yaml")
    content = yaml.safe_load(path.read_text())
    content["data"]["split"] = {"pool": share}
    path.write_text(yaml.safe_dump(content))
    run = run_of(path)
    run.prepare()
    run.train()
    assert run.earlier is not None
    old, new = (rows_by_token(of, "user", "string") for of in (run.earlier, run))
    away = [token for token in old if int(token[1:]) >= 15]
    assert len(away) > 10
    for token in away:
        np.testing.assert_array_equal(new[token], old[token])
    there = [token for token in old if int(token[1:]) < 15]
    assert np.mean([(new[token] != old[token]).any() for token in there]) > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"starts_from": "yesterday.txt"}, "allowed: the path of a run config"),
        ({"starts_from": {"name": "x"}}, "allowed: the path of a run config"),
        ({"starts_from": "nowhere/model.keras"}, "no trained model to start from"),
        ({"starts_from": "work/today/model.keras"}, "is what this run writes"),
        ({"starts_from": "alone.keras"}, "so the tokens of the rows"),
        (
            {"model": {"backbone": "lr"}, "starts_from": "yesterday.yaml"},
            "should be a LR with the same arguments. Received: DeepFM",
        ),
        (
            {
                "model": {"backbone": "deepfm", "embedding_dim": 4, "hidden_units": [9]},
                "starts_from": "yesterday.yaml",
            },
            "in the earlier model",
        ),
        (
            {
                "model": {"backbone": "deepfm", "embedding_dim": 5, "hidden_units": [8]},
                "starts_from": "yesterday.yaml",
            },
            "rows are 5 wide, not 6",
        ),
    ],
)
def test_a_start_that_does_not_fit_is_one_line(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    source = folder / "work" / "yesterday" / "model.keras"
    (folder / "alone.keras").write_bytes(source.read_bytes())
    own = folder / "work" / "today" / "model.keras"
    own.parent.mkdir(exist_ok=True)
    own.write_bytes(source.read_bytes())
    path = write_config(folder, "today", "today.csv", **changes)
    result = CliRunner().invoke(app, ["run", str(path), "--work", str(folder / "work")])
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_methods_that_train_their_own_start_are_refused(tmp_path: Path) -> None:
    config = Path(__file__).parents[2] / "configs" / "demo" / "ctrl" / "dcnv2.yaml"
    with pytest.raises(ConfigError, match="to train an earlier student further, leave it out"):
        load_run(config, ["starts_from=work/x/model.keras"])
