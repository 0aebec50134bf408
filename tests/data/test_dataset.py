"""The readers of a dataset directory."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from beam_pipelines.tfrecord.examples import INT64_WIDTH, Field, encode, layout
from tfctr.config import DataConfig, Fold, data_digest
from tfctr.data.dataset import Dataset, Part
from tfctr.data.folds import fold_of
from tfctr.data.manifest import DataError
from tfctr.data.records import read_columns
from tfctr.stages import prepare


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


def test_no_reader_is_tuned_by_tf_data(data: Dataset) -> None:
    """Its thread makes the end of an iterator wait for seconds, after each epoch and evaluation."""
    for batches in (data.train(64), data.train(64, in_memory=True), data.valid(64), data.test(64)):
        assert batches.options().autotune.enabled is False


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


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Seven files of 90 to 150 rows; an item is a row's own number."""
    folder = tmp_path_factory.mktemp("sharded")
    row = 0
    for i in range(7):
        lines = ["item,click,time"]
        for _ in range(90 + 10 * i):
            lines.append(f"{row},{int(row % 4 == 0)},{row}")
            row += 1
        (folder / f"part-{i}.csv").write_text("\n".join(lines) + "\n")
    config = DataConfig.model_validate(
        {
            "name": "sharded",
            "source": {"format": "csv", "events": str(folder / "part-*.csv")},
            "label": {"column": "click"},
            "time": {"column": "time"},
            "split": {"by": "random", "valid": 0.1, "test": 0.1},
            "features": [{"name": "item", "kind": "categorical", "side": "item", "dtype": "int"}],
        }
    )
    prepare(config, folder / "data", console=Console(quiet=True))
    return Dataset.open(folder / "data")


@pytest.mark.parametrize("in_memory", [False, True])
def test_workers_and_their_replicas_share_the_rows(sharded: Dataset, in_memory: bool) -> None:
    rows, batch = sharded.num_rows("train"), 64
    seen: list[np.ndarray] = []
    steps = set()
    for worker in range(2):
        part = Part(worker, workers=2, replicas=2)
        batches = sharded.train(batch, seed=5, in_memory=in_memory, part=part)
        found = [features["item"].numpy() for features, _ in batches]
        assert {len(items) for items in found} == {batch // 4}
        assert len(found) == int(batches.cardinality())
        steps.add(len(found))
        seen += found
    assert len(steps) == 1  # else one worker would wait for the other for ever
    items = np.concatenate(seen)
    assert len(np.unique(items)) == len(items) > 0.85 * rows - batch


def test_replicas_get_the_rows_of_the_batch_of_one_device(sharded: Dataset) -> None:
    whole = [features["item"].numpy() for features, _ in sharded.train(60, 5, in_memory=True)]
    parts = [
        [f["item"].numpy() for f, _ in sharded.train(60, 5, None, True, 1.0, Part(worker, 3, 2))]
        for worker in range(3)
    ]
    for step, batch in enumerate(whole[:-1]):
        replicas = [part[2 * step + i] for part in parts for i in range(2)]
        np.testing.assert_array_equal(np.concatenate(replicas), batch)


def test_impossible_parts_are_explained(sharded: Dataset) -> None:
    with pytest.raises(DataError, match="7 training shards cannot be spread over 8 workers"):
        sharded.train(64, part=Part(0, workers=8))
    with pytest.raises(DataError, match="batch_size 50 must be a multiple of the 4 replicas"):
        sharded.train(50, part=Part(0, 2, 2))
    with pytest.raises(DataError, match="do not fill one batch of 2,000"):
        sharded.train(2000, in_memory=True, part=Part(0, 2, 1))


@pytest.mark.parametrize("in_memory", [False, True])
def test_two_splits_are_shuffled_together(sharded: Dataset, in_memory: bool) -> None:
    of_each = [sharded.columns(split, ["item", "label"]) for split in ("train", "valid")]
    items, labels = (np.concatenate([of[name] for of in of_each]) for name in ("item", "label"))
    for splits in (("train",), ("train", "valid"), ("train",)):
        batches = sharded.train(64, 5, in_memory=in_memory, splits=splits)
        found = gather(batches)[0]["item"]
        expected = items if len(splits) == 2 else of_each[0]["item"]
        np.testing.assert_array_equal(np.sort(found), np.sort(expected))
        assert int(batches.cardinality()) == -(-len(expected) // 64)
    kept = gather(sharded.train(64, 5, None, in_memory, 0.3, splits=("train", "valid")))[1]
    assert len(kept) == pytest.approx(labels.sum() + 0.3 * (labels == 0).sum(), abs=40)


def test_columns_of_some_shards(sharded: Dataset) -> None:
    names = ["item", "label", "row_id"]
    whole = sharded.columns("train", names)
    rows = [shard["rows"] for shard in sharded.manifest["splits"]["train"]["shards"]]
    ends = np.cumsum(rows)
    assert len(rows) > 2
    found = sharded.columns("train", names, slice(1, None, 2))
    places = np.concatenate([np.arange(ends[i - 1], ends[i]) for i in range(1, len(rows), 2)])
    for name in names:
        np.testing.assert_array_equal(found[name], whole[name][places])


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_share_of_the_negatives_is_kept(sharded: Dataset, in_memory: bool) -> None:
    def items(seed: int) -> tuple[np.ndarray, np.ndarray]:
        batches = sharded.train(32, seed, in_memory=in_memory, keep_negatives=0.3)
        features, labels = gather(batches)
        assert len(labels) > 32 * (int(batches.cardinality()) - 1)
        return features["item"][labels == 1], features["item"][labels == 0]

    everything = sharded.columns("train", ["label"])["label"]
    positives, negatives = items(1)
    assert len(np.unique(positives)) >= everything.sum() - 32
    assert 0.2 < len(np.unique(negatives)) / (everything == 0).sum() < 0.4
    np.testing.assert_array_equal(items(1)[1], negatives)
    assert not np.array_equal(np.sort(items(2)[1]), np.sort(negatives))


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_fold_is_left_out(sharded: Dataset, in_memory: bool) -> None:
    columns = sharded.columns("train", ["row_id", "item"])
    fold = fold_of(columns["row_id"], 3)
    assert np.bincount(fold).min() > 0.25 * len(fold)
    for index in range(3):
        left_out = Fold(index=index, folds=3)
        batches = sharded.train(32, 5, in_memory=in_memory, left_out=left_out)
        items = gather(batches)[0]["item"]
        assert not set(items) & set(columns["item"][fold == index])
        rest = columns["item"][fold != index]
        if in_memory:
            np.testing.assert_array_equal(np.sort(items), np.sort(rest))
        else:  # as many as are expected
            assert len(set(items)) > 0.9 * len(rest)
            assert int(batches.cardinality()) == -(-(len(fold) * 2 // 3) // 32)


def test_a_dataset_of_another_format_is_refused(world_data: Path, tmp_path: Path) -> None:
    manifest = json.loads((world_data / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"format": 1}))
    with pytest.raises(DataError, match=r"format 1, where this version reads 2; run `tfctr prep"):
        Dataset.open(tmp_path)


def write_beside(data: Dataset, folder: Path, data_key: str | None = None) -> Path:
    """Two more fields of each row, made of its row id."""
    fields = [Field("row_id", width=INT64_WIDTH), Field.ids("twice", 1 << 20, 2), Field("root", 1)]
    splits = {}
    for split, described in data.manifest["splits"].items():
        shards = []
        for shard in described["shards"]:
            own = read_columns(
                str(data.directory / shard["name"]), data.manifest["layout"], ["row_id"]
            )["row_id"]
            columns = {
                "row_id": own,
                "twice": np.concatenate([own, 2 * own], axis=1),
                "root": np.sqrt(own).astype(np.float32),
            }
            content = b"".join(encode(fields, columns))
            (folder / shard["name"]).parent.mkdir(parents=True, exist_ok=True)
            (folder / shard["name"]).write_bytes(content)
            shards.append({"name": shard["name"], "rows": len(own), "bytes": len(content)})
        splits[split] = {"shards": shards}
    key = data_digest(data.manifest) if data_key is None else data_key
    manifest = {"data": key, "layout": layout(fields), "splits": splits}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("keep", [1.0, 0.4])
def test_what_lies_beside_a_dataset_stays_with_its_rows(
    data: Dataset, tmp_path: Path, in_memory: bool, keep: float
) -> None:
    both = Dataset.open(data.directory, [write_beside(data, tmp_path)])
    names = ["root", "user_id", "price", "twice", "tags"]
    expected = both.columns("train", [*names, "row_id", "label"])
    ids = expected["row_id"]
    np.testing.assert_array_equal(expected["twice"], np.stack([ids, 2 * ids], axis=1))
    np.testing.assert_array_equal(expected["root"], np.sqrt(ids).astype(np.float32)[:, None])
    place = {row: i for i, row in enumerate(ids.tolist())}
    features, labels = gather(both.train(500, 3, names, in_memory, keep))
    assert set(features) == set(names)
    rows = [place[row] for row in features["twice"][:, 0].tolist()]
    assert len(rows) > 5_000
    for name in names:
        np.testing.assert_array_equal(features[name], expected[name][rows])
    np.testing.assert_array_equal(labels, expected["label"][rows])
    alone, _ = gather(both.valid(500, features=["root"]))
    np.testing.assert_array_equal(alone["root"], both.columns("valid", ["root"])["root"])


def test_what_was_made_of_other_rows_is_not_read_beside(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no side outputs of .*no manifest.json"):
        Dataset.open(data.directory, [tmp_path / "nowhere"])
    other = write_beside(data, tmp_path / "other", data_key="another")
    with pytest.raises(DataError, match="other: made of other rows than"):
        Dataset.open(data.directory, [other])
    whole = write_beside(data, tmp_path / "whole")
    described = json.loads((whole / "manifest.json").read_text())
    less = described | {"splits": {"train": described["splits"]["train"]}}
    (whole / "manifest.json").write_text(json.dumps(less))
    with pytest.raises(DataError, match="whole: made of other rows than"):
        Dataset.open(data.directory, [whole])
    (whole / "manifest.json").write_text(json.dumps(described))
    (whole / data.manifest["splits"]["valid"]["shards"][0]["name"]).write_bytes(b"")
    with pytest.raises(DataError, match=r"0 bytes where the manifest says .*; make it again"):
        Dataset.open(data.directory, [whole])
    with pytest.raises(KeyError, match="no feature 'twice'"):
        data.train(64, features=["twice"])


def test_a_record_of_another_layout_is_refused(world_data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(world_data, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    head = bytes.fromhex(manifest["layout"]["head"])
    manifest["layout"]["head"] = head.replace(b"user_id", b"user_no").hex()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(tf.errors.InvalidArgumentError, match="another layout than the manifest"):
        gather(Dataset.open(copy).valid(100))


@pytest.mark.parametrize("in_memory", [False, True])
def test_neighbours_of_the_log_are_anywhere_after_shuffling(
    sharded: Dataset, in_memory: bool
) -> None:
    """TensorFlow's RandomIndexShuffle leaves rows some steps apart correlated."""
    features, _ = gather(sharded.train(64, seed=2, in_memory=in_memory))
    places = features["item"].astype(np.float64)  # an id is the row's place among all
    for lag in (1, 2, 4, 16, 64, 256):
        correlation = np.corrcoef(places[:-lag], places[lag:])[0, 1]
        assert abs(correlation) < 4.5 / np.sqrt(len(places) - lag)
