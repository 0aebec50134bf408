"""Tables too large for memory are joined by their keys: the dataset is the same."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines.prepare import prepare
from beam_pipelines.transforms import join
from beam_pipelines.transforms.clean_pieces import Clean
from tests.beam_pipelines.test_prepare import (
    BY_HAND,
    EVENTS,
    ITEMS,
    RUNNERS,
    USERS,
    WORLD,
    categorical,
    config,
)
from tests.conftest import content_of
from tfctr.config import ConfigError
from tfctr.data import clean, joined_tables
from tfctr.data.clean import Cleaner

EVENTS_ROWS, USERS_ROWS = 4_000, 3_000


@pytest.fixture
def large(monkeypatch):
    """Every table counts as too large."""
    return lambda: monkeypatch.setattr(joined_tables, "LARGE_TABLE", -1)


def write_by_hand(folder, users=USERS):
    for name, text in (("log.csv", EVENTS), ("users.csv", users), ("items.csv", ITEMS)):
        (folder / name).write_text(text, encoding="utf-8")


def in_row_groups(folder, seed=0):
    """Logs of several pieces, whose users' table has keys twice, in one piece and in several; four
    of five events are of one user."""
    rng = np.random.default_rng(seed)
    users = np.where(rng.random(EVENTS_ROWS) < 0.8, 7, rng.integers(0, USERS_ROWS, EVENTS_ROWS))
    log = {
        "click": rng.integers(0, 2, EVENTS_ROWS),
        "time": rng.integers(0, 500, EVENTS_ROWS),
        "user": pa.array([f"u{user}" for user in users]),
    }
    table = {
        "user": pa.array([f"u{user}" for user in rng.integers(0, USERS_ROWS, USERS_ROWS)]),
        "age": rng.integers(10, 90, USERS_ROWS).astype(np.float64),
        "city": pa.array(rng.choice(["Oslo", "Lima", "Pune"], USERS_ROWS)),
    }
    pq.write_table(pa.table(log), folder / "log.parquet", row_group_size=500)
    pq.write_table(pa.table(table), folder / "users.parquet", row_group_size=400)
    return config(
        folder,
        "log.parquet",
        source={
            "format": "parquet",
            "events": "log.parquet",
            "users": {"path": "users.parquet", "key": "user"},
        },
        label={"column": "click"},
        user="user_id",
        history_events="all",
        max_bad_share=0.6,
        features=[
            categorical("user_id", "user", column="user"),
            {"name": "age", "kind": "numeric", "side": "user", "transform": "bucketize"},
            categorical("city", "user"),
            {"name": "past", "kind": "history", "shares": "city", "max_length": 3},
        ],
    )


@pytest.mark.slow
def test_a_join_by_several_processes_gives_the_same_bytes(tmp_path, large):
    made = in_row_groups(tmp_path)
    prepare(made, str(tmp_path / "one"))
    large()
    assert Clean(made, "").cleaner.joined.large == ("users",)
    prepare(made, str(tmp_path / "two"), RUNNERS["processes"])
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def test_a_join_of_two_tables_with_bad_rows_lists_and_texts(tmp_path, large):
    write_by_hand(tmp_path)
    made = config(tmp_path, **BY_HAND)
    prepare(made, str(tmp_path / "one"))
    large()
    prepare(made, str(tmp_path / "two"))
    assert (tmp_path / "two" / "dead_letters" / "users.jsonl").exists()
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def test_a_key_that_is_no_feature(tmp_path, large):
    write_by_hand(tmp_path)
    features = [f for f in BY_HAND["features"] if f["name"] in ("user_id", "age", "tags")]
    made = config(tmp_path, **BY_HAND | {"features": features, "item": None})
    prepare(made, str(tmp_path / "one"))
    large()
    prepare(made, str(tmp_path / "two"))
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def test_pieces_that_find_no_row_of_a_table(tmp_path, large):
    write_by_hand(tmp_path)
    (tmp_path / "items.csv").write_text("item,tags,title\ni77,a,Unseen\n", encoding="utf-8")
    features = [f for f in BY_HAND["features"] if f["name"] not in ("tags", "title")]
    features.append({"name": "title", "kind": "text", "side": "item"})
    made = config(tmp_path, **BY_HAND | {"features": features})
    found = prepare(made, str(tmp_path / "one"))
    assert found["counts"]["unmatched_items"] > 0
    large()
    prepare(made, str(tmp_path / "two"))
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def test_the_world_joined_by_key(tmp_path, large):
    made = config(tmp_path, **WORLD)
    prepare(made, str(tmp_path / "one"))
    large()
    prepare(made, str(tmp_path / "two"))
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def test_a_large_table_without_a_good_row_is_one_clear_error(tmp_path, large):
    write_by_hand(tmp_path, users="user,city,age\n,Oslo,3\n")
    large()
    with pytest.raises(ConfigError, match=r"source\.users: .* no good row; .* user: missing"):
        prepare(config(tmp_path, **BY_HAND), str(tmp_path / "data"))


def test_a_key_of_most_events_is_asked_for_once_a_piece(tmp_path, large):
    large()
    made = in_row_groups(tmp_path)
    cleaner = Cleaner(made, joins_large=False)
    (piece, *_) = cleaner.source.events.pieces()
    table, _, _ = cleaner.clean(piece)
    path = str(tmp_path / "00000.feather")
    clean.write_staged(path, table, cleaner.features)
    staged = clean.Staged(0, path, table.num_rows, {}, {})
    asked = [key for _, (_, keys) in join._keys_by_bucket(staged, "user_id") for key in keys]
    assert len(asked) == len(set(asked))
    assert {key.as_py() for key in asked} == set(table["user_id"].to_pylist())
    assert table["user_id"].to_pylist().count("u7") > 300


def test_a_table_of_no_rows_at_all(tmp_path):
    made = in_row_groups(tmp_path)
    table = pq.read_table(tmp_path / "users.parquet")
    pq.ParquetWriter(tmp_path / "users.parquet", table.schema).close()
    with pytest.raises(ConfigError, match=r"source\.users: the table has no good row$"):
        prepare(made, str(tmp_path / "data"))
