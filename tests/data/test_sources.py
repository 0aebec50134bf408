import gzip
import os
import zipfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfctr.config import ConfigError, DataConfig
from tfctr.data import files, readers
from tfctr.data.delimited import Delimited
from tfctr.data.readers import JsonLinesReader, ParquetReader, byte_ranges
from tfctr.data.sources import open_source
from tfctr.data.world import World


def config(directory, source, features=("user_id",), **more):
    return DataConfig(
        name="test",
        source=source,
        label={"column": "click"},
        time={"column": "time"},
        features=[
            {"name": name, "kind": "categorical", "side": "user"} if isinstance(name, str) else name
            for name in features
        ],
        directory=str(directory),
        **more,
    )


def whole(reader, wanted):
    """All rows of all pieces as lists of values, and the bad ones' (row, reason)."""
    good, bad, first = [], [], 0
    for piece in reader.pieces():
        rows = reader.read(piece, wanted)
        columns = [rows.table[name].to_pylist() for name in wanted]
        good += zip((rows.numbers + first).tolist(), *columns, strict=True)
        bad += [(first + number, why) for number, why, _ in rows.bad]
        first += reader.count(piece)
    return good, bad


# --- JSON Lines -----------------------------------------------------------------------------------

JSON_LINES = (
    rb"""{"a": 1, "b": "x"}
{"b": "\u00e9", "a": true, "more": [1, 2]}

not json
[1, 2]
{"a": 1.0, "b": 2.5}
{"a": null}
{"a": {"x": 1}, "b": "y"}
{"a": [1], "b": "y"}
{"a": 1e400, "b": "\ud800"}
"""
    + b'{"a": "\xff"}\n{"a": 1'
    + b"0" * 5000
    + b'}\n{"a": 12345678901234567890123, "b": ""}'
)


def test_json_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(JSON_LINES)
    reader = JsonLinesReader((str(path),))
    assert reader.names() == ("a", "b", "more")
    good, bad = whole(reader, ["a", "b"])
    assert good == [
        (0, b"1", b"x"),
        (1, b"1", "é".encode()),
        (5, b"1", b"2.5"),
        (6, None, None),
        (9, b"inf", b"\xed\xa0\x80"),
        (12, b"12345678901234567890123", b""),
    ]
    reasons = dict(bad)
    assert sorted(reasons) == [2, 3, 4, 7, 8, 10, 11]
    assert reasons[2] == "empty line"
    assert reasons[3] == "not JSON: Expecting value at column 1"
    assert reasons[4] == "a JSON list where an object is needed"
    assert reasons[7] == "a: an object where a single value is needed"
    assert reasons[8] == "a: a list where a single value is needed"
    assert reasons[10] == "not UTF-8 text"
    assert "4300 digits" in reasons[11]


def test_a_json_column_of_several_values_may_mix_texts_and_lists(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"a": "x|y"}\n{"a": ["x|y", null, 3]}\n{"a": null}\n{"a": 7}\n{"a": [[1]]}'
    )
    reader = JsonLinesReader((str(path),), {"a": "|"})
    assert reader.names() == ("a",)
    good, bad = whole(reader, ["a"])
    assert [values for _, values in good] == [[b"x", b"y"], [b"x|y", None, b"3"], [None], [b"7"]]
    assert bad == [(4, "a: a list where a single value is needed")]


def test_deeply_nested_json_is_a_bad_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"[" * 100_000 + b'\n{"a": 1}\n')
    good, bad = whole(JsonLinesReader((str(path),)), ["a"])
    assert good == [(1, b"1")]
    assert bad == [(0, "not JSON: nested too deep")]


# --- Parquet --------------------------------------------------------------------------------------


def test_parquet_in_row_groups_of_several_files(tmp_path):
    table = pa.table({"a": [1, 2, 3, 4, 5], "b": pa.array(list("xyxyx")).dictionary_encode()})
    for name, part in (("1.parquet", table[:3]), ("2.parquet", table[3:])):
        pq.write_table(part, tmp_path / name, row_group_size=2)
    reader = ParquetReader(tuple(files.matching(f"{tmp_path}/*.parquet")))
    assert reader.names() == ("a", "b")
    assert [(piece.index, reader.count(piece)) for piece in reader.pieces()] == [
        (0, 2),
        (1, 1),
        (2, 2),
    ]
    good, bad = whole(reader, ["b", "a"])
    assert good == [(i, "xyxyx"[i], i + 1) for i in range(5)]
    assert bad == []


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (pa.string_view(), pa.string()),
        (pa.binary_view(), pa.binary()),
        (pa.list_(pa.string_view()), pa.list_(pa.string())),
        (pa.large_list(pa.string_view()), pa.large_list(pa.string())),
    ],
)
def test_views_are_read_as_what_they_view(tmp_path, written, read):
    plain = [["a", "b"], None, []] if "list" in str(written) else ["a", None, "b"]
    values = pa.array(plain, read)
    pq.write_table(pa.table({"a": pa.array(plain, written)}), tmp_path / "log.parquet")
    reader = ParquetReader((str(tmp_path / "log.parquet"),))
    (piece,) = reader.pieces()
    found = reader.read(piece, ["a"]).table["a"]
    assert found.type == read
    assert found.to_pylist() == values.to_pylist()


def test_a_file_that_is_not_parquet_is_named(tmp_path):
    (tmp_path / "log.parquet").write_bytes(b"a,b\n1,2\n")
    with pytest.raises(ConfigError, match=r"log\.parquet: not Parquet"):
        ParquetReader((str(tmp_path / "log.parquet"),)).names()


def test_a_column_that_a_later_file_lacks_is_named(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"b": [1]}), tmp_path / "2.parquet")
    reader = ParquetReader((str(tmp_path / "1.parquet"), str(tmp_path / "2.parquet")))
    with pytest.raises(ConfigError, match=r"2\.parquet: no column 'a'; columns: b"):
        whole(reader, ["a"])


# --- pieces ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "logs.zip!inner/log.csv"])
def test_files_are_read_plain_packed_or_from_a_zip(tmp_path, name, monkeypatch):
    content = b"user_id,click,time\n" + b"".join(b"u%d,1,%d\n" % (i, i) for i in range(200))
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress(content))
    elif "!" in name:
        with zipfile.ZipFile(tmp_path / "logs.zip", "w") as archive:
            archive.writestr("inner/log.csv", content)
    else:
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(readers, "MIN_PIECE", 100)
    path = f"{tmp_path}/{name}"
    reader = readers.DelimitedReader((path,), Delimited())
    assert (len(reader.pieces()) == 1) == name.endswith(".gz")
    good, bad = whole(reader, ["time", "user_id"])
    assert good == [(i, b"%d" % i, b"u%d" % i) for i in range(200)]
    assert bad == []


def test_pieces_follow_from_the_files_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MIN_PIECE", 10)
    for name, size in (("a", 25), ("b", 0), ("c", 10)):
        (tmp_path / name).write_bytes(b"x" * size)
    found = byte_ranges([f"{tmp_path}/{name}" for name in "abc"])
    assert [(p.index, p.path[-1], p.start, p.stop) for p in found] == [
        (0, "a", 0, 10),
        (1, "a", 10, 20),
        (2, "a", 20, 25),
        (3, "c", 0, 10),
    ]


# --- what a config names --------------------------------------------------------------------------


def test_globs_read_all_their_files_in_order(tmp_path):
    for i in (2, 0, 1):
        (tmp_path / f"part-{i}.csv").write_text(f"user_id,click,time\nu{i},1,{i}\n")
    source = open_source(config(tmp_path, {"format": "csv", "events": "part-*.csv"}))
    good, _ = whole(source.events, ["user_id"])
    assert good == [(0, b"u0"), (1, b"u1"), (2, b"u2")]


def test_a_folder_of_parts_and_files_named_twice_are_read_once(tmp_path, monkeypatch):
    home = tmp_path / "home"
    for i in (1, 0):
        (home / "log" / f"h={i}").mkdir(parents=True)
        (home / "log" / f"h={i}" / "part-0").write_text(f"user_id,click,time\nu{i},1,{i}\n")
        (home / "log" / f"h={i}" / "_SUCCESS").touch()
    monkeypatch.setenv("TFCTR_DATA_HOME", str(home))  # looked into after the config's folder
    for events in ("log", "log/h=?/*", ["log/h=0", "log/**"], "log/h=[01]"):
        source = open_source(config(tmp_path, {"format": "csv", "events": events}))
        good, _ = whole(source.events, ["user_id"])
        assert good == [(0, b"u0"), (1, b"u1")]


def test_a_tilde_is_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "log.csv").write_text("user_id,click,time\nu0,1,0\n")
    source = open_source(config("elsewhere", {"format": "csv", "events": "~/log.csv"}))
    assert whole(source.events, ["user_id"])[0] == [(0, b"u0")]


def test_a_folder_without_data_files_is_named(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "_SUCCESS").touch()
    with pytest.raises(ConfigError, match=rf"source: no data file in {tmp_path}/log; files and"):
        open_source(config(tmp_path, {"format": "csv", "events": "log"}))
    with pytest.raises(ConfigError, match=rf"source: no data file matches file://{tmp_path}/log"):
        open_source(config(tmp_path, {"format": "csv", "events": f"file://{tmp_path}/log"}))


def test_files_of_one_log_must_have_the_same_header(tmp_path):
    (tmp_path / "1.csv").write_text("user_id,click\n")
    (tmp_path / "2.csv").write_text("click,user_id\n")
    source = open_source(config(tmp_path, {"format": "csv", "events": "*.csv"}))
    with pytest.raises(ConfigError, match=r"2\.csv: columns click, user_id differ"):
        source.events.pieces()


def test_a_missing_file_is_an_error_that_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("TFCTR_DATA_HOME", raising=False)
    for path in ("log.csv", "log-*.csv"):
        with pytest.raises(ConfigError, match="no file") as error:
            open_source(config(tmp_path, {"format": "csv", "events": path}))
        assert str(tmp_path / path) in str(error.value)


def test_a_table_without_its_key_is_an_error_that_lists_the_columns(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,click,time\n")
    (tmp_path / "users.csv").write_text("id,city\n")
    source = {
        "format": "csv",
        "events": "log.csv",
        "users": {"path": "users.csv", "key": "user_id"},
    }
    with pytest.raises(ConfigError, match=r"source\.users\.key: found 'user_id'.*: id, city"):
        open_source(config(tmp_path, source))


def test_the_fingerprint_changes_with_the_content_of_a_file(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user_id,click,time\n")
    source = config(tmp_path, {"format": "csv", "events": "log.csv"})
    before = open_source(source).fingerprint()
    os.utime(path, (1, 1))  # as a copy of it may be
    assert open_source(source).fingerprint() == before
    path.write_text("user_id,click,tame\n")
    os.utime(path, (1, 1))
    assert open_source(source).fingerprint() != before


def test_a_large_file_is_known_by_its_time_of_change(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "CHECKED", 10)
    path = tmp_path / "log.csv"
    path.write_text("user_id,click,time\n")
    source = config(tmp_path, {"format": "csv", "events": "log.csv"})
    before = open_source(source).fingerprint()
    assert open_source(source).fingerprint() == before
    os.utime(path, (1, 1))
    assert open_source(source).fingerprint() != before


def test_the_generated_world_and_one_of_its_domains(tmp_path):
    source = {"format": "world", "users": 50, "items": 40, "events": 500, "seed": 3}
    table = World(num_users=50, num_items=40, num_events=500, seed=3).events(0, 500)
    log = open_source(config(tmp_path, source))
    good, _ = whole(log.events, ["item_id", "click"])
    assert [row[1:] for row in good] == list(
        zip(table["item_id"].to_pylist(), table["click"].to_pylist(), strict=True)
    )
    assert {name: key for name, (_, key) in log.tables.items()} == {
        "users": "user_id",
        "items": "item_id",
    }
    ads, _ = whole(open_source(config(tmp_path, source | {"domain": "ads"})).events, ["domain"])
    assert ads == [(i, "ads") for i, d in enumerate(table["domain"].to_pylist()) if d == "ads"]


# --- MovieLens ------------------------------------------------------------------------------------


def movielens(name):
    home = os.environ.get("TFCTR_DATA_HOME")
    if not home or not (Path(home) / name).exists():
        pytest.skip(f"needs {name} in the folder that TFCTR_DATA_HOME names")
    return open_source(config(".", {"format": "movielens", "path": name}))


def column(reader, name):
    return [row[1] for row in whole(reader, [name])[0]]


def test_movielens_1m():
    source = movielens("ml-1m.zip")
    stars = Counter(column(source.events, "rating"))
    assert stars == {b"1": 56_174, b"2": 107_557, b"3": 261_197, b"4": 348_971, b"5": 226_310}
    assert len(column(source.tables["users"][0], "zip_code")) == 6_040
    movies, _ = whole(source.tables["items"][0], ["movie_id", "title", "genres", "release_year"])
    assert len(movies) == 3_883
    assert movies[0][1:] == (b"1", "Toy Story (1995)", b"Animation|Children's|Comedy", "1995")
    assert any("Misérables" in title for _, _, title, _, _ in movies)


def test_movielens_100k():
    source = movielens("ml-100k.zip")
    assert len(column(source.events, "rating")) == 100_000
    assert len(column(source.tables["users"][0], "occupation")) == 943
    movies, _ = whole(source.tables["items"][0], ["movie_id", "title", "genres", "release_year"])
    assert len(movies) == 1_682
    assert movies[0][1:] == (b"1", "Toy Story (1995)", "Animation|Children's|Comedy", "1995")
    assert any(genres == "unknown" for *_, genres, _ in movies)


def test_a_movielens_folder_is_read_like_its_zip(tmp_path):
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    (folder / "ratings.dat").write_bytes(b"1::10::5::978300760\n2::10::3::978300761\n")
    (folder / "users.dat").write_bytes(b"1::F::1::10::48067\n2::M::56::16::70072\n")
    (folder / "movies.dat").write_bytes("10::Café (1995)::Drama|Comedy\n".encode("latin-1"))
    expected = [(0, b"1", b"5"), (1, b"2", b"3")]
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"ml-1m/{file.name}")
    for path in (".", "ml-1m", "ml-1m.zip"):
        source = open_source(config(tmp_path, {"format": "movielens", "path": path}))
        assert whole(source.events, ["user_id", "rating"])[0] == expected
        assert column(source.tables["items"][0], "title") == ["Café (1995)"]


def test_a_folder_without_movielens_says_what_belongs_there(tmp_path):
    with pytest.raises(ConfigError, match=r"holds neither MovieLens 1M \(ratings.dat"):
        open_source(config(tmp_path, {"format": "movielens", "path": "."}))
    (tmp_path / "ml-1m.zip").write_bytes(b"not a zip")
    with pytest.raises(ConfigError, match="holds neither"):
        open_source(config(tmp_path, {"format": "movielens"}))
