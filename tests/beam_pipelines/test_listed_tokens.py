"""Tokens that no training row has, from files: vocabularies and rows worked out by hand."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import yaml

from beam_pipelines.prepare import prepare
from beam_pipelines.statistics import write_statistics
from tests.beam_pipelines.test_hold_out import (
    CONFIG,
    FEATURES,
    HOLD_OUT,
    I1,
    I2,
    chance,
    config,
    write_by_hand,
    write_log,
)
from tests.conftest import content_of
from tfctr.config import ConfigError, DataConfig, NoInput, digest, load_data
from tfctr.data import Dataset
from tfctr.data.clean import EXAMPLES
from tfctr.data.manifest import DataError
from tfctr.data.summary import described
from tfctr.frameworks.statistics.config import ALL_USERS, TablesConfig
from tfctr.schema import OOV_ID, Schema
from tfctr.serving.exporter.raw_features import RawFeatures
from tfctr.stages import Prepare
from tfctr.stages.evaluate import write_metrics


def with_tokens(folder: Path, **item: Any) -> list[dict[str, Any]]:
    """The features; `item` are keys of the item's."""
    tokens = {"files": str(folder / "items" / "*.parquet")}
    return [f | {"tokens": tokens} | item if f["name"] == "item" else f for f in FEATURES]


def write_items(folder: Path, *files: Any, column: str = "item") -> None:
    (folder / "items").mkdir(exist_ok=True)
    for i, tokens in enumerate(files):
        table = pa.table({"title": ["x"] * len(tokens), column: tokens})
        pq.write_table(table, folder / "items" / f"{i}.parquet", row_group_size=2)


# The log of `test_hold_out`: its training rows have the items 1 and 2, both twice. Then come items
# of the files: 3, 4, 7 and 9.
I3, I4, I7, I9 = 5, 6, 7, 8
BY_HAND = {  # split: item and past_item of its rows
    "train": ([I1, I2, I1, I2], [[0, 0, 0, 0], [I1, 0, 0, 0], [0, 0, 0, 0], [I1, 0, 0, 0]]),
    "valid": ([I3, I3], [[I1, I2, 0, 0], [I1, I2, 0, 0]]),
    "test": ([I4, I3, I1], [[0, 0, 0, 0], [I1, I2, I3, 0], [I1, I2, I3, 0]]),
}


def test_tokens_of_files_are_behind_those_of_training_rows(tmp_path: Path) -> None:
    write_by_hand(tmp_path)
    write_items(tmp_path, [9, 3, 2], pa.array([4, 7, 3, 1], pa.int16()))
    made = config(tmp_path, features=with_tokens(tmp_path))
    manifest = prepare(made, str(tmp_path / "data"))
    data = Dataset.open(tmp_path / "data")
    assert data.vocabulary_file("item").read_text().split() == ["1", "2", "3", "4", "7", "9"]
    for split, (items, past) in BY_HAND.items():
        columns = data.columns(split, ["item", "past_item"])
        assert columns["item"].tolist() == items
        assert columns["past_item"].tolist() == past
    assert manifest["vocabularies"]["item"] == {
        "tokens": 2,
        "vocabulary_size": 9,
        "from_files": 4,
    }
    assert "4 of 6 tokens of item are from files only" in described(manifest)
    assert [data.schema[name].num_ids for name in ("item", "past_item")] == [9, 9]
    schema = data.schema.select(["item", "past_item"])
    served = RawFeatures(schema, {f.name: data.vocabulary_file(f.vocabulary) for f in schema})
    rows = {"item": [[7], [8]], "past_item": [[3, 9, 8], [1, 2, 4]]}
    ids = served.look_up({name: tf.constant(values, tf.int64) for name, values in rows.items()})
    assert ids["item"].numpy().ravel().tolist() == [I7, OOV_ID]
    assert ids["past_item"].numpy()[:, :3].tolist() == [[I3, I9, OOV_ID], [I1, I2, I4]]


def test_order_and_min_count_are_as_without_files(tmp_path: Path) -> None:
    """Item 3 has four training rows; 1 and 2 have two each, which is too rare."""
    write_by_hand(tmp_path)
    write_items(tmp_path, [9, 2, 3])
    features = with_tokens(tmp_path, min_count=3)
    manifest = prepare(config(tmp_path, None, features=features), str(tmp_path / "data"))
    words = Dataset.open(tmp_path / "data").vocabulary_file("item").read_text().split()
    assert words == ["3", "2", "9"]
    assert manifest["vocabularies"]["item"]["from_files"] == 2
    features = with_tokens(tmp_path, min_count=5)
    with pytest.raises(DataError, match="none of its 3 values in the training rows occurs"):
        prepare(config(tmp_path, None, features=features), str(tmp_path / "data"))


def test_texts_of_another_column_in_a_file_beside_the_config(tmp_path: Path) -> None:
    write_by_hand(tmp_path)
    write_items(tmp_path, ["zoe", "ann"], pa.array(["émil", "Ann"]).dictionary_encode(), column="n")
    tokens = {"files": ["items/0.parquet", "items/1.parquet"], "column": "n"}
    content = CONFIG | {"features": [FEATURES[0] | {"tokens": tokens}, *FEATURES[1:]]}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(content))
    made = load_data(tmp_path / "data.yaml")
    prepare(made, str(tmp_path / "data"))
    data = Dataset.open(tmp_path / "data")
    words = data.vocabulary_file("user").read_text(encoding="utf-8").split()
    assert words == ["ann", "bob", "cid", "Ann", "zoe", "émil"]
    again = DataConfig.model_validate(data.manifest["config"])
    assert digest(again) == digest(made)
    schema = data.manifest["schema"]
    assert "tokens" not in schema["features"][0]
    assert data.schema == Schema.model_validate(schema)


def test_a_config_without_files_keeps_its_digest_and_its_schema(tmp_path: Path) -> None:
    plain = config(tmp_path)
    explicit = config(tmp_path, features=with_tokens(tmp_path, tokens=None))
    others = config(tmp_path, features=with_tokens(tmp_path))
    assert digest(explicit) == digest(plain) != digest(others)
    assert plain.feature_schema == Schema.model_validate({"features": FEATURES})
    assert others.feature_schema == plain.feature_schema


def test_a_dataset_is_of_its_files_of_tokens_too(tmp_path: Path) -> None:
    write_by_hand(tmp_path)
    write_items(tmp_path, [7, 8])
    made = config(tmp_path, features=with_tokens(tmp_path))
    before = prepare(made, str(tmp_path / "data"))
    assert [name for name, _, _ in before["inputs"]] == [
        "log-1.parquet",
        "log-2.parquet",
        "0.parquet",
    ]
    stage = Prepare(made, tmp_path / "data")
    assert stage.is_done()
    rows = {name: data for name, data in content_of(tmp_path / "data").items() if "part" in name}
    write_items(tmp_path, [7, 6, 8])
    stage = Prepare(made, tmp_path / "data")
    assert not stage.is_done()
    assert prepare(made, str(tmp_path / "data"))["inputs"] != before["inputs"]
    after = content_of(tmp_path / "data")
    train = "train/part-00000.tfrecord"
    assert after[train] == rows[train]
    stage = Prepare(made, tmp_path / "data")
    (tmp_path / "items" / "0.parquet").unlink()  # gone: as it was
    assert stage.is_done()


def test_files_in_an_archive(tmp_path: Path) -> None:
    write_by_hand(tmp_path)
    write_items(tmp_path, [7, 8])
    with zipfile.ZipFile(tmp_path / "items.zip", "w") as archive:
        archive.write(tmp_path / "items" / "0.parquet", "0.parquet")
    tokens = {"files": str(tmp_path / "items.zip!*.parquet")}
    made = config(tmp_path, features=with_tokens(tmp_path, tokens=tokens))
    manifest = prepare(made, str(tmp_path / "data"))
    assert [name for name, _, _ in manifest["inputs"]][2:] == ["items.zip"]
    assert manifest["vocabularies"]["item"]["from_files"] == 2


def test_tables_of_statistics_know_nothing_of_held_out_tokens(tmp_path: Path) -> None:
    log = write_log(tmp_path, row_group_size=50)
    write_items(tmp_path, [*range(1, 41)])
    share = {"feature": "item", "share": 0.3}
    train = {}
    for name, hold_out in (("all", None), ("some", share)):
        made = config(tmp_path, hold_out, features=with_tokens(tmp_path))
        histories = {"items": "past_item", "grades": "past_stars"}
        small = {"factors": 2, "steps": 2}
        tables = TablesConfig.model_validate({"name": "tables", "data": made} | histories | small)
        prepare(made, str(tmp_path / name))
        data = Dataset.open(tmp_path / name)
        train[name] = data.columns("train", ["row_id"])["row_id"]
        output = tmp_path / f"{name}-tables"
        manifest = write_statistics(tables, str(tmp_path / name), str(output))
        assert manifest["events"] == len(train[name])
        with np.load(output / "tables.npz") as found:
            popularity = found["popularity"][ALL_USERS, 3:]
        words = data.vocabulary_file("item").read_text().split()
        occurring = {log[i]["item"] for i in train[name]}
        assert {int(word) for word, p in zip(words, popularity, strict=True) if p} == occurring
    kept = [i for i in train["all"] if chance(log[i]["item"], 0) >= share["share"]]
    assert train["some"].tolist() == kept
    assert len(kept) < len(train["all"])


def test_an_evaluation_takes_tokens_of_files_for_unseen(tmp_path: Path) -> None:
    write_by_hand(tmp_path)
    write_items(tmp_path, [3, 9])
    prepare(config(tmp_path, features=with_tokens(tmp_path)), str(tmp_path / "data"))
    data = Dataset.open(tmp_path / "data")
    splits = EXAMPLES[1:]
    write_metrics(data, splits, lambda split: np.zeros(data.num_rows(split)), tmp_path)
    unseen = {s: pq.read_table(tmp_path / f"{s}.parquet")["unseen_items"] for s in splits}
    assert unseen["valid"].to_pylist() == [True, True]
    assert unseen["test"].to_pylist() == [True, True, False]  # item 4 is in no vocabulary


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "column", "says"),
    [
        (["1", "x7"], "item", r"0\.parquet: column 'item': row 1: found 'x7': not a 64-bit int"),
        ([1, None], "item", r"0\.parquet: column 'item': row 1: found None: not a 64-bit int"),
        ([1.5], "item", r"row 0: found 1\.5: not a 64-bit integer"),
        ([[1], [2]], "item", r"0\.parquet: column 'item': type list"),
        ([1], "sku", r"0\.parquet: no column 'item'; columns: title, sku"),
    ],
)
def test_tokens_that_do_not_fit_are_one_line_before_any_work(
    tmp_path: Path, tokens: Any, column: str, says: str
) -> None:
    write_by_hand(tmp_path)
    write_items(tmp_path, tokens, column=column)
    made = config(tmp_path, features=with_tokens(tmp_path))
    with pytest.raises(ValueError, match=says) as error:
        prepare(made, str(tmp_path / "data"))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("data*"))


def test_files_must_be_there_and_of_one_type(tmp_path: Path) -> None:
    write_by_hand(tmp_path)
    made = config(tmp_path, features=with_tokens(tmp_path))
    with pytest.raises(NoInput, match=r"^features: 'item': tokens: no file '.*looked for"):
        prepare(made, str(tmp_path / "data"))
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "0.parquet").write_text("item\n1\n")
    with pytest.raises(ConfigError, match=r"0\.parquet: not Parquet"):
        prepare(made, str(tmp_path / "data"))
    write_items(tmp_path, ["1"], [2])
    features = with_tokens(tmp_path, dtype="string")
    features[3:] = []
    with pytest.raises(ConfigError, match="'item' is of type int64, but string in"):
        prepare(config(tmp_path, features=features), str(tmp_path / "data"))


def test_only_categorical_features_have_them(tmp_path: Path) -> None:
    tags = {"name": "tags", "kind": "multi_valued", "side": "item", "max_length": 2}
    features = [*FEATURES, tags | {"tokens": {"files": "x.parquet"}}]
    with pytest.raises(ValueError, match="unknown key 'tokens'"):
        config(tmp_path, features=features)
    features = [FEATURES[0], FEATURES[1] | {"tokens": {"files": []}}]
    with pytest.raises(ValueError, match="at least 1 item"):
        config(tmp_path, features=features)


def test_held_out_tokens_have_ids_and_no_training_row(tmp_path: Path) -> None:
    log = write_log(tmp_path, row_group_size=7)
    write_items(tmp_path, [*range(1, 51)])
    made = config(tmp_path, HOLD_OUT, features=with_tokens(tmp_path))
    prepare(made, str(tmp_path / "data"))
    data = Dataset.open(tmp_path / "data")
    words = [*map(int, data.vocabulary_file("item").read_text().split())]
    assert sorted(words) == [*range(1, 51)]
    found = {s: data.columns(s, ["row_id", "item"]) for s in EXAMPLES}
    for columns in found.values():
        items = [log[i]["item"] for i in columns["row_id"]]
        assert [words[i - 3] for i in columns["item"]] == items
    trained = {words[i - 3] for i in found["train"]["item"]}
    held = {token for token in range(1, 51) if chance(token, 0) < HOLD_OUT["share"]}
    assert not trained & held
    assert words[: len(trained)] == sorted(
        trained, key=lambda t: (-[log[i]["item"] for i in found["train"]["row_id"]].count(t), t)
    )
    assert words[len(trained) :] == sorted(set(range(1, 51)) - trained)
    assert held & {words[i - 3] for i in found["test"]["item"]}
