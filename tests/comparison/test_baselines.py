"""The models that every other one must beat, against scikit-learn and loops."""

import io
import json
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sklearn.linear_model import LogisticRegression

from tests.conftest import world_config
from tfctr.comparison.baselines import (
    base_rate,
    design,
    logistic_regression,
    popularity,
)
from tfctr.data import Dataset
from tfctr.metrics import auc, gauc, log_loss
from tfctr.schema import Schema
from tfctr.stages import Prepare, build
from tfctr.stages.baselines import Baselines

RNG = np.random.default_rng(4)
SCHEMA = Schema.model_validate(
    {
        "features": [
            {"name": "item", "kind": "categorical", "side": "item", "vocabulary_size": 8},
            {
                "name": "tags",
                "kind": "multi_valued",
                "side": "item",
                "vocabulary_size": 6,
                "max_length": 3,
            },
            {"name": "age", "kind": "numeric", "side": "user", "mean": 30.0, "std": 10.0},
            {
                "name": "price",
                "kind": "numeric",
                "side": "item",
                "transform": "bucketize",
                "boundaries": [1.0, 2.0],
            },
            {"name": "past", "kind": "history", "shares": "item", "max_length": 3},
            {"name": "title", "kind": "text", "side": "item"},
        ]
    }
)
COLUMNS: dict[str, np.ndarray] = {
    "item": np.array([3, 1, 4]),
    "tags": np.array([[3, 5, 0], [0, 0, 0], [4, 0, 0]]),
    "age": np.array([40.0, np.nan, 20.0]),
    "price": np.array([0.5, np.nan, 2.0]),
}


def test_each_value_has_its_place_in_the_design() -> None:
    found = design(SCHEMA, COLUMNS).toarray()
    ids, values = SCHEMA["item"].num_ids, SCHEMA["tags"].num_ids
    expected = np.zeros((3, ids + values + 2 + 4))
    expected[[0, 1, 2], [3, 1, 4]] = 1
    expected[0, ids + 3] = expected[0, ids + 5] = 0.5
    expected[2, ids + 4] = 1
    expected[:, ids + values] = [1, 0, -1]
    expected[1, ids + values + 1] = 1  # missing
    expected[[0, 1, 2], np.array([1, 0, 3]) + ids + values + 2] = 1
    np.testing.assert_array_equal(found, expected)


def test_the_regression_is_scikit_learns() -> None:
    ids = RNG.integers(1, 8, (3000, 1))
    rows = {**{n: np.repeat(v, 1000, axis=0) for n, v in COLUMNS.items()}, "item": ids[:, 0]}
    rows["age"] = RNG.normal(30, 10, 3000)
    clicks = (RNG.random(3000) < 1 / (1 + np.exp(2 - 0.3 * ids[:, 0]))).astype(np.float64)
    features = design(SCHEMA, rows)
    found = logistic_regression(features, clicks)
    reference = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(features, clicks)
    logits = features @ found[:-1] + found[-1]
    np.testing.assert_allclose(logits, reference.decision_function(features), atol=0.01)


def test_an_item_of_few_rows_is_close_to_the_base_rate() -> None:
    items, clicks = np.array([3] * 90 + [4]), np.array([1.0] * 30 + [0] * 60 + [1])
    logits = popularity(items, clicks, 6)
    prior = 31.5 / 92
    expected = [prior, (30 + 10 * prior) / 100, (1 + 10 * prior) / 11]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[[5, 3, 4]])), expected)
    assert np.isfinite([base_rate(np.zeros(5)), base_rate(np.ones(5))]).all()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Baselines:
    folder = tmp_path_factory.mktemp("baselines")
    source = {"format": "world", "users": 60, "items": 50, "events": 4_000, "seed": 3}
    made = Baselines(Prepare(world_config(source=source), folder / "world"), folder)
    build(made, Console(quiet=True))
    return made


def test_they_are_measured_on_the_rows_of_the_splits(stage: Baselines) -> None:
    found = json.loads(stage.path.read_text())
    data = Dataset.open(stage.dataset.path)
    train, test = (data.columns(s, ["item_id", "label", "user_key"]) for s in ("train", "test"))
    logits = popularity(train["item_id"], train["label"], data.schema["item_id"].num_ids)
    logits = logits[test["item_id"]]
    assert found["test"]["item popularity"] == pytest.approx(
        {
            "auc": auc(test["label"], logits),
            "gauc": gauc(test["label"], logits, test["user_key"]),
            "log_loss": log_loss(test["label"], logits),
        }
    )
    for split in ("valid", "test"):
        assert found[split]["base rate"]["auc"] == 0.5
        assert found[split]["logistic regression"]["auc"] > found[split]["item popularity"]["auc"]


@pytest.mark.parametrize(("ours", "warned"), [(0.99, []), (0.51, ["item popularity", "logistic"])])
def test_a_model_below_them_is_warned_of(stage: Baselines, ours: float, warned: list[str]) -> None:
    console = Console(file=io.StringIO(), width=300)
    measured: dict[str, Any] = {"auc": ours, "gauc": 0.5, "log_loss": 0.4}
    stage.print_beside({"valid": measured, "test": measured}, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line for line in said.splitlines() if line.startswith("warning:")]
    assert len(lines) == len(warned)
    for line, name in zip(lines, warned, strict=True):
        assert line.startswith(f"warning: test: AUC {ours:.4f} is below that of {name}")
    assert "beside it, test" in said
