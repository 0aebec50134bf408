"""Rollouts whose models are wrapped by methods: statistics and SRP4CTR around E-CDCTR."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.conftest import WORLD_FEATURES
from tests.frameworks.ecdctr.test_rollout import (
    DOMAIN,
    SMALL,
    TRAINING,
    day,
    rollout,
    served_columns_as_evaluated,
    steps,
    write_configs,
)
from tfctr.config import ConfigError
from tfctr.data.day_log import DayLog
from tfctr.data.manifest import read_manifest
from tfctr.frameworks.ecdctr.rollout import Rollout

pytestmark = pytest.mark.processes

HISTORIES = [
    {"name": "past_item", "kind": "history", "shares": "item_id", "max_length": 8},
    {"name": "past_click", "kind": "history", "column": "click", "max_length": 8},
]
NAMES = ["user_id", "item_id", "category", "domain"]
FEATURES = [*(f for f in WORLD_FEATURES if f["name"] in NAMES), DOMAIN, *HISTORIES]


DISTILL = {"name": "distill", "scores": [{"name": "trees", "files": "a.parquet", "column": "p"}]}


def encoder_of(data: Any) -> dict[str, Any]:
    return {
        "name": "encoder",
        "sequences": {"name": "windows", "data": data, "held_out": 0.3},
        "dim": 4,
        "num_layers": 1,
        "training": TRAINING,
    }


def with_methods(folder: Path, **changes: Any) -> Rollout:
    """Methods' tables are made again every two days."""
    write_configs(folder, data={"features": FEATURES})
    data = yaml.safe_load((folder / "days.yaml").read_text())["data"]
    encoder = encoder_of(data)
    tables = {"name": "tables", "data": data, "items": "past_item", "grades": "past_click"}
    tables |= {"factors": 2, "steps": 3, "neighbours": 3, "attributes": ["category"]}
    vectors = {"name": "titles", "files": str(folder / "titles.parquet")}
    rows = {"item_id": np.arange(40), "vector": [*np.random.default_rng(3).normal(size=(40, 3))]}
    pq.write_table(pa.table(rows), folder / "titles.parquet")
    methods = [
        {"name": "cold_items", "feature": "item_id", "vectors": vectors | {"name": "of-items"}},
        {"name": "statistics", "tables": tables, "knots": 4, "fields": 2},
        {"name": "srp4ctr", "encoder": encoder, "num_queries": 2},
        {"name": "vectors", "tables": [vectors | {"feature": "item_id"}]},
    ]
    return rollout(
        folder,
        **{
            "data": {"features": FEATURES},
            "model": SMALL | {"features": NAMES},
            "frameworks": methods,
            "methods_every": 2,
            "end": day(7),
            "export": {"directory": str(folder / "saved_models")},
        }
        | changes,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Rollout:
    made = with_methods(tmp_path_factory.mktemp("methods"))
    assert made.run() is None
    return made


def tables_of(made: Rollout) -> dict[str, Any]:
    return read_manifest(made.folder / "methods" / "tables" / "manifest.json") or {}


def test_tables_are_of_the_days_so_far(whole: Rollout) -> None:
    found = steps(whole)
    until = [found[str(day(n))]["state"]["methods_until"] for n in (5, 6, 7)]
    assert until == [str(day(6)), str(day(6)), str(day(8))]
    log = DayLog.open(whole.log_folder)
    rows = sum(log.rows(day(n), domain) for n in range(1, 8) for domain in ("organic", "ads"))
    assert tables_of(whole)["events"] == rows  # those of two days were added to those of five
    assert len(tables_of(whole)["logs"]) == 2
    manifest = read_manifest(whole.folder / "methods" / "data" / "manifest.json") or {}
    assert manifest["splits"]["train"]["rows"] == rows
    windows = read_manifest(whole.folder / "methods" / "windows" / "manifest.json") or {}
    until_the_first = sum(log.rows(day(n), d) for n in range(1, 6) for d in ("organic", "ads"))
    assert sum(split["events"] for split in windows["splits"].values()) <= until_the_first


def test_models_have_the_tables_of_their_day(whole: Rollout) -> None:
    from tfctr.frameworks.statistics import StatisticsStudent

    found = {}
    for n in (5, 6, 7):
        state = steps(whole)[str(day(n))]["state"]
        model = keras.models.load_model(whole.folder / state["ads"], compile=False)
        while not isinstance(model, StatisticsStudent):
            model = model.backbone
        found[n] = np.asarray(model.statistics.popularity)
    assert found[5].shape[0] <= found[6].shape[0] <= found[7].shape[0]
    known = found[5].reshape(3, -1)
    np.testing.assert_array_equal(found[6].reshape(3, -1)[:, : known.shape[1]], known)
    latest = found[7].reshape(3, -1)[:, : known.shape[1]]
    assert np.abs(latest - known).max() > 0.01
    with np.load(whole.folder / "methods" / "tables" / "tables.npz") as tables:
        np.testing.assert_array_equal(tables["popularity"], found[7].reshape(3, -1))


def test_the_served_version_has_the_scores_that_are_evaluated(whole: Rollout) -> None:
    served_columns_as_evaluated(whole, [*NAMES, "past_item", "past_click"])


@pytest.mark.slow
def test_a_day_at_a_time_is_all_at_once(whole: Rollout, tmp_path: Path) -> None:
    made = with_methods(tmp_path)
    for number in (5, 6, 7, 7):
        assert made.run(day(number)) is None
    for name, about in steps(made).items():
        assert about.get("metrics") == steps(whole)[name].get("metrics")


@pytest.mark.slow
def test_a_day_killed_after_its_tables_ends_as_one_that_was_not(
    whole: Rollout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tfctr.frameworks.ecdctr import rollout as rollout_module

    made = with_methods(tmp_path)
    made.run(day(6))

    def stops(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rollout_module._Step, "_train_ads", stops)
        with pytest.raises(KeyboardInterrupt):
            made.run(day(7))
    assert tables_of(made)["events"] == tables_of(whole)["events"]
    made.run(day(7))
    assert steps(made)[str(day(7))]["metrics"] == steps(whole)[str(day(7))]["metrics"]
    assert len(tables_of(made)["logs"]) == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frameworks": [{"name": "sasrec"}]}, "frameworks.*sasrec"),
        ({"frameworks": [DISTILL]}, "a rollout can use: cold_items, srp4ctr, statistics, vectors"),
        (
            {"data": {"features": [*FEATURES, WORLD_FEATURES[1]]}},
            "is not the data of frameworks.statistics.tables",
        ),
        ({"model": SMALL | {"features": ["item_id"]}}, "does not read user_id"),
    ],
)
def test_methods_that_do_not_fit(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        with_methods(tmp_path, **changes).run()
