"""Calibration, from the maps to a served model."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import yaml
from rich.console import Console
from scipy.special import expit, logit

from tests.conftest import world_config
from tests.serving.evaluated import assert_served_as_evaluated
from tfctr import backbones, metrics
from tfctr.config import ConfigError, load_run
from tfctr.config.calibration import Calibration
from tfctr.data import Dataset
from tfctr.data.manifest import DataError, write_manifest
from tfctr.models.calibrated import Calibrated
from tfctr.models.calibration import IDENTITY, SMALLEST_SLOPE, Map, fit, isotonic, platt
from tfctr.schema import FIRST_TOKEN_ID, Schema
from tfctr.stages import Run, evaluate
from tfctr.stages.calibrate import Calibrate

RNG = np.random.default_rng(3)


def test_isotonic_by_hand() -> None:
    """Four groups of 50 rows; the two in the middle are out of order, so they become one knot."""
    logits = RNG.permutation(np.arange(200) / 50 - 2)
    group = (np.argsort(np.argsort(logits)) // 50).astype(int)
    rank = np.argsort(np.argsort(logits)) % 50
    labels = (rank < np.array([5, 25, 20, 40])[group]).astype("float32")
    found = isotonic(logits, labels)
    rate = 90 / 200
    smooth = np.array([5 + rate, 25 + rate, 20 + rate, 40 + rate]) / 51
    means = np.array([-1.51, -0.51, 0.49, 1.49])
    np.testing.assert_allclose(found.x, [means[0], means[1:3].mean(), means[3]], atol=1e-9)
    expected = [smooth[0], smooth[1:3].mean(), smooth[3]]
    np.testing.assert_allclose(found.y, logit(expected), atol=1e-9)
    assert found.slope == 1


def test_isotonic_always_rises() -> None:
    logits = RNG.normal(size=5_000)
    labels = (RNG.random(5_000) < expit(-logits)).astype("float32")  # the wrong way round
    labels[:3] = [1, 0, 1]
    found = isotonic(logits, labels)
    assert (np.diff(found.x) > 0).all()
    assert (np.diff(found.y) >= SMALLEST_SLOPE * np.diff(found.x) - 1e-12).all()
    assert np.isfinite(found.y).all()
    no_clicks_below = (logits > 0).astype("float32")
    assert np.isfinite(isotonic(logits, no_clicks_below).y).all()
    same = isotonic(np.full(300, 0.7), (np.arange(300) < 90).astype("float32"))
    np.testing.assert_allclose(expit(same.y), [0.3], atol=1e-6)  # all rows are one tie


def test_platt_has_the_least_log_loss() -> None:
    logits = RNG.normal(3, 2, 4_000)
    labels = (RNG.random(4_000) < expit(0.5 * logits - 1.2)).astype("float32")
    found = platt(logits, labels)
    errors = expit(applied(found, logits)) - labels
    assert abs(errors.mean()) < 1e-4  # the gradient by both
    assert abs((errors * logits).mean()) < 1e-3
    backward = platt(logits, 1 - (logits > 3).astype("float32"))
    assert backward.slope == SMALLEST_SLOPE


def applied(found: Map, logits: np.ndarray) -> np.ndarray:
    """A map in NumPy."""
    x, y, slope = found
    inside = np.interp(logits, x, y)
    return inside + slope * (np.minimum(logits - x[0], 0) + np.maximum(logits - x[-1], 0))


def test_tokens_with_few_rows_or_one_class_have_the_map_of_all() -> None:
    ids = np.repeat([0, 1, 3, 4, 5, 6], [500, 500, 400, 99, 300, 100])
    logits = RNG.normal(size=len(ids))
    labels = (RNG.random(len(ids)) < expit(logits)).astype("float32")
    labels[ids == 5] = 0
    maps, map_of_id = fit("platt", logits, labels, ids, least_rows=100)
    assert map_of_id == {3: 1, 6: 2}  # 0 and 1 are no tokens, 4 has few rows, 5 has no click
    assert len(maps) == 3
    np.testing.assert_allclose(maps[2].slope, platt(logits[ids == 6], labels[ids == 6]).slope)
    np.testing.assert_allclose(maps[0].slope, platt(logits, labels).slope)
    assert fit("isotonic", logits, 0 * labels, ids) == ([IDENTITY], {})


SCHEMA = Schema.model_validate(
    {
        "features": [
            {"name": name, "kind": "categorical", "side": side, "vocabulary_size": 7}
            for name, side in (("user", "user"), ("hour", "context"), ("item", "item"))
        ]
    }
)
MAPS = [Map(np.array([-1.0, 0.0, 2.0]), np.array([-2.0, 0.5, 0.6])), Map(np.ones(1), np.ones(1), 3)]


@pytest.mark.parametrize("by", [None, "hour", "item"])
def test_logits_are_those_of_a_loop_and_keep_their_order(by: str | None, tmp_path: Path) -> None:
    inner = backbones.create("dnn", SCHEMA, embedding_dim=4, hidden_units=[5])
    maps = MAPS if by else MAPS[:1]
    model = Calibrated(inner, len(maps), 3, by)
    model.build()
    for i, weight in enumerate(inner.trainable_variables):
        weight.assign(np.random.default_rng(i).normal(size=weight.shape))
    rows = {name: RNG.integers(0, 7, 40) for name in ("user", "hour", "item")}
    np.testing.assert_allclose(model(rows), inner(rows), rtol=1e-5)  # until the maps are set
    map_of_id = np.array([0, 0, 0, 1, 0, 1, 1], np.int32)
    model.set_maps(maps, map_of_id if by else None)
    plain, found = np.array(inner(rows)), np.array(model(rows))
    chosen = map_of_id[rows[by]] if by else np.zeros(40, int)
    expected = [applied(maps[m], z) for m, z in zip(chosen, plain, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    for m in set(chosen.tolist()):
        of_map = chosen == m
        np.testing.assert_array_equal(np.argsort(found[of_map]), np.argsort(plain[of_map]))
    user = {name: rows[name][:2] for name in ("user", "hour")}
    items = {"item": rows["item"].reshape(2, 20)}
    alone = {n: np.repeat(v, 20) for n, v in user.items()} | {"item": rows["item"]}
    scores = np.array(model.score(model.encode_user(user), items)).ravel()
    np.testing.assert_allclose(scores, model(alone), rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(rows), found, rtol=1e-5)


def write_run(folder: Path, **changes: Any) -> Path:
    source = {"format": "world", "users": 60, "items": 50, "events": 6_000, "seed": 3}
    data = world_config(source=source).model_dump(mode="json", exclude_none=True)
    run = {
        "name": "student",
        "data": "data.yaml",
        "model": {
            "backbone": "dnn",
            "features": ["user_id", "hour", "item_id", "category"],
            "embedding_dim": 4,
            "hidden_units": [8],
        },
        "training": {
            "batch_size": 256,
            "epochs": 1,
            "optimizer": {"learning_rate": 0.03},
        },
        "calibration": {"by": "category", "least_rows": 50},
        "export": {"directory": str(folder / "saved_models")},
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(data))
    (folder / "student.yaml").write_text(yaml.safe_dump(run | changes))
    return folder / "student.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose trained model is made to predict too many clicks."""
    folder = tmp_path_factory.mktemp("calibration")
    made = Run(load_run(write_run(folder)), folder / "work", Console(file=io.StringIO(), width=200))
    made.train()
    model = made.trained.load()
    model.head.bias.assign(model.head.bias + 1.0)
    model.save(made.trained.path)
    made.evaluate()
    made.export()
    return made


def test_a_model_that_predicts_too_many_clicks_is_calibrated(run: Run) -> None:
    found = json.loads((run.folder / "metrics.json").read_text())
    for split in ("valid", "test"):
        after, before = found[split], found[split]["uncalibrated"]
        assert before["calibration_ratio"] > 1.3
        assert after["calibration_ratio"] == pytest.approx(1, abs=0.25)
        assert after["log_loss"] < before["log_loss"] - 0.02
        assert after["expected_calibration_error"] < before["expected_calibration_error"] / 2
    said = run.console.file.getvalue()  # type: ignore[attr-defined]
    assert "calibrate isotonic" in said


def test_each_frequent_token_has_a_map_of_its_own_rows(run: Run) -> None:
    data, plain = Dataset.open(run.data_folder), run.trained.load()
    columns = data.columns("valid", ["label", "category"])
    logits = plain.predict(data.valid(8192, features=plain.reads), verbose=0)
    content = json.loads((run.folder / "calibration.json").read_text())
    counts = np.bincount(columns["category"])
    wanted = [i for i in np.flatnonzero(counts >= 50).tolist() if i >= FIRST_TOKEN_ID]
    assert [id_ for id_, _ in content["map_of_id"]] == wanted
    assert len(wanted) > 1
    id_, number = content["map_of_id"][-1]
    rows = columns["category"] == id_
    expected = isotonic(logits[rows], columns["label"][rows])
    np.testing.assert_allclose(content["maps"][number]["y"], expected.y, atol=1e-4)


def test_it_is_served_as_it_is_evaluated(run: Run) -> None:
    model = run.load_model()
    assert isinstance(model, Calibrated)
    assert_served_as_evaluated(run, 20, model)
    data = Dataset.open(run.data_folder)
    logits = model.predict(data.test(8192, features=model.reads), verbose=0)
    found = json.loads((run.folder / "metrics.json").read_text())["test"]
    labels = data.columns("test", ["label"])["label"]
    assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, logits), abs=1e-6)


def test_another_calibration_trains_nothing_again(run: Run) -> None:
    folder = run.work.parent
    path = write_run(folder, calibration={"method": "platt"})
    other = Run(load_run(path), run.work, Console(quiet=True))
    assert other.trained.is_done()
    assert not other.calibrated.is_done()  # type: ignore[union-attr]
    assert not other.exported.is_done()
    with pytest.raises(DataError, match=r"calibration\.json: not there as configured; run `tfctr"):
        other.load_model()
    other.export()
    assert_served_as_evaluated(other, 5, version=2)
    found = json.loads((other.folder / "calibration.json").read_text())
    assert len(found["maps"]) == 1
    assert not found["map_of_id"]
    measured = json.loads((run.folder / "metrics.json").read_text())
    other.evaluate()
    again = json.loads((run.folder / "metrics.json").read_text())
    assert again["test"]["uncalibrated"] == measured["test"]["uncalibrated"]
    assert again["test"]["auc"] == pytest.approx(again["test"]["uncalibrated"]["auc"], abs=1e-5)


def test_validation_rows_of_one_class_leave_the_model_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "predict_split", lambda *_: np.zeros(9))
    columns = {"label": np.zeros(9), "item": np.full(9, 3)}
    data = SimpleNamespace(num_rows=lambda _: 9, columns=lambda *_: columns)
    trained: Any = SimpleNamespace(
        folder=tmp_path,
        open_data=lambda: data,
        load=lambda: None,
        manifest_path=tmp_path / "train.json",
    )
    stage = Calibrate(trained, Calibration(by="item"))
    console = Console(file=io.StringIO(), width=200)
    write_manifest({**stage.make(console)}, str(stage.manifest_path))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "warning: all validation rows are of one class: nothing is calibrated" in said
    inner = backbones.create("dnn", SCHEMA, embedding_dim=4, hidden_units=[5])
    rows = {name: RNG.integers(0, 7, 9) for name in ("user", "hour", "item")}
    model = stage.wrap(inner)
    np.testing.assert_allclose(model(rows), inner(rows), rtol=1e-5)


def test_without_validation_rows() -> None:
    data = SimpleNamespace(num_rows=lambda split: 0)
    trained: Any = SimpleNamespace(
        folder=Path("x"), open_data=lambda: data, dataset=SimpleNamespace(path="work/shop")
    )
    stage = Calibrate(trained, Calibration())
    with pytest.raises(DataError, match="work/shop: no validation rows, which calibration is fitt"):
        stage.make(Console(quiet=True))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"calibration": {"by": "price"}},
            "calibration.by: 'price' is no categorical feature",
        ),
        ({"calibration": {"by": "age_group"}}, "those are: user_id, hour, item_id, category"),
        ({"calibration": {"method": "beta"}}, "calibration.method: .*'isotonic' or 'platt'"),
        ({"training": {"refit": True}}, "calibration: fitted on validation rows, which a refitted"),
    ],
)
def test_what_does_not_fit(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        load_run(write_run(tmp_path, **changes))
