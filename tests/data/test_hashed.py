"""Hashed features: one hash in the pipeline and in the served graph."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import yaml
from rich.console import Console

from tests.serving.evaluated import assert_served_as_evaluated
from tfctr.config import ConfigError, load_run
from tfctr.data.conform import conform
from tfctr.data.dataset import Dataset
from tfctr.data.hashed import to_buckets
from tfctr.data.vocabulary import Vocabulary
from tfctr.schema import FIRST_TOKEN_ID, MISSING_INT, OOV_ID, PAD_ID, Schema
from tfctr.serving.exporter.raw_features import RawFeatures
from tfctr.stages import Run

TEXTS = ["a", "b", "é", "true", "True", "1", "1.0", "-0.0", "0", "01", " 1", "x" * 200, ""]
INTS = [0, 1, -1, 2**62, MISSING_INT]


def schema_of(dtype: str) -> Schema:
    feature = {"name": "x", "kind": "categorical", "side": "user", "dtype": dtype}
    return Schema.model_validate(
        {"features": [feature | {"hash_buckets": 7, "vocabulary_size": FIRST_TOKEN_ID + 7}]}
    )


@pytest.mark.parametrize(("dtype", "raw"), [("string", TEXTS), ("int", INTS)])
def test_the_graph_hashes_as_the_pipeline_does(dtype: str, raw: list[Any], tmp_path: Path) -> None:
    schema = schema_of(dtype)
    tokens = pa.array(range(7)).cast(pa.string() if dtype == "string" else pa.int64())
    (tmp_path / "x.txt").write_bytes(Vocabulary(tokens).to_bytes())
    vocabulary = Vocabulary.open(tmp_path / "x.txt", dtype, 7)
    read = pa.array([None if value == MISSING_INT else value for value in raw])
    typed = conform(schema["x"], read)[0] if dtype == "string" else read
    ids = vocabulary.ids(typed)
    served = RawFeatures(schema, {"x": tmp_path / "x.txt"}).look_up({"x": tf.constant(raw)})["x"]
    np.testing.assert_array_equal(served, ids)
    assert ids[-1] == PAD_ID
    assert len(set(ids)) > 3
    spelt = dict(zip(raw, ids.tolist(), strict=True))
    if dtype == "string":
        assert spelt["true"] == spelt["True"] == spelt["1"] == spelt["1.0"]
        assert spelt["0"] == spelt["-0.0"]


def test_a_bucket_is_the_same_whatever_is_beside_it() -> None:
    alone = [to_buckets(pa.array([text]), 1_000)[0].as_py() for text in TEXTS]
    together = to_buckets(pa.array([*TEXTS, None]), 1_000)
    assert together.to_pylist() == [*alone, None]
    assert together.type == pa.string()
    assert to_buckets(pa.array([5, None]), 10).type == pa.int64()
    coded = pa.array(["b", None, "a", "b"]).dictionary_encode()
    vocabulary = Vocabulary(to_buckets(pa.array(["a", "b"]), 1_000), 1_000)
    first, second = FIRST_TOKEN_ID, FIRST_TOKEN_ID + 1
    assert vocabulary.ids(coded).tolist() == [second, PAD_ID, first, second]
    other = Vocabulary(to_buckets(pa.array(["b", "c"]), 1_000), 1_000)  # has grown elsewhere
    assert vocabulary.places_in(other)[FIRST_TOKEN_ID:].tolist() == [-1, FIRST_TOKEN_ID]


DATA: dict[str, Any] = {
    "name": "shop",
    "source": {"format": "csv", "events": "events.csv"},
    "label": {"column": "click"},
    "time": {"column": "time"},
    "user": "user",
    "item": "item",
    "features": [
        {"name": "user", "kind": "categorical", "side": "user", "hash_buckets": 40},
        {"name": "seen", "kind": "history", "shares": "item", "max_length": 3},
        {"name": "item", "kind": "categorical", "side": "item", "dtype": "int", "hash_buckets": 8},
        {"name": "tags", "kind": "multi_valued", "side": "item", "max_length": 2}
        | {"hash_buckets": 5},
    ],
}


def write_shop(folder: Path, **changes: Any) -> Path:
    rng = np.random.default_rng(5)
    users, items = rng.integers(0, 300, 2_000), rng.integers(0, 30, 2_000)
    clicks = rng.random(2_000) < 0.2 + 0.6 * (items % 2)
    lines = [
        f"u{u},{i},{'red|wide' if i % 3 else 'blue'},{int(c)},{t}"
        for t, (u, i, c) in enumerate(zip(users, items, clicks, strict=True))
    ]
    (folder / "events.csv").write_text("\n".join(["user,item,tags,click,time", *lines]) + "\n")
    (folder / "data.yaml").write_text(yaml.safe_dump(DATA | changes))
    run = {
        "name": "run",
        "data": "data.yaml",
        "model": {"backbone": "din", "embedding_dim": 4, "hidden_units": [8]},
        "training": {"batch_size": 256, "epochs": 1, "optimizer": {"learning_rate": 0.01}},
        "export": {"directory": str(folder / "saved_models")},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    return folder / "run.yaml"


def test_from_the_log_to_the_server(tmp_path: Path) -> None:
    run = Run(load_run(write_shop(tmp_path)), tmp_path / "work", Console(quiet=True))
    run.export()
    data = Dataset.open(run.data_folder)
    buckets = len(to_buckets(pa.array(range(30)), 8).unique())  # one may stay empty
    assert data.schema["item"].num_ids == data.schema["seen"].num_ids == FIRST_TOKEN_ID + buckets
    assert FIRST_TOKEN_ID + 30 < data.schema["user"].num_ids <= FIRST_TOKEN_ID + 40
    columns = {s: data.columns(s, ["user", "item", "tags", "user_key"]) for s in ("train", "test")}
    assert not any(
        (of[name] == OOV_ID).any() for of in columns.values() for name in ("item", "tags")
    )
    # Users stay apart where they are told apart: in histories and in GAUC.
    assert len(np.unique(columns["train"]["user_key"])) > 250
    assert_served_as_evaluated(run, 50)


def test_unknown_tokens_differ_by_a_second_feature(tmp_path: Path) -> None:
    frequent = {"name": "user", "kind": "categorical", "side": "user", "min_count": 6}
    bucket = {"name": "user_bucket", "column": "user", "kind": "categorical", "side": "user"}
    features = [frequent, bucket | {"hash_buckets": 50}, *DATA["features"][1:]]
    run = Run(load_run(write_shop(tmp_path, features=features)), tmp_path, Console(quiet=True))
    run.export()
    data = Dataset.open(run.data_folder)
    train = data.columns("train", ["user", "user_bucket", "user_key"])
    unknown = train["user"] == OOV_ID
    assert 0.1 < unknown.mean() < 0.9
    buckets = train["user_bucket"]
    assert (buckets >= FIRST_TOKEN_ID).all()
    assert len(np.unique(buckets[unknown])) > 40
    for user in np.unique(train["user_key"]):
        assert len(np.unique(buckets[train["user_key"] == user])) == 1
    assert_served_as_evaluated(run, 50)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("seen", {"hash_buckets": 9}, "feature 'seen' has hash_buckets 9 but shares 'item' with 8"),
        ("item", {"tokens": {"files": "*.parquet"}}, "feature 'item' has hash_buckets, so its tok"),
        ("item", {"hash_buckets": 1}, "hash_buckets: found 1; "),
    ],
)
def test_impossible_features_are_refused(
    tmp_path: Path, name: str, change: dict[str, Any], says: str
) -> None:
    features = [f | change if f["name"] == name else f for f in DATA["features"]]
    with pytest.raises(ConfigError, match=says):
        load_run(write_shop(tmp_path, features=features))


def test_methods_that_need_tokens_say_so(tmp_path: Path) -> None:
    path = write_shop(tmp_path)
    text = {"name": "texts", "data": "data.yaml", "encoder": {"trained": {}}}
    text["texts"] = {"row": {"template": "Item {item}."}}
    (tmp_path / "text.yaml").write_text(yaml.safe_dump(text))
    methods: dict[str, dict[str, Any]] = {
        "texts.row.template": {"name": "ctrl", "text": "text.yaml"},
        "tables: v": {
            "name": "vectors",
            "tables": [{"name": "v", "feature": "item", "files": "v.npz"}],
        },
        "frameworks.cold_items.feature": {
            "name": "cold_items",
            "feature": "item",
            "attributes": ["tags"],
        },
    }
    for key, method in methods.items():
        content = yaml.safe_load(path.read_text()) | {"frameworks": [method]}
        (tmp_path / "other.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(ConfigError, match=f"{key}: feature 'item' has hash_buckets"):
            load_run(tmp_path / "other.yaml")
