"""The batch job that finds similar earlier rows, against a plain loop over a small log."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from beam_pipelines import retrieve as module
from beam_pipelines.retrieve import retrieve
from tests.conftest import world_config
from tests.retrieval.test_bm25 import plain_search
from tfctr.cli import app
from tfctr.config import ConfigError, DataConfig, RunConfig, load
from tfctr.data import Dataset
from tfctr.data.manifest import DataError
from tfctr.data.records import read_columns
from tfctr.retrieval.bm25 import idf
from tfctr.retrieval.config import RetrievalConfig
from tfctr.retrieval.dense import unit
from tfctr.stages import create_model, prepare

FIELDS = ["user_id", "category", "tags"]
SPLITS = ("train", "valid", "test")


def config(**changes: Any) -> RetrievalConfig:
    content = {"name": "similar", "data": small_world(), "fields": FIELDS, "k": 4}
    return RetrievalConfig.model_validate(content | changes)


def small_world(**changes: Any) -> Any:
    source = {"format": "world", "users": 40, "items": 60, "events": 1_500, "seed": 3}
    return world_config(source=source, **changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "world"
    prepare(small_world(), folder)
    return folder


def rows_of(data: Path) -> dict[str, np.ndarray]:
    opened = Dataset.open(data)
    names = ["row_id", "time", "label", *(f.name for f in opened.schema.inputs)]
    parts = [opened.columns(split, names) for split in SPLITS]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def found_in(output: Path, manifest: dict[str, Any]) -> dict[str, np.ndarray]:
    parts = [
        read_columns(str(output / shard["name"]), manifest["layout"], manifest["layout"]["fields"])
        for split in SPLITS
        for shard in manifest["splits"][split]["shards"]
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def expected_rows(data: Path, k: int, until: float) -> list[list[int]]:
    """Row ids of the best rows of each row, by a loop over all."""
    opened, rows = Dataset.open(data), rows_of(data)
    train = opened.columns("train", FIELDS)
    num_train = opened.num_rows("train")
    weights = {
        name: idf(
            np.array(
                [
                    (ids.reshape(num_train, -1) == i).any(axis=1).sum()
                    for i in range(opened.schema[name].num_ids)
                ]
            ),
            num_train,
        )
        for name, ids in train.items()
    }
    early = rows["time"] < until
    pool = {
        "columns": {name: rows[name][early] for name in FIELDS},
        "times": rows["time"][early],
        "row_ids": rows["row_id"][early],
    }
    found = []
    for i in range(0, len(rows["time"]), 7):
        target = {name: rows[name][i] for name in FIELDS}
        best = plain_search(pool, weights, target, rows["time"][i], k)
        found.append([int(pool["row_ids"][row]) for row, _ in best] + [-1] * (k - len(best)))
    return found


def test_every_row_has_the_rows_that_a_plain_loop_finds(data: Path, tmp_path: Path) -> None:
    manifest = retrieve(config(), str(data), str(tmp_path / "out"))
    rows, found = rows_of(data), found_in(tmp_path / "out", manifest)
    assert found["row_id"][:, 0].tolist() == rows["row_id"].tolist()
    assert found["retrieved_row"][::7].tolist() == expected_rows(data, 4, np.inf)
    place = {row: i for i, row in enumerate(rows["row_id"].tolist())}
    there = found["retrieved_row"] >= 0
    source = np.array([[place.get(row, 0) for row in rows] for rows in found["retrieved_row"]])
    labels = np.where(there, rows["label"][source] + 1, 0)
    assert found["retrieved_label"].tolist() == labels.tolist()
    for name in ("item_id", "tags", "price"):
        values = rows[name][source]
        mask = there.reshape(*there.shape, *[1] * (values.ndim - 2))
        values = np.where(mask, values, np.nan if name == "account_age_days" else 0)
        got = found[f"retrieved_{name}"].reshape(values.shape)
        np.testing.assert_array_equal(np.where(mask, got, 0), np.where(mask, values, 0))
    counts = [manifest["splits"][split]["rows_with_fewer_than_k"] for split in SPLITS]
    assert sum(counts) == (there.sum(axis=1) < 4).sum() > 0


def test_a_pool_of_an_earlier_period_and_parts_of_any_size(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = retrieve(config(pool=0.4), str(data), str(tmp_path / "whole"))
    found = found_in(tmp_path / "whole", manifest)
    times = np.sort(rows_of(data)["time"])
    assert manifest["pool_until"] == times[int(0.4 * len(times))]
    assert found["retrieved_row"][::7].tolist() == expected_rows(data, 4, manifest["pool_until"])
    monkeypatch.setattr(module, "INDEX_ROWS", 150)
    monkeypatch.setattr(module, "TARGET_ROWS", 300)
    again = retrieve(config(pool=0.4), str(data), str(tmp_path / "parts"))
    for split in SPLITS:
        for shard in again["splits"][split]["shards"]:
            parts, whole = (tmp_path / name / shard["name"] for name in ("parts", "whole"))
            assert parts.read_bytes() == whole.read_bytes()
    left = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert left == ["manifest.json", "test", "train", "valid"]


def test_a_pool_of_its_own_is_what_is_found(tmp_path: Path) -> None:
    pooled = small_world(split={"pool": 0.4, "valid": 0.1, "test": 0.1})
    prepare(pooled, tmp_path / "data")
    opened = Dataset.open(tmp_path / "data")
    counts = [opened.num_rows(split) for split in ("pool", *SPLITS)]
    assert counts == pytest.approx([600, 600, 150, 150], abs=10)
    assert (opened.columns("pool", ["item_id"])["item_id"] > 1).all()  # vocabularies know them
    manifest = retrieve(
        config(data=pooled, pool=0.4), str(tmp_path / "data"), str(tmp_path / "out")
    )
    assert manifest["splits"]["pool"]["rows"] == counts[0]
    found = found_in(tmp_path / "out", manifest)
    pool = opened.columns("pool", ["row_id"])["row_id"]
    assert set(found["retrieved_row"].ravel().tolist()) <= {-1, *pool.tolist()}
    assert (found["retrieved_row"] >= 0).mean() > 0.9
    both = Dataset.open(tmp_path / "data", [tmp_path / "out"])
    batch, _ = next(iter(both.train(64, features=["retrieved_label"])))
    assert batch["retrieved_label"].shape == (64, 4)


def test_random_rows_are_earlier_ones_of_the_pool_and_the_same_again(
    data: Path, tmp_path: Path
) -> None:
    drawn = config(method="random", fields=[], pool=0.5)
    manifest = retrieve(drawn, str(data), str(tmp_path / "out"))
    rows, found = rows_of(data), found_in(tmp_path / "out", manifest)
    time = dict(zip(rows["row_id"].tolist(), rows["time"].tolist(), strict=True))
    for own, others in zip(rows["row_id"].tolist(), found["retrieved_row"].tolist(), strict=True):
        there = [row for row in others if row >= 0]
        assert all(time[row] < min(time[own], manifest["pool_until"]) for row in there)
    newest = found["retrieved_row"][-1]
    assert len(set(newest.tolist())) == 4
    assert len(np.unique(found["retrieved_row"])) > 0.4 * len(rows["row_id"])
    again = retrieve(drawn, str(data), str(tmp_path / "again"))
    assert again["splits"] == manifest["splits"]
    same = found_in(tmp_path / "again", again)
    np.testing.assert_array_equal(found["retrieved_row"], same["retrieved_row"])


def test_dense_retrieval_finds_the_nearest_by_a_models_vectors(data: Path, tmp_path: Path) -> None:
    run = {
        "name": "encoder",
        "data": small_world(),
        "model": {"backbone": "deepfm", "features": ["user_id", "item_id", "tags", "price"]},
    }
    dense = config(method="dense", fields=[], encoder=run, pool=0.5)
    opened = Dataset.open(data)
    model = create_model(RunConfig.model_validate(run), opened.schema)
    model.fields.stddev = 0.5
    model.build()
    model.save(tmp_path / "model.keras")
    encoder = str(tmp_path / "model.keras")
    manifest = retrieve(dense, str(data), str(tmp_path / "out"), encoder=encoder)
    rows, found = rows_of(data), found_in(tmp_path / "out", manifest)
    vectors = np.array(model.embed({name: rows[name] for name in model.reads}))
    vectors = unit(vectors.reshape(len(vectors), -1))
    for i in range(0, len(vectors), 50):
        early = np.flatnonzero(rows["time"] < min(rows["time"][i], manifest["pool_until"]))
        cosines = vectors[early] @ vectors[i]
        best = np.sort(cosines)[::-1][:4]
        place = {row: p for p, row in enumerate(rows["row_id"][early].tolist())}
        got = [cosines[place[row]] for row in found["retrieved_row"][i].tolist() if row >= 0]
        np.testing.assert_allclose(got, best, atol=1e-5)


def test_a_search_that_is_not_strictly_earlier_is_stopped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = module.Bm25Index.search

    def leaky(index: Any, columns: Any, times: Any, k: int) -> Any:
        return search(index, columns, times + 1, k)

    monkeypatch.setattr(module.Bm25Index, "search", leaky)
    with pytest.raises(Exception, match="has a similar row that is not earlier"):
        retrieve(config(), str(data), str(tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_searched_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no dataset of this version here"):
        retrieve(config(), str(tmp_path / "nowhere"), str(tmp_path / "out"))
    other = config(data=small_world(compression="gzip"))
    with pytest.raises(DataError, match="holds a dataset of another config"):
        retrieve(other, str(data), str(tmp_path / "out"))
    with pytest.raises(DataError, match="no row found a similar earlier one; widen pool = 1e-06"):
        retrieve(config(pool=1e-6), str(data), str(tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_a_pool_of_fewer_rows_than_k_fills_the_first_places(data: Path, tmp_path: Path) -> None:
    few = config(method="random", fields=[], k=30, pool=0.01)
    manifest = retrieve(few, str(data), str(tmp_path / "out"))
    rows, found = rows_of(data), found_in(tmp_path / "out", manifest)
    pool = rows["row_id"][rows["time"] < manifest["pool_until"]]
    assert 5 < len(pool) < 30
    late = rows["time"] >= manifest["pool_until"]
    there = found["retrieved_row"][late]
    assert (np.sort(there[:, : len(pool)]) == np.sort(pool)).all()  # all of them, before
    assert (there[:, len(pool) :] == -1).all()  # the places where there is none
    for split in SPLITS:
        counts = manifest["splits"][split]
        assert counts["rows_with_fewer_than_k"] == counts["rows"]


def test_a_row_that_is_there_twice_is_named(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    shard = manifest["splits"]["valid"]["shards"][0]
    manifest["splits"]["valid"]["shards"].append(shard)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    row = Dataset.open(data).columns("valid", ["row_id"])["row_id"].min()
    with pytest.raises(DataError, match=f"row {row} occurs 2 times; run `tfctr prepare` again"):
        retrieve(config(), str(copy), str(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_field_without_a_value_in_the_pool_finds_nothing(tmp_path: Path) -> None:
    lines = ["user,shop,city,time,click"]
    lines += [f"{i % 7},{'' if i < 60 else i % 3},{i % 5},{i},{i % 2}" for i in range(100)]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    features = [
        {"name": name, "kind": "categorical", "side": "context"}
        for name in ("user", "shop", "city")
    ]
    log = DataConfig.model_validate(
        {
            "name": "log",
            "source": {"format": "csv", "events": str(tmp_path / "log.csv")},
            "label": {"column": "click"},
            "time": {"column": "time"},
            "split": {"by": "global_time", "valid": 0.1, "test": 0.1},
            "features": features,
        }
    )
    prepare(log, tmp_path / "data")
    nothing = config(data=log, fields=["shop"], pool=0.6)
    with pytest.raises(DataError, match="no row found a similar earlier one; widen pool"):
        retrieve(nothing, str(tmp_path / "data"), str(tmp_path / "out"))
    alike = [
        retrieve(
            config(data=log, fields=fields, pool=0.6), str(tmp_path / "data"), str(tmp_path / name)
        )
        for name, fields in (("both", ["shop", "city"]), ("one", ["city"]))
    ]
    assert alike[0]["splits"] == alike[1]["splits"]
    both, one = (found_in(tmp_path / name, alike[0]) for name in ("both", "one"))
    np.testing.assert_array_equal(both["retrieved_row"], one["retrieved_row"])
    assert (both["retrieved_row"] >= 0).mean() > 0.5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("fields: [price]", "fields: 'price' is not a categorical or multi-valued feature"),
        ("fields: [item_id, item_id]", "fields: must differ, found item_id, item_id"),
        ("fields: []", "fields: found []; bm25 needs the fields to compare"),
        ("fields: [item_id]\nmethod: random", "fields: found ['item_id']; random compares none"),
        ("method: dense", "encoder: dense needs a run config"),
        ("fields: [item_id]\nk: 0", "k: found 0; input should be greater than or equal to 1"),
        ("fields: [item_id]\npool: 0", "pool: found 0; input should be greater than 0"),
    ],
)
def test_a_mistake_in_the_config_is_one_line(tmp_path: Path, change: str, says: str) -> None:
    (tmp_path / "data.yaml").write_text(
        "name: d\nsource: {format: world}\nlabel: {column: click}\ntime: {column: timestamp}\n"
        "features:\n  - {name: item_id, kind: categorical, side: item, dtype: int}\n"
        "  - {name: price, kind: numeric, side: item}\n"
    )
    path = tmp_path / "similar.yaml"
    path.write_text(f"name: s\ndata: data.yaml\n{change}\n")
    with pytest.raises(ConfigError) as error:
        load(path, RetrievalConfig)
    assert f"{path}: {says}" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_command_runs_once(data: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(small_world().model_dump(mode="json")))
    (tmp_path / "similar.yaml").write_text(
        yaml.safe_dump({"name": "similar", "data": "data.yaml", "fields": FIELDS, "k": 2})
    )
    command = ["retrieve", str(tmp_path / "similar.yaml"), "--work", str(work)]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    assert "rows of train found fewer than 2" in " ".join(first.output.split())
    before = (work / "similar" / "manifest.json").stat().st_mtime_ns
    assert "retrieve is done" in CliRunner().invoke(app, command).output
    assert (work / "similar" / "manifest.json").stat().st_mtime_ns == before
