import csv
import datetime
import gzip
import io
import json
import os
import random
import shutil
import subprocess
import sys
import zipfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from rich.console import Console

from beam_pipelines.prepare import main, prepare
from beam_pipelines.running import job
from beam_pipelines.transforms import shards
from beam_pipelines.transforms.clean_pieces import Clean, _CleanPiece
from beam_pipelines.transforms.split import EXAMPLES, SplitPiece
from tests.conftest import content_of, few_quick
from tfctr.config import ConfigError, DataConfig, load_data
from tfctr.data import Dataset, World, readers
from tfctr.data.manifest import DataError
from tfctr.data.summary import warnings
from tfctr.stages.prepare import Prepare as PrepareStage

NAN = float("nan")


def categorical(name, side="context", **more):
    return {"name": name, "kind": "categorical", "side": side, **more}


def config(directory, events="log.csv", **more):
    content = {
        "name": "test",
        "source": {"format": "csv", "events": events},
        "label": {"column": "click"},
        "time": {"column": "time"},
        "features": [categorical("a")],
        "split": {"by": "random"},
        "directory": str(directory),
    }
    return DataConfig.model_validate(content | more)


def shards_and_vocabularies(folder):
    return {name: data for name, data in content_of(folder).items() if name != "manifest.json"}


def dead_letters(folder):
    """(source, row) -> reason."""
    letters = [
        json.loads(line)
        for path in sorted(Path(folder).glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    found = {(letter["source"], letter["row"]): letter["reason"] for letter in letters}
    assert len(found) == len(letters)
    return found


def all_rows(data, names):
    """Columns over all splits, rows in the order of the log."""
    parts = [data.columns(split, ["row_id", *names]) for split in EXAMPLES if data.num_rows(split)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["row_id"])
    return {name: values[order] for name, values in columns.items()}


# --- an example worked out by hand ----------------------------------------------------------------

EVENTS = """user,item,stars,time,score,recent
u1,i1,5,100,1.0,i9 i1
u2,i1,1,101,3.0,
u1,i2,3,102,9.0,i1
u3,i3,4,103,,i1 i2 i3 i4
u2,i2,2,104,5.0,i2
u1,i1,4,105,3.0,i1 i1
u1,i1,five,105,3.0,
u2,i4,5,106,100,i5
u2,i1,5,107,-100,
u4,i2,1,107,7,i2 i1
u1,i3,4,108,nan,i1
u9,i1,1,109,2.5,i3
"""
USERS = "user,city,age\nu1,Oslo,30\nu2,Lima,40\nu1,Rome,99\nu4,Pune,50\n,Bern,1\n"
ITEMS = 'item,tags,title\ni1,a|b|c,\ni2,b,Sécond\ni3,,"Third, or last"\n'
BY_HAND = {
    "source": {
        "format": "csv",
        "events": "log.csv",
        "users": {"path": "users.csv", "key": "user"},
        "items": {"path": "items.csv", "key": "item"},
    },
    "label": {"column": "stars", "positive_above": 3, "drop": [3]},
    "user": "user_id",
    "item": "item_id",
    "split": {"by": "global_time", "valid": 0.2, "test": 0.2},
    "max_bad_share": 0.5,
    "features": [
        categorical("user_id", "user", column="user"),
        categorical("item_id", "item", column="item", min_count=2),
        categorical("city", "user"),
        {"name": "age", "kind": "numeric", "side": "user"},
        {"name": "tags", "kind": "multi_valued", "side": "item", "max_length": 2},
        {"name": "title", "kind": "text", "side": "item"},
        {
            "name": "recent",
            "kind": "sequence",
            "side": "user",
            "max_length": 3,
            "separator": " ",
            "shares": "item_id",
        },
        {
            "name": "score",
            "kind": "numeric",
            "side": "context",
            "transform": "bucketize",
            "num_buckets": 2,
        },
    ],
}
# row_id: split, label, user_id, item_id, city, age, tags, title, recent, score. Ids: 0 no value,
# 1 not in the vocabulary, then from 3 on by count in the training rows (and by token).
ROWS_BY_HAND = {
    0: ("train", 1, 4, 3, 4, 30, [4, 3], "", [1, 3, 0], 1),
    1: ("train", 0, 3, 3, 3, 40, [4, 3], "", [0, 0, 0], 3),
    3: ("train", 1, 5, 1, 0, NAN, [0, 0], "Third, or last", [1, 1, 1], NAN),
    4: ("train", 0, 3, 1, 3, 40, [3, 0], "Sécond", [1, 0, 0], 5),
    5: ("train", 1, 4, 3, 4, 30, [4, 3], "", [3, 3, 0], 3),
    7: ("train", 1, 3, 1, 3, 40, [0, 0], "", [1, 0, 0], 100),
    8: ("valid", 1, 3, 3, 3, 40, [4, 3], "", [0, 0, 0], -100),
    9: ("valid", 0, 1, 1, 1, 50, [3, 0], "Sécond", [1, 3, 0], 7),
    10: ("test", 1, 4, 1, 4, 30, [0, 0], "Third, or last", [3, 0, 0], NAN),
    11: ("test", 0, 1, 3, 0, NAN, [4, 3], "", [1, 0, 0], 2.5),
}
COLUMNS_BY_HAND = ["label", "user_id", "item_id", "city", "age", "tags", "title", "recent", "score"]


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    folder = tmp_path_factory.mktemp("by_hand")
    for name, text in (("log.csv", EVENTS), ("users.csv", USERS), ("items.csv", ITEMS)):
        (folder / name).write_text(text, encoding="utf-8")
    manifest = prepare(config(folder, **BY_HAND), str(folder / "data"))
    return Dataset.open(folder / "data"), manifest


def test_every_value_of_the_example_is_as_worked_out(by_hand):
    data, _ = by_hand
    for split in EXAMPLES:
        expected = {row: values[1:] for row, values in ROWS_BY_HAND.items() if values[0] == split}
        found = data.columns(split, ["row_id", *COLUMNS_BY_HAND])
        assert found["row_id"].tolist() == list(expected)
        for i, name in enumerate(COLUMNS_BY_HAND):
            values = [row[i] for row in expected.values()]
            if name == "title":
                values = [text.encode() for text in values]
            np.testing.assert_array_equal(found[name], values, err_msg=f"{split} {name}")


def test_parse_example_reads_the_same_without_any_code_of_ours(by_hand):
    data, _ = by_hand
    records = list(tf.data.TFRecordDataset(str(data.directory / "valid" / "part-00000.tfrecord")))
    specs = {
        "row_id": tf.io.FixedLenFeature([], tf.int64),
        "time": tf.io.FixedLenFeature([], tf.int64),
        "label": tf.io.FixedLenFeature([], tf.float32),
        "user_key": tf.io.FixedLenFeature([], tf.int64),
        "city": tf.io.FixedLenFeature([], tf.int64),
        "tags": tf.io.FixedLenFeature([2], tf.int64),
        "title": tf.io.FixedLenFeature([], tf.string),
        "score": tf.io.FixedLenFeature([], tf.float32),
    }
    found = {k: v.numpy().tolist() for k, v in tf.io.parse_example(records, specs).items()}
    keys = found.pop("user_key")
    assert keys[0] != keys[1]
    assert found == {
        "row_id": [8, 9],
        "time": [107, 107],
        "label": [1.0, 0.0],
        "city": [3, 1],
        "tags": [[4, 3], [3, 0]],
        "title": [b"", "Sécond".encode()],
        "score": [-100.0, 7.0],
    }


def test_a_user_has_one_key_in_every_split_and_unknown_users_their_own(by_hand):
    data, _ = by_hand
    keys = all_rows(data, ["user_key"])["user_key"].tolist()
    users = ["u1", "u2", "u3", "u2", "u1", "u2", "u2", "u4", "u1", "u9"]
    assert len(set(zip(users, keys, strict=True))) == len(set(users)) == len(set(keys))


def test_the_manifest_says_what_was_measured(by_hand):
    data, manifest = by_hand
    assert manifest == data.manifest
    assert manifest["counts"] == {
        "read": 12,
        "bad": 1,
        "dropped": 1,
        "unmatched_users": 2,
        "unmatched_items": 1,
    }
    assert manifest["cuts"] == {"valid_from": 107, "test_from": 108}
    assert manifest["tables"]["users"]["rows"] == 5
    assert manifest["tables"]["users"]["bad"] == 2
    assert {split: found["rows"] for split, found in manifest["splits"].items()} == {
        "train": 6,
        "valid": 2,
        "test": 2,
    }
    assert manifest["splits"]["train"]["positives"] == 4
    assert manifest["splits"]["test"]["features"] == {
        "user_id": {"missing": 0, "unknown": 1},
        "item_id": {"missing": 0, "unknown": 1},
        "city": {"missing": 1, "unknown": 0},
        "age": {"missing": 1},
        "tags": {"missing": 1, "unknown": 0},
        "recent": {"missing": 0, "unknown": 1},
        "score": {"missing": 1},
    }
    schema = data.schema
    assert schema["age"].mean == 36
    np.testing.assert_allclose(schema["age"].std, 24**0.5)
    assert schema["score"].boundaries == (3.0,)
    assert [schema[name].num_ids for name in ("user_id", "item_id", "recent", "tags")] == [
        6,
        4,
        4,
        5,
    ]


def test_bad_rows_of_all_tables_are_kept_with_their_reason(by_hand):
    data, _ = by_hand
    assert dead_letters(data.directory / "dead_letters") == {
        ("log.csv", 6): "stars: the label must be a number",
        ("users", 2): "user: an earlier row has the same key",
        ("users", 4): "user: missing",
    }


def test_nothing_but_the_dataset_is_left(by_hand):
    data, manifest = by_hand
    names = {path.name for path in data.directory.iterdir()}
    assert names == {"manifest.json", "vocabularies", "dead_letters", *EXAMPLES}
    assert not list(data.directory.parent.glob("data.*"))
    for split in EXAMPLES:
        on_disk = sorted(path.name for path in (data.directory / split).iterdir())
        assert [f"{split}/{name}" for name in on_disk] == [
            shard["name"] for shard in manifest["splits"][split]["shards"]
        ]


# --- one table in every format --------------------------------------------------------------------

TABLE = pa.table(
    {
        "click": pa.array([i % 2 for i in range(60)], pa.int8()),
        "time": pa.array([1_600_000_000 + i // 2 for i in range(60)], pa.int64()),
        "user": pa.array([2**63 - 1 - i % 7 if i % 11 else None for i in range(60)], pa.uint64()),
        "city": pa.array([["Oslo", "Zürich, CH", 'a "b"', None][i % 4] for i in range(60)]),
        "price": pa.array([None if i % 9 == 0 else i / 8 for i in range(60)], pa.float64()),
        "exact": pa.array([Decimal(i) / 4 for i in range(60)], pa.decimal128(10, 2)),
        "tags": pa.array([["a", "b", f"c{i % 5}"][: i % 4] for i in range(60)]),
        "title": pa.array([f"Nr. {i}\t'é'" if i % 5 else None for i in range(60)]),
    }
)
FORMAT_FEATURES = [
    categorical("user", "user", dtype="int"),
    categorical("city", "user"),
    {"name": "price", "kind": "numeric", "side": "item"},
    {"name": "exact", "kind": "numeric", "side": "item"},
    {"name": "tags", "kind": "multi_valued", "side": "item", "max_length": 2},
    {"name": "title", "kind": "text", "side": "item"},
]


def as_text(value):
    if value is None:
        return ""
    return "|".join(value) if isinstance(value, list) else str(value)


def write_csv(
    path,
    separator=",",
    encoding="utf-8",
    header=True,
    end="\n",
    start="",
    quoting=csv.QUOTE_MINIMAL,
):
    written = io.StringIO()
    writer = csv.writer(written, delimiter=separator, lineterminator=end, quoting=quoting)
    if header:
        writer.writerow(TABLE.column_names)
    for row in TABLE.to_pylist():
        writer.writerow([as_text(value) for value in row.values()])
    path.write_bytes((start + written.getvalue()).encode(encoding))


def test_the_same_table_gives_the_same_dataset_from_any_format(tmp_path):
    """The separators of CSV, its header or none, its line ends; JSON's own types; Parquet's."""
    variants = {}

    def add(name, write, **source):
        write(tmp_path / name)
        variants[name] = {"format": name.split(".")[-1], "events": name, **source}

    names = TABLE.column_names
    add("plain.csv", write_csv)
    add("windows.csv", lambda p: write_csv(p, end="\r\n", start="\ufeff", quoting=csv.QUOTE_ALL))
    add(
        "headless.csv",
        lambda p: write_csv(p, separator=";", encoding="latin-1", header=False),
        separator=";",
        encoding="latin-1",
        columns=names,
    )
    lines = ["::".join(as_text(v) for v in row.values()) + "\n" for row in TABLE.to_pylist()]
    add("colons.csv", lambda p: p.write_text("".join(lines)), separator="::", columns=names)

    def json_line(row):
        row = {name: value for name, value in row.items() if value is not None}
        row |= {"exact": float(row["exact"]), "click": bool(row["click"])}
        return json.dumps(row, ensure_ascii=row["time"] % 2 == 0) + "\n"

    rows = TABLE.to_pylist()
    add("lines.jsonl", lambda p: p.write_text("".join(map(json_line, rows)), encoding="utf-8"))
    add("table.parquet", lambda p: pq.write_table(TABLE, p))

    def coded(path):
        city = TABLE["city"].combine_chunks().dictionary_encode()
        table = TABLE.set_column(3, "city", city)
        tags = TABLE["tags"].cast(pa.large_list(pa.large_string()))
        pq.write_table(table.set_column(6, "tags", tags), path)

    add("coded.parquet", coded)
    expected = None
    for name, source in variants.items():
        made = config(tmp_path, source=source, features=FORMAT_FEATURES)
        manifest = prepare(made, str(tmp_path / "data"))
        found = shards_and_vocabularies(tmp_path / "data")
        assert manifest["counts"]["bad"] == 0, name
        expected = expected or found
        assert found == expected, name
    rows = all_rows(Dataset.open(tmp_path / "data"), ["price", "title", "label"])
    np.testing.assert_array_equal(rows["label"], TABLE["click"].to_numpy())
    np.testing.assert_array_equal(rows["price"], TABLE["price"].to_numpy())
    assert rows["title"].tolist() == [(t or "").encode() for t in TABLE["title"].to_pylist()]


def test_several_files_and_row_groups_keep_the_order_of_the_log(tmp_path):
    pq.write_table(TABLE[:25], tmp_path / "log-1.parquet", row_group_size=10)
    pq.write_table(TABLE[25:], tmp_path / "log-2.parquet", row_group_size=20)
    source = {"format": "parquet", "events": "log-*.parquet"}
    made = config(tmp_path, source=source, features=FORMAT_FEATURES, split={"by": "global_time"})
    prepare(made, str(tmp_path / "data"))
    rows = all_rows(Dataset.open(tmp_path / "data"), ["time", "price"])
    assert rows["row_id"].tolist() == list(range(60))
    np.testing.assert_array_equal(rows["time"], TABLE["time"].to_numpy())
    np.testing.assert_array_equal(rows["price"], TABLE["price"].to_numpy())


def test_folders_of_days_are_joined_with_an_archive_of_users(tmp_path):
    for i in range(60):
        folder = (
            tmp_path
            / "log"
            / f"day=2024-01-{i // 6 + 1:02d}"
            / f"part={('train', 'valid')[i % 6 > 4]}"
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "_SUCCESS").touch()
        row = {"click": [i % 2], "user": [i % 7], "when": [1_700_000_000]}
        pq.write_table(pa.table(row), folder / f"{i:02d}.parquet")
    with zipfile.ZipFile(tmp_path / "users.zip", "w") as archive:
        archive.writestr("users.csv", "user,city\n" + "".join(f"{i},c{i % 3}\n" for i in range(7)))
    made = config(
        tmp_path,
        source={
            **{"format": "parquet", "events": "log"},
            "users": {"path": "users.zip", "key": "user"},
        },
        time={"column": "day"},
        split={"by": "column", "column": "part"},
        features=[categorical("city", "user"), categorical("day")],
    )
    manifest = prepare(made, str(tmp_path / "data"))
    data = Dataset.open(tmp_path / "data")
    assert {split: found["rows"] for split, found in manifest["splits"].items()} == {
        **{"train": 50, "valid": 10, "test": 0},
    }
    assert data.vocabulary_file("day").read_text().split()[-1] == "2024-01-10"
    found = all_rows(data, ["time", "city", "day", "label"])
    days = [i // 6 for i in range(60)]
    order = sorted(range(60), key=lambda i: (days[i], i % 6 > 4, i))
    assert found["time"].tolist() == [1_704_067_200 + 86_400 * days[i] for i in order]
    assert found["label"].tolist() == [i % 2 for i in order]
    cities = data.vocabulary_file("city").read_text().split()
    assert [cities[j - 3] for j in found["city"].ravel()] == [f"c{i % 7 % 3}" for i in order]
    assert manifest["counts"]["unmatched_users"] == 0


CLOCKS = {
    "ISO 8601": ("{:%Y-%m-%dT%H:%M:%SZ}", {}),
    "text": ("{:%d/%m/%Y %H.%M.%S}", {"format": "%d/%m/%Y %H.%M.%S"}),
    "digits": ("{:%y%m%d%H}", {"format": "%y%m%d%H"}),
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_dates_in_text_are_read_and_told(tmp_path, capsys, clock):
    form, time = CLOCKS[clock]
    start = datetime.datetime(2014, 10, 21)
    moments = [start + datetime.timedelta(hours=i) for i in range(40)]
    lines = [f"{i % 4 == 0:d},{form.format(when)},x" for i, when in enumerate(moments)]
    (tmp_path / "log.csv").write_text("\n".join(["click,time,a", *lines]))
    made = config(tmp_path, time={"column": "time"} | time, split={"by": "global_time"})
    stage = PrepareStage(made, tmp_path / "data")
    stage.make(Console(width=200))
    told = capsys.readouterr().out
    assert "train: 32 rows, 2014-10-21 00:00 to 2014-10-22 07:00, 25.00% clicks" in told
    assert "test: 4 rows, 2014-10-22 12:00 to 2014-10-22 15:00, 25.00% clicks" in told
    found = all_rows(Dataset.open(tmp_path / "data"), ["time"])["time"]
    assert found[0] == 1_413_849_600
    assert (np.diff(found) == 3600).all()


def test_integers_that_are_no_dates_are_refused_with_what_to_write(tmp_path):
    lines = [f"{i % 2},{14102100 + i // 2},x" for i in range(40)]
    (tmp_path / "log.csv").write_text("\n".join(["click,time,a", *lines]))
    with pytest.raises(DataError) as error:
        prepare(config(tmp_path), str(tmp_path / "data"))
    assert (
        'time: in s it would be of 1970; write time.format: "%y%m%d%H" (40); the first: log.csv, '
        'row 0: {"click": "0", "time": "14102100", "a": "x"}. They are in'
    ) in str(error.value)


def test_booleans_and_whole_floats_are_the_same_tokens_from_any_format(tmp_path):
    rows = [
        {
            "click": i % 3 == 0,
            "time": 1_600_000_000 + i,
            "member": None if i % 7 == 0 else i % 2 == 0,
            "stars": None if i % 5 == 0 else float(i % 4) + (i % 4 == 1) / 2,
            "seen": [float(i % 3), 7.0],
        }
        for i in range(60)
    ]
    features = [
        categorical("member", "user"),
        categorical("stars"),
        {"name": "seen", "kind": "sequence", "side": "user", "max_length": 2},
        {"name": "score", "kind": "numeric", "side": "item", "column": "member"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "log.jsonl").write_text(lines)
    with (tmp_path / "log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {"seen": "|".join(map(str, row["seen"]))})
    found = {}
    for suffix in ("parquet", "jsonl", "csv"):
        source = {"format": suffix, "events": f"log.{suffix}"}
        made = config(tmp_path, source=source, features=features)
        manifest = prepare(made, str(tmp_path / suffix))
        assert manifest["counts"]["bad"] == 0
        found[suffix] = shards_and_vocabularies(tmp_path / suffix)
    assert found["csv"]["vocabularies/member.txt"].split() == [b"0", b"1"]
    assert sorted(found["csv"]["vocabularies/stars.txt"].split()) == [b"0", b"1.5", b"2", b"3"]
    assert found["csv"] == found["jsonl"] == found["parquet"]


def test_numbers_that_are_not_finite_are_missing_and_told_and_outliers_too(tmp_path):
    texts = {3: "inf", 7: "1e400", 11: "-3.5e38", 20: "3e38", 25: "nan"}
    lines = [f"{i % 2},{i},x,{texts.get(i, 5 + i % 9)}" for i in range(300)]
    (tmp_path / "log.csv").write_text("\n".join(["click,time,a,price", *lines]))
    price = {"name": "price", "kind": "numeric", "side": "item"}
    made = config(tmp_path, features=[categorical("a"), price], split={"by": "global_time"})
    manifest = prepare(made, str(tmp_path / "data"))
    assert manifest["counts"] == {"bad": 0, "dropped": 0, "not_finite_price": 3, "read": 300}
    found = all_rows(Dataset.open(tmp_path / "data"), ["price"])["price"]
    assert np.flatnonzero(np.isnan(found)).tolist() == [3, 7, 11, 25]
    assert found[20] == np.float32(3e38)
    infinite, flattened = warnings(manifest)
    assert infinite.startswith("feature 'price': 3 values are infinite or do not fit a float32")
    assert "'price': numbers as far out as 3e+38 in row 20 of the log (1 of the t" in flattened
    assert "90% of the rows, from 5 to 13, are nearly one value; write transform" in flattened


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_times_may_be_timestamps(tmp_path, unit):
    moments = pa.array(range(1_600_000_000, 1_600_000_060)).cast(pa.timestamp("s"))
    table = TABLE.set_column(1, "time", moments.cast(pa.timestamp("us", "UTC")))
    pq.write_table(table, tmp_path / "log.parquet")
    source = {"format": "parquet", "events": "log.parquet"}
    time = {"column": "time", "unit": unit}
    made = config(tmp_path, source=source, features=[categorical("city")], time=time)
    prepare(made, str(tmp_path / "data"))
    scale = {"s": 1, "ms": 10**3, "us": 10**6}[unit]
    found = all_rows(Dataset.open(tmp_path / "data"), ["time"])["time"]
    assert found.tolist() == [second * scale for second in range(1_600_000_000, 1_600_000_060)]


# --- bad rows -------------------------------------------------------------------------------------

FIELDS = ["click", "time", "user", "item", "price", "tags", "title"]
MANGLED_FEATURES = [
    categorical("user", "user", dtype="int"),
    categorical("item", "item"),
    {"name": "price", "kind": "numeric", "side": "item"},
    {
        "name": "tags",
        "kind": "sequence",
        "side": "item",
        "dtype": "int",
        "max_length": 3,
    },
    {"name": "title", "kind": "text", "side": "item"},
]


def good_line(i, rng):
    title = rng.choice([f"title {i}", f'"title, ""{i}"""', f'12" title {i}', f"tïtle\x00 {i}"])
    price = rng.choice(["", "nan", f"{i}.5", f"-{i}e-2", f" {i}", "+1"])
    tags = rng.choice(["", "1", "1|2|3|4", "|5|"])
    user = rng.choice([f"{i % 97}", f"+{i % 97}", f"00{i % 97}", f"{i % 97}.0"])
    return f"{i % 2},{1000 + i},{user},i{i % 53},{price},{tags},{title}".encode()


def replaced(place, values):
    def mangle(line, rng):
        cells = line.split(b",", 6)
        cells[place] = rng.choice(values)
        return b",".join(cells)

    return mangle


MANGLERS = [
    lambda line, rng: b",".join(line.split(b",", 6)[: rng.randint(1, 6)]),  # short
    lambda line, rng: line + b"," * rng.randint(1, 3),  # long
    lambda line, rng: b"",
    lambda line, rng: b" ",
    lambda line, rng: line.replace(b",", b'"', 3),
    lambda line, rng: b'"' + line,
    lambda line, rng: b'"0"x,' + line.partition(b",")[2],
    lambda line, rng: line.replace(b",", b"\r,", 1),
    lambda line, rng: line.replace(b",", b"\x00"),
    lambda line, rng: rng.randbytes(rng.randint(1, 40)).translate(None, b"\n"),
    replaced(0, [b"2", b"", b"yes", b"-1", b"nan", b"0.5", b"\xff"]),
    replaced(1, [b"", b"soon", b"-5", b"99999999999", b"1e9s", b"9" * 30, b"0x10"]),
    replaced(2, [b"", b"u7", b"1.5", b"9" * 30, b"1e3", b"0x1F", b"\xc3", b"--1"]),
    replaced(3, [b"\xff", b"i\xed\xa0\x80", b""]),
    replaced(4, [b"1e", b"--1", b"info", b"1_5", b"cheap", b"1.2.3"]),
    replaced(5, [b"a", b"1|b", b"1|\xff", b"9" * 30, b"1.5|2"]),
    replaced(6, [b"\xfe\xff", b"caf\xe9", b'"open', b'"a"b']),
]


@pytest.fixture(scope="module")
def mangled(tmp_path_factory):
    """A CSV with 10,000 of 20,000 rows mangled: its config, its lines, the bad ones' numbers."""
    folder, rng = tmp_path_factory.mktemp("mangled"), random.Random(0)
    lines = [good_line(i, rng) for i in range(20_000)]
    bad = sorted(rng.sample(range(20_000), 10_000))
    for n, i in enumerate(bad):
        lines[i] = MANGLERS[n % len(MANGLERS)](lines[i], rng)
    (folder / "log.csv").write_bytes(b"\n".join([",".join(FIELDS).encode(), *lines, b""]))
    made = config(
        folder,
        user="user",
        item="item",
        features=MANGLED_FEATURES,
        max_bad_share=0.5,
        split={"by": "global_time"},
    )
    return made, lines, bad


def check_mangled(folder, lines, bad):
    data = Dataset.open(folder)
    counts = data.manifest["counts"]
    assert (counts["read"], counts["bad"], counts["dropped"]) == (20_000, 10_000, 0)
    assert sum(data.num_rows(split) for split in EXAMPLES) == 10_000
    letters = dead_letters(Path(folder) / "dead_letters")
    assert sorted(row for _, row in letters) == bad
    assert all(letters.values())
    assert sum(data.manifest["bad_reasons"].values()) == 10_000
    names = ["title", "label", "time", "price", "user_key"]
    rows = all_rows(data, names)
    assert rows["row_id"].tolist() == sorted(set(range(20_000)) - set(bad))
    for n, i in enumerate(rows["row_id"]):
        cells = next(csv.reader([lines[i].decode()]))
        assert rows["title"][n] == cells[6].encode()
        assert rows["label"][n] == i % 2
        assert rows["time"][n] == 1000 + i
        assert rows["user_key"][n] == i % 97
        np.testing.assert_equal(rows["price"][n], np.float32(cells[4] or "nan"))
    return letters


def test_of_mangled_rows_every_good_one_is_kept_and_every_bad_one_set_aside(
    mangled, tmp_path, monkeypatch
):
    made, lines, bad = mangled
    prepare(made, str(tmp_path / "whole"))
    letters = check_mangled(tmp_path / "whole", lines, bad)
    reasons = " ".join(set(letters.values()))
    for part in (
        "empty line",
        "values where 7 columns are",
        "a quote is not closed",
        "quotes:",
        "a carriage return inside the line",
        "click: the label must be 0 or 1; label.positive_above makes clicks of stars or counts",
        "time: not a time in s between 1970 and 2100, nor one in ISO 8601",
        "user: not a 64-bit integer",
        "user: missing",
        "item: not UTF-8 text without line breaks",
        "price: not a number",
        "tags: not a 64-bit integer",
        "title: not UTF-8 text",
    ):
        assert part in reasons
    monkeypatch.setattr(readers, "MIN_PIECE", 30_000)
    prepare(made, str(tmp_path / "pieces"))
    assert len(list((tmp_path / "pieces" / "train").iterdir())) > 10
    assert check_mangled(tmp_path / "pieces", lines, bad) == letters
    whole, pieces = (Dataset.open(tmp_path / name).manifest for name in ("whole", "pieces"))
    for key in ("counts", "bad_reasons", "cuts", "vocabularies", "schema"):
        assert whole[key] == pieces[key], key


def test_too_many_bad_rows_stop_the_run_and_leave_the_earlier_dataset(mangled, tmp_path):
    made, _, bad = mangled
    output = tmp_path / "data"
    (tmp_path / "log.csv").write_text("click,time,a\n" + "".join(f"1,{i},x\n" for i in range(50)))
    prepare(config(tmp_path), str(output))
    before = content_of(output)
    strict = made.model_copy(update={"max_bad_share": 0.4999})
    with pytest.raises(DataError, match=r"10,000 of 20,000 rows of the events are bad") as error:
        prepare(strict, str(output))
    assert f"{output}.dead_letters" in str(error.value)
    assert "\n" not in str(error.value)
    assert content_of(output) == before
    kept = dead_letters(tmp_path / "data.dead_letters")
    assert sorted(row for _, row in kept) == bad
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data",
        "data.dead_letters",
        "log.csv",
    ]
    prepare(config(tmp_path), str(output))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "log.csv"]


def test_a_table_with_too_many_bad_rows_stops_the_run(tmp_path):
    for name, text in (("log.csv", EVENTS), ("users.csv", USERS), ("items.csv", ITEMS)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"2 of 5 rows of the users are bad"):
        prepare(config(tmp_path, **BY_HAND | {"max_bad_share": 0.3}), str(tmp_path / "data"))


# --- the same whatever runs it --------------------------------------------------------------------

WORLD = {
    "source": {"format": "world", "users": 100, "items": 60, "events": 3_000, "extra_fields": 1},
    "time": {"column": "timestamp"},
    "user": "user_id",
    "split": {"by": "user_time"},
    "compression": "gzip",
    "features": [
        categorical("user_id", "user", dtype="int"),
        categorical("device"),
        {"name": "price", "kind": "numeric", "side": "item", "transform": "bucketize"},
        {"name": "account_age_days", "kind": "numeric", "side": "user"},
        {"name": "tags", "kind": "multi_valued", "side": "item", "max_length": 3},
        {"name": "title", "kind": "text", "side": "item"},
    ],
}
CSV_WITH_PIECES = {
    "events": "log-*.csv",
    "features": [
        categorical("a"),
        categorical("b", dtype="int"),
        {"name": "n", "kind": "numeric", "side": "context", "transform": "bucketize"},
    ],
}
RUNNERS = {
    "threads": ["--direct_running_mode=multi_threading", "--direct_num_workers=2"],
    "processes": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
    "the older runner": ["--runner=BundleBasedDirectRunner"],
}


def write_parts(folder):
    rng = random.Random(1)
    for part in range(5):
        rows = "".join(
            f"{rng.randint(0, 1)},{rng.randint(0, 99)},{rng.choice('xyz')},{rng.choice('12x')},"
            f"{rng.random()}\n"
            for _ in range(100)
        )
        (folder / f"log-{part}.csv").write_text("click,time,a,b,n\n" + rows)


@pytest.mark.parametrize("kind", few_quick(RUNNERS, "processes"))
def test_any_number_of_workers_gives_the_same_bytes(tmp_path, kind):
    write_parts(tmp_path)
    made = config(tmp_path, **CSV_WITH_PIECES, split={"by": "global_time"}, max_bad_share=0.5)
    prepare(made, str(tmp_path / "one"))
    prepare(made, str(tmp_path / "two"), RUNNERS[kind])
    assert len(list((tmp_path / "one" / "train").iterdir())) == 5
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def test_the_generated_world_is_the_same_on_two_runners(tmp_path):
    prepare(config(tmp_path, **WORLD), str(tmp_path / "one"))
    prepare(config(tmp_path, **WORLD), str(tmp_path / "two"), RUNNERS["the older runner"])
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")
    data = Dataset.open(tmp_path / "one")
    assert sum(data.num_rows(split) for split in EXAMPLES) == 3_000
    rows = all_rows(data, ["user_key", "time", "label", "price"])
    events = World(num_users=100, num_items=60, num_events=3_000, extra_fields=1).events(0, 3_000)
    np.testing.assert_array_equal(rows["user_key"], events["user_id"].to_numpy())
    np.testing.assert_array_equal(rows["time"], events["timestamp"].to_numpy())
    np.testing.assert_array_equal(rows["label"], events["click"].to_numpy())
    prices = World(num_users=100, num_items=60).items()["price"].to_numpy()
    np.testing.assert_array_equal(
        rows["price"], np.float32(prices)[events["item_id"].to_numpy() - 1]
    )


def test_a_piece_that_is_tried_again_changes_nothing(tmp_path):
    write_parts(tmp_path)
    made = config(tmp_path, **CSV_WITH_PIECES)
    clean = Clean(made, str(tmp_path / "out"))
    (piece, *_) = clean.pieces
    clean_piece = _CleanPiece(clean.cleaner, clean.folder)
    (staged,) = clean_piece.process((piece, 0))
    split_path = f"{tmp_path}/out/staged/0.split"
    Path(split_path).write_bytes(bytes(staged.rows))
    (tmp_path / "out" / "vocabularies").mkdir()
    (tmp_path / "out" / "vocabularies" / "a.txt").write_text("x\ny\n")
    (tmp_path / "out" / "vocabularies" / "b.txt").write_text("1\n")
    encoder = shards.Encoder(made.feature_schema, None, clean.folder)
    split = SplitPiece(**vars(staged), split_path=split_path)
    first = list(shards._write_piece(split, encoder, "none"))
    before = content_of(tmp_path)
    assert list(clean_piece.process((piece, 0))) == [staged]
    assert list(shards._write_piece(split, encoder, "none")) == first
    assert content_of(tmp_path) == before


# --- labels ---------------------------------------------------------------------------------------


def test_labels_of_zero_and_one_in_every_spelling(tmp_path):
    lines = [
        f'{{"click": {value}, "time": {i}, "a": "x"}}'
        for i, value in enumerate(
            ["true", "false", "1", "0", "1.0", '"0"', "2", "null", '"true"', "0.5"]
        )
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    made = config(
        tmp_path,
        source={"format": "jsonl", "events": "log.jsonl"},
        max_bad_share=0.4,
        split={"by": "random", "valid": 0, "test": 0},
    )
    prepare(made, str(tmp_path / "data"))
    rows = all_rows(Dataset.open(tmp_path / "data"), ["label"])
    assert rows["row_id"].tolist() == [0, 1, 2, 3, 4, 5, 8]
    assert rows["label"].tolist() == [1, 0, 1, 0, 1, 0, 1]


# --- errors ---------------------------------------------------------------------------------------

LOG = "click,time,a\n" + "".join(f"{i % 2},{i},x\n" for i in range(40))


BY_TIME = {"split": {"by": "global_time"}}
NUMBER = {"features": [{"name": "a", "kind": "numeric", "side": "item"}]}
UNUSABLE = {
    "an unknown column": (
        LOG,
        {"features": [categorical("b")]},
        ConfigError,
        "'b', which is in no table; columns of events: click, time, a",
    ),
    "a column with blanks and capitals": (
        LOG.replace("a\n", " City\n", 1),
        {"features": [categorical("city")]},
        ConfigError,
        r"'city', which is in no table \(did you mean ' City'\?\); columns of events: click, ",
    ),
    "an unknown label": (
        LOG,
        {"label": {"column": "liked"}},
        ConfigError,
        "label: found 'liked'; columns of the events: click, time, a",
    ),
    "an unknown time": (LOG, {"time": {"column": "at"}}, ConfigError, "time: found 'at'; columns"),
    "a reserved name": (
        LOG,
        {"features": [categorical("label", column="a")]},
        ConfigError,
        "'label' is taken",
    ),
    "no frequent token": (
        LOG,
        {"features": [categorical("a", min_count=99)]},
        DataError,
        "'a': none of its 1 values .* min_count = 99",
    ),
    "no token": (LOG.replace("x", ""), {}, DataError, "'a': none of its 0 values"),
    "no number": (LOG.replace("x", ""), NUMBER, DataError, "'a' has no value in the training rows"),
    "no rows": ("click,time,a\n", {}, DataError, "the source has no rows"),
    "an empty file": ("", {}, ConfigError, r"log\.csv: empty$"),
    "no validation rows": (
        "click,time,a\n" + "".join(f"1,{min(i, 30)},x\n" for i in range(40)),
        BY_TIME,
        DataError,
        "no row falls into valid; 40 rows are too few",
    ),
    "one time": ("click,time,a\n" + "1,5,x\n" * 9, BY_TIME, DataError, "no row falls into train"),
    "only bad rows": (
        "click,time,a\n" + "?,?,?\n" * 9,
        {},
        DataError,
        "9 of 9 rows of the events are bad",
    ),
    "no file": (
        LOG,
        {"source": {"format": "csv", "events": "other.csv"}},
        ConfigError,
        "no file 'other.csv'",
    ),
}


@pytest.mark.parametrize(
    ("log", "more", "error", "message"), UNUSABLE.values(), ids=UNUSABLE.keys()
)
def test_what_cannot_be_prepared_is_one_clear_line(tmp_path, log, more, error, message):
    (tmp_path / "log.csv").write_text(log)
    with pytest.raises(error, match=message) as found:
        prepare(config(tmp_path, **more), str(tmp_path / "data"))
    assert "\n" not in str(found.value)
    left = {path.name for path in tmp_path.iterdir()} - {"data.dead_letters"}
    assert left == {"log.csv"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNNERS)
def test_an_error_on_a_worker_is_one_clear_line_too(tmp_path, kind):
    lines = "".join(f"u{i},1,{i}\n" for i in range(999))
    packed = gzip.compress(f"user,click,time\n{lines}".encode())
    (tmp_path / "log.csv.gz").write_bytes(packed[:-20])
    source = {"format": "csv", "events": "log.csv.gz"}
    made = config(tmp_path, source=source, features=[categorical("user")])
    with pytest.raises(ConfigError) as error:
        prepare(made, str(tmp_path / "data"), RUNNERS[kind])
    assert str(error.value) == (
        f"test: {tmp_path}/log.csv.gz: damaged or cut off: Compressed file ended before the "
        "end-of-stream marker was reached; copy it again"
    )
    assert not list(tmp_path.glob("data*"))


CITIES = [["Oslo", "Zürich", None][i % 3] for i in range(60)]
IDS = [i % 7 for i in range(60)]
OTHER_TYPES = {
    # The column in one file and in a later one, and the error.
    "a timestamp": (
        pa.array(CITIES),
        pa.array(range(60)).cast(pa.timestamp("ms")),
        "reads column 'city' of type timestamp[ms]; strings or integers are needed: store what "
        "matters of it so, as its hour or weekday",
    ),
    "a list": (
        pa.array(CITIES),
        pa.array([[city] for city in CITIES]),
        "reads column 'city' of type list<item: string>; strings or integers are needed: kinds "
        "of features for lists are multi_valued and sequence",
    ),
    "doubles": (
        pa.array(IDS),
        pa.array(IDS, pa.float64()),
        "column 'city' is of type double, but int64 in {first}; declare dtype: int for integers, "
        "or store one type in all files",
    ),
    "text": (
        pa.array(IDS),
        pa.array([str(i) for i in IDS]),
        "column 'city' is of type string, but int64 in {first}; declare dtype: int for integers, "
        "or store one type in all files",
    ),
}


def logs_of_two_types(tmp_path, first, second, **more):
    for i, column in enumerate((first, second), 1):
        pq.write_table(TABLE.set_column(3, "city", column), tmp_path / f"log-{i}.parquet")
    source = {"format": "parquet", "events": "log-*.parquet"}
    return config(tmp_path, source=source, features=[categorical("city", **more)])


@pytest.mark.parametrize("other", OTHER_TYPES)
def test_types_of_all_files_are_checked_before_any_is_read(tmp_path, monkeypatch, other):
    first, second, message = OTHER_TYPES[other]
    monkeypatch.setattr(readers.ParquetReader, "read", lambda *_: pytest.fail("rows were read"))
    with pytest.raises(ConfigError) as error:
        prepare(logs_of_two_types(tmp_path, first, second), str(tmp_path / "data"))
    message = message.format(first=f"{tmp_path}/log-1.parquet")
    assert str(error.value) == f"{tmp_path}/log-2.parquet: features: 'city': {message}"


def test_columns_that_a_later_file_lacks_or_has_twice_are_named_before_any_is_read(tmp_path):
    made = logs_of_two_types(tmp_path, pa.array(IDS), pa.array(IDS))
    pq.write_table(TABLE.drop_columns(["time"]), tmp_path / "log-2.parquet")
    with pytest.raises(ConfigError, match=r"^\S*log-2\.parquet: no column 'time'; columns: click"):
        Clean(made, str(tmp_path))
    pq.write_table(TABLE.append_column("city", pa.array(IDS)), tmp_path / "log-2.parquet")
    with pytest.raises(ConfigError, match=r"^\S*log-2\.parquet: two columns are named 'city'"):
        Clean(made, str(tmp_path))


@pytest.mark.parametrize(
    ("first", "second", "more"),
    [
        (pa.array(IDS), pa.array(IDS, pa.float64()), {"dtype": "int"}),
        (pa.array(IDS, pa.uint8()), pa.array(IDS), {}),
        (pa.array(CITIES), pa.array([None] * 60, pa.float64()), {}),  # as pandas writes it
        (pa.array([float("nan")] * 60), pa.array(CITIES), {}),
        (pa.array([None] * 60), pa.array(CITIES).dictionary_encode(), {}),
    ],
)
def test_columns_of_two_types_with_one_meaning_are_read(tmp_path, first, second, more):
    made = logs_of_two_types(tmp_path, first, second, **more)
    cleaner = Clean(made, str(tmp_path)).cleaner
    tables = [cleaner.clean(piece)[0] for piece in cleaner.source.events.pieces()]
    found = [value for table in tables for value in table["city"].to_pylist()]
    as_token = int if more else str
    expected = [*first.to_pylist(), *second.to_pylist()]
    assert found == [None if v is None or v != v else as_token(v) for v in expected]


def test_a_part_of_parquet_that_is_damaged_is_named(tmp_path):
    pq.write_table(TABLE, tmp_path / "log.parquet", compression="none", use_dictionary=False)
    content = bytearray((tmp_path / "log.parquet").read_bytes())
    content[4:400] = b"\xff" * 396
    (tmp_path / "log.parquet").write_bytes(content)
    source = {"format": "parquet", "events": "log.parquet"}
    reader = Clean(config(tmp_path, source=source, features=[categorical("city")]), "").cleaner
    (piece,) = reader.source.events.pieces()
    with pytest.raises(ConfigError, match=r"log\.parquet: row group 0 is damaged, or Arrow cannot"):
        reader.clean(piece)


@pytest.mark.parametrize(("key", "column"), [("label", "city"), ("time", "price")])
def test_a_label_or_time_of_a_wrong_type_is_named(tmp_path, key, column):
    table = TABLE.set_column(3, "city", pa.array(range(60)).cast(pa.timestamp("s")))
    table = table.set_column(4, "price", pa.array([[1.0]] * 60))
    pq.write_table(table, tmp_path / "log.parquet")
    source = {"format": "parquet", "events": "log.parquet"}
    made = config(
        tmp_path, source=source, features=FORMAT_FEATURES[-1:], **{key: {"column": column}}
    )
    with pytest.raises(ConfigError, match=f"{key}: reads column '{column}' of type"):
        prepare(made, str(tmp_path / "data"))


def test_a_table_of_users_without_a_good_row_is_an_error(tmp_path):
    for name, text in (("log.csv", EVENTS), ("users.csv", USERS), ("items.csv", ITEMS)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "users.csv").write_text("user,city,age\n,Oslo,3\n")
    with pytest.raises(ConfigError, match=r"source\.users: .* no good row; .* user: missing"):
        prepare(config(tmp_path, **BY_HAND), str(tmp_path / "data"))


def test_the_command_prints_one_line_and_ends_with_one(tmp_path, capsys):
    (tmp_path / "log.csv").write_text(LOG)
    lines = [
        "name: test",
        "source: {format: csv, events: log.csv}",
        "label: {column: click}",
        "time: {column: time}",
        "features: [{name: a, kind: categorical, side: item}]",
    ]
    (tmp_path / "data.yaml").write_text("\n".join(lines))
    arguments = ["--config", str(tmp_path / "data.yaml"), "--output", str(tmp_path / "data")]
    assert main(arguments) == 0
    assert "train: 32 rows" in capsys.readouterr().out
    (tmp_path / "log.csv").unlink()
    assert main(arguments) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert "no file 'log.csv'" in shown.err


# --- interruptions --------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("disk"), KeyboardInterrupt()])
def test_an_interrupted_run_leaves_the_earlier_dataset_and_nothing_else(
    tmp_path, monkeypatch, error
):
    (tmp_path / "log.csv").write_text(LOG)
    output = tmp_path / "data"
    prepare(config(tmp_path), str(output))
    before = content_of(tmp_path)

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(job, "_publish", fail)
        with pytest.raises(type(error)):
            prepare(config(tmp_path), str(output))
    assert content_of(tmp_path) == before
    if isinstance(error, RuntimeError):
        monkeypatch.setattr(shards, "encode", fail)  # on a worker
        with pytest.raises(RuntimeError, match="disk"):
            prepare(config(tmp_path), str(output))
        assert content_of(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "log.csv"]


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    (tmp_path / "log.csv").write_text(LOG)
    prepare(config(tmp_path), str(tmp_path / "data"))
    for name in ("data.tmp-0123abcd", "data.tmp-0123abcd.old", "data2.tmp-0123abcd"):
        (tmp_path / name / "staged").mkdir(parents=True)
    prepare(config(tmp_path), str(tmp_path / "data"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data",
        "data2.tmp-0123abcd",
        "log.csv",
    ]


def test_a_dataset_that_was_being_replaced_when_the_run_was_killed_comes_back(tmp_path):
    (tmp_path / "log.csv").write_text(LOG)
    prepare(config(tmp_path), str(tmp_path / "data"))
    before = content_of(tmp_path / "data")
    shutil.move(tmp_path / "data", tmp_path / "data.tmp-0123abcd.old")
    with pytest.raises(ConfigError):
        prepare(config(tmp_path, features=[categorical("b")]), str(tmp_path / "data"))
    assert content_of(tmp_path / "data") == before


def test_a_folder_that_is_no_dataset_is_not_replaced(tmp_path):
    (tmp_path / "log.csv").write_text(LOG)
    with pytest.raises(DataError, match="is not a dataset"):
        prepare(config(tmp_path), str(tmp_path))
    assert content_of(tmp_path) == {"log.csv": LOG.encode()}
    (tmp_path / "empty").mkdir()
    prepare(config(tmp_path), str(tmp_path / "empty"))
    assert Dataset.open(tmp_path / "empty").num_rows("train")


# --- what a worker needs --------------------------------------------------------------------------


def test_preparing_takes_no_tensorflow():
    code = (
        "import sys, beam_pipelines.prepare; "
        "print([name for name in sys.modules if name in ('tensorflow', 'keras', 'sklearn')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""  # none of Beam's warnings either


# --- real data ------------------------------------------------------------------------------------


def real(name):
    home = os.environ.get("TFCTR_DATA_HOME")
    if not home or not (Path(home) / name).exists():
        pytest.skip(f"needs {name} in the folder that TFCTR_DATA_HOME names")


@pytest.mark.slow
def test_movielens_1m_under_the_protocol_of_the_papers(tmp_path):
    real("ml-1m.zip")
    folder = Path(__file__).parents[2] / "configs" / "movielens-1m"
    manifest = prepare(load_data(folder / "data.yaml"), str(tmp_path / "data"))
    splits = manifest["splits"]
    assert [splits[split]["rows"] for split in EXAMPLES] == [591_209, 73_901, 73_902]
    assert manifest["counts"] == {
        "read": 1_000_209,
        "bad": 0,
        "dropped": 261_197,
        "unmatched_users": 0,
        "unmatched_items": 0,
    }
    assert splits["test"]["features"]["user_id"]["unknown"] == 15_926
    data = Dataset.open(tmp_path / "data")
    test = data.columns("test", ["user_id", "time", "user_key"])
    train = data.columns("train", ["user_id", "time", "user_key"])
    assert train["time"].max() < test["time"].min()
    assert (~np.isin(test["user_key"], train["user_key"])).sum() == 15_926
    assert (test["user_id"] == 1).sum() == 15_926
    assert (train["user_id"] >= 3).all()


def test_movielens_100k(tmp_path):
    real("ml-100k.zip")
    made = config(
        tmp_path,
        source={"format": "movielens", "path": "ml-100k.zip"},
        label={"column": "rating", "positive_above": 3, "drop": [3]},
        time={"column": "timestamp"},
        features=[
            categorical("user_id", "user", dtype="int"),
            categorical("movie_id", "item", dtype="int"),
            {"name": "age", "kind": "numeric", "side": "user"},
            {"name": "genres", "kind": "multi_valued", "side": "item", "max_length": 6},
        ],
    )
    manifest = prepare(made, str(tmp_path / "data"))
    assert sum(split["rows"] for split in manifest["splits"].values()) == 72_855
    assert manifest["counts"]["bad"] == manifest["counts"]["unmatched_items"] == 0
    assert manifest["vocabularies"]["genres"]["tokens"] == 19
