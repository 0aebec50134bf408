"""The readers of a dataset directory."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tfctr.data.dataset import Dataset
from tfctr.data.manifest import DataError


@pytest.fixture(scope="module")
def data(world_data: Path) -> Dataset:
    return Dataset.open(world_data)


def gather(batches: object) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rows = list(batches.as_numpy_iterator())  # type: ignore[attr-defined]
    features = {name: np.concatenate([x[name] for x, _ in rows]) for name in rows[0][0]}
    return features, np.concatenate([y for _, y in rows])


def sorted_rows(features: dict[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
    columns = [
        v.reshape(len(labels), -1) for v in (*(features[name] for name in sorted(features)), labels)
    ]
    table = np.nan_to_num(np.concatenate(columns, axis=1).astype(np.float64), nan=-1)
    return table[np.lexsort(table.T)]


def test_batches_have_the_schemas_shapes_and_types(data: Dataset) -> None:
    features, labels = next(iter(data.train(64)))
    assert set(features) == {feature.name for feature in data.schema.inputs}
    assert features["user_id"].shape == (64,)
    assert features["user_id"].dtype == "int64"
    assert features["tags"].shape == (64, 3)
    assert features["price"].dtype == labels.dtype == "float32"


@pytest.mark.parametrize("in_memory", [False, True])
def test_an_epoch_holds_every_row_once_in_an_order_of_the_seed(
    data: Dataset, in_memory: bool
) -> None:
    expected = data.columns("train", [f.name for f in data.schema.inputs] + ["label"])
    labels = expected.pop("label")
    found = gather(data.train(512, seed=1, in_memory=in_memory))
    assert np.array_equal(sorted_rows(*found), sorted_rows(expected, labels))
    again = gather(data.train(512, seed=1, in_memory=in_memory))
    other = gather(data.train(512, seed=2, in_memory=in_memory))
    assert np.array_equal(found[0]["user_id"], again[0]["user_id"])
    assert not np.array_equal(found[0]["user_id"], other[0]["user_id"])
    assert not np.array_equal(found[0]["user_id"], expected["user_id"])


def test_each_epoch_has_its_own_order(data: Dataset) -> None:
    batches = data.train(512, in_memory=True)
    assert not np.array_equal(gather(batches)[0]["item_id"], gather(batches)[0]["item_id"])


def test_evaluation_batches_are_in_the_order_of_the_columns(data: Dataset) -> None:
    features, labels = gather(data.test(333, features=["tags", "price"]))
    columns = data.columns("test", ["tags", "price", "label", "row_id"])
    assert set(features) == {"tags", "price"}
    for name in features:
        np.testing.assert_array_equal(features[name], columns[name])
    np.testing.assert_array_equal(labels, columns["label"])
    assert (np.diff(columns["row_id"]) > 0).all()


def test_later_splits_are_later(data: Dataset) -> None:
    times = [data.columns(split, ["time"])["time"] for split in ("train", "valid", "test")]
    assert times[0].max() < times[1].min()
    assert times[1].max() < times[2].min()


def test_the_number_of_steps_is_known(data: Dataset) -> None:
    rows = data.num_rows("train")
    for in_memory in (False, True):
        batches = data.train(1000, in_memory=in_memory)
        assert int(batches.cardinality()) == -(-rows // 1000)
        assert sum(1 for _ in batches) == -(-rows // 1000)


def test_what_is_not_whole_is_refused(world_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no dataset here \(no manifest.json\)"):
        Dataset.open(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(world_data, copy)
    shard = (
        copy
        / json.loads((copy / "manifest.json").read_text())["splits"]["test"]["shards"][0]["name"]
    )
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="bytes where the manifest says"):
        Dataset.open(copy)
    shard.unlink()
    with pytest.raises(DataError, match="missing where the manifest says"):
        Dataset.open(copy)


def test_an_unknown_feature_is_named(data: Dataset) -> None:
    with pytest.raises(KeyError, match="no feature 'colour'; there are: user_id"):
        data.train(8, features=["colour"])
