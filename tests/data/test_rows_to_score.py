"""Rows to score hold what `prepare` reads of a log: values, lists, joined tables, bad rows."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfctr.config import ConfigError, DataConfig
from tfctr.data.rows_to_score import RowsToScore
from tfctr.schema import Schema

SCHEMA = Schema.model_validate(
    {
        "features": [
            {"name": "user", "kind": "categorical", "side": "user", "dtype": "int"},
            {"name": "item", "kind": "categorical", "side": "item", "column": "item_id"},
            {"name": "price", "kind": "numeric", "side": "item"},
            {"name": "genres", "kind": "multi_valued", "side": "item", "max_length": 2},
        ]
    }
)
HISTORY = {"name": "seen", "kind": "history", "shares": "item", "max_length": 3}
LOGGED = [  # one row, as several writers write it
    '{"user": "7", "item_id": "i1", "price": "2.50", "genres": "war|drama", "click": 1}',
    '{"user": 7.0, "item_id": "i1", "price": 2.5, "genres": ["war", "drama"], "page": [1, 2]}',
    '{"user": 7, "item_id": "i1", "price": 2.5, "genres": ["war", null, "drama", "x"], "click": 0}',
]
READ = {"user": 7, "item": "i1", "price": 2.5, "genres": ["war", "drama"]}


def read(rows, keep=()):
    """The features' rows, and the kept columns, of all pieces."""
    found = [rows.read(piece, keep) for piece in rows.reader.pieces()]
    features = pa.concat_tables([part.features for part in found])
    return features.drop_columns(["row_id"]).to_pylist(), pa.concat_tables([p.kept for p in found])


def config(folder, **source):
    return DataConfig.model_validate(
        {
            "name": "shop",
            "directory": str(folder),
            "source": {"format": "csv", "events": "log.csv", **source},
            "label": {"column": "click"},
            "time": {"column": "time"},
            "features": SCHEMA.features,
        }
    )


def test_a_row_is_the_same_as_it_is_logged_in_any_format(tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n".join(LOGGED))
    rows = RowsToScore([str(tmp_path / "rows.jsonl")], SCHEMA.inputs)
    assert read(rows)[0] == [READ] * 3
    assert (rows.missing, rows.unread) == ([], ["click", "page"])
    (tmp_path / "rows.csv").write_text("item_id,click,user,genres,price\ni1,1,7.0,war|drama|x,2.5")
    (tmp_path / "rows.tsv").write_text("item\tuser\tgenres\tprice\ni1\t007\twar|drama\t25e-1\n")
    columns = {"user": [7.0, None], "item_id": ["i1", "i1"], "price": [2.5, None]}
    pq.write_table(pa.table(columns | {"genres": ["war|drama", None]}), tmp_path / "rows.parquet")
    assert read(RowsToScore([str(tmp_path / "rows.csv")], SCHEMA.inputs))[0] == [READ]
    assert read(RowsToScore([str(tmp_path / "rows.tsv")], SCHEMA.inputs))[0] == [READ]
    missing = {"user": None, "item": "i1", "price": None, "genres": []}
    found = read(RowsToScore([str(tmp_path / "rows.parquet")], SCHEMA.inputs))[0]
    assert found == [READ, missing]


def test_kept_columns_have_the_types_of_the_log(tmp_path):
    columns = {
        "user": pa.array([7], pa.int64()),
        "item_id": pa.array(["i1"], pa.large_string()),
        "price": pa.array([2.5]),
        "genres": pa.array([["war", None, "drama", "x"]]),
        "id": pa.array([9], pa.int32()),
        "more": pa.array([{"a": 1}]),
        "raw": pa.array([b"\xff"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    names = list(columns)
    _, kept = read(RowsToScore([str(tmp_path / "rows.parquet")], SCHEMA.inputs), names)
    assert kept.to_pylist() == pa.table(columns).to_pylist()
    assert kept.schema.types == [column.type for column in columns.values()]
    (tmp_path / "rows.jsonl").write_text("\n".join(LOGGED))
    rows = RowsToScore([str(tmp_path / "rows.jsonl")], SCHEMA.inputs)
    _, kept = read(rows, rows.names)
    assert kept.schema.to_string().splitlines() == [
        *("user: int64", "item_id: string", "price: double"),
        *("genres: list<item: string>", "  child 0, item: string", "click: string", "page: string"),
    ]
    assert kept["user"].to_pylist() == [7, 7, 7]
    assert kept["genres"].to_pylist()[2] == ["war", None, "drama", "x"]
    assert kept["page"].to_pylist() == [None, "[1, 2]", None]
    (tmp_path / "rows.csv").write_bytes(b"item,user,genres,price\ni1,7,war|x|y,2\n\xff,7,a,2\n")
    rows = RowsToScore([str(tmp_path / "rows.csv")], SCHEMA.inputs)
    features, kept = read(rows, ["genres", "user"])
    assert len(features) == 1  # no token, but bytes
    assert kept.to_pylist() == [{"genres": "war|x|y", "user": 7}]


def test_a_row_that_cannot_be_read_stops_no_other(tmp_path):
    lines = ["7,i1,2.5,war,ok", "7.5,i1,2,,", "7,i1", ",,x,,", "8,,,,\xff", "8,,,,"]
    text = "user,item_id,price,genres,note\n" + "\n".join(lines)
    (tmp_path / "rows.csv").write_text(text, "latin-1")
    rows = RowsToScore([str(tmp_path / "rows.csv")], SCHEMA.inputs)
    found = rows.read(rows.reader.pieces()[0], ["note"])
    assert found.features["row_id"].to_pylist() == [0, 5]
    assert [(row, why) for row, why, _ in found.bad] == [
        (1, "user: not a 64-bit integer"),
        (2, "2 values where 5 columns are"),
        (3, "price: not a number"),
        (4, "note: not UTF-8 text"),
    ]
    assert found.kept["note"].to_pylist() == ["ok", None]


def test_a_history_is_a_list_under_its_own_name(tmp_path):
    features = Schema.model_validate({"features": [*SCHEMA.features, HISTORY]}).inputs
    text = "user,item_id,price,genres,seen\n7,i1,,,a||b\n7,i1,,,\n"
    (tmp_path / "rows.csv").write_text(text)
    found, _ = read(RowsToScore([str(tmp_path / "rows.csv")], features))
    assert [row["seen"] for row in found] == [["a", None, "b"], []]
    assert [row["item"] for row in found] == ["i1", "i1"]
    lines = [{"user": 7, "item_id": "i1", "seen": ["a", "b", "c", 4.0]}]
    lines += [{"seen": None}, {"seen": ""}, {"seen": [None]}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = RowsToScore([str(tmp_path / "rows.jsonl")], features)
    assert [row["seen"] for row in read(rows)[0]] == [["b", "c", "4"], [], [], [None]]
    assert rows.missing == ["price", "genres"]
    (tmp_path / "rows.csv").write_text("user,item_id,price,genres\n7,i1,,\n")
    assert RowsToScore([str(tmp_path / "rows.csv")], features).missing == ["seen"]


def test_tables_are_joined_as_to_the_log(tmp_path):
    (tmp_path / "items.csv").write_text("item_id,price,genres\ni1,2.5,war|drama\ni1,9,\ni2,x,\n")
    (tmp_path / "users.csv").write_text("user,age\n7,30\n")  # of which nothing is read
    made = config(
        tmp_path,
        items={"path": "items.csv", "key": "item_id"},
        users={"path": "users.csv", "key": "user"},
    )
    (tmp_path / "rows.jsonl").write_text('{"item_id": "i1", "user": 7}\n{"item_id": "i2"}\n{}')
    rows = RowsToScore([str(tmp_path / "rows.jsonl")], SCHEMA.inputs, made)
    unmatched = {"user": None, "item": "i2", "price": None, "genres": None}
    assert read(rows)[0] == [READ, unmatched, unmatched | {"item": None}]
    assert rows.read(rows.reader.pieces()[0]).unmatched == {"items": 2}
    assert list(rows.joined.tables) == ["items"]
    assert [name for name, _, _ in rows.fingerprint()] == ["rows.jsonl", "items.csv"]
    (tmp_path / "own.csv").write_text("item_id,user,price\ni1,7,3\n")  # its own price
    rows = RowsToScore([str(tmp_path / "own.csv")], SCHEMA.inputs, made)
    assert read(rows)[0] == [READ | {"price": 3.0}]
    (tmp_path / "no-key.csv").write_text("item,user,price\ni1,7,3\n")
    with pytest.raises(ConfigError, match=r"no column 'item_id', the key of source.items; columns"):
        RowsToScore([str(tmp_path / "no-key.csv")], SCHEMA.inputs, made)


def test_files_named_like_the_log_are_read_in_its_format(tmp_path):
    columns = ["user", "item_id", "price", "genres", "click", "time"]
    made = config(tmp_path, separator="::", columns=columns, events="log-*.dat")
    (tmp_path / "new.dat").write_text("7::i1::2.5::war|drama::1::3\n")
    assert read(RowsToScore([str(tmp_path / "new.dat")], SCHEMA.inputs, made))[0] == [READ]
    (tmp_path / "new.csv").write_text("user,item_id,price,genres\n7,i1,2.5,war|drama\n")
    assert read(RowsToScore([str(tmp_path / "new.csv")], SCHEMA.inputs, made))[0] == [READ]
    for names, text in (
        (["new.dat"], "found .dat; give files of one kind: .parquet, .csv, .tsv or .jsonl"),
        (["new.dat", "new.csv"], "found .csv, .dat; give"),
        (["old.csv"], "no file matches"),
    ):
        with pytest.raises(ConfigError, match=text):
            RowsToScore([str(tmp_path / name) for name in names], SCHEMA.inputs)
