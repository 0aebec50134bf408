import functools
import gzip
import io
import pickle
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest

from tests.data.test_sources import config, whole
from tfctr.config import ConfigError
from tfctr.data.formats import format_of
from tfctr.data.sources import open_source

# The same bytes in every process: they are in the tests' names.
packed = functools.partial(gzip.compress, mtime=0)

TABLE = pa.table({"user_id": ["a"], "click": [1], "time": [7]})
CSV = b"user_id,click,time\na,1,7\n"
JSON = b'{"user_id": "a", "click": 1, "time": 7}\n'


def written(write):
    sink = io.BytesIO()
    write(sink)
    return sink.getvalue()


def parquet():
    return written(lambda sink: pq.write_table(TABLE, sink))


def zip_archive(name, content):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(name, content)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.csv", CSV),
        ("log.CSV.gz", CSV),
        ("log.tsv", CSV.replace(b",", b"\t")),
        ("log.jsonl", JSON),
        ("log.json.gz", packed(JSON)),
        ("log.ndjson", JSON),
        ("log.parquet", parquet()),
        ("part-0.snappy.parquet", parquet()),
        ("log.parquet.gz", packed(parquet())),
        ("log.zip", zip_archive("log.parquet", parquet())),
        ("log.csv", parquet()),
        ("log", parquet()),
    ],
)
def test_a_table_may_be_of_another_format_than_the_source(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    for otherwise in ("csv", "jsonl", "parquet"):
        if name == "log" and otherwise != "parquet":
            continue
        events = open_source(config(tmp_path, {"format": otherwise, "events": name})).events
        good, bad = whole(events, ["user_id", "time"])
        values = [value.decode() if isinstance(value, bytes) else str(value) for value in good[0]]
        assert (values, len(good), bad) == (["0", "a", "7"], 1, [])


def test_events_in_parquet_are_joined_with_tables_of_text(tmp_path):
    (tmp_path / "log").write_bytes(parquet())
    (tmp_path / "users.csv").write_bytes(b"user_id,city\na,x\n")
    (tmp_path / "items.jsonl").write_bytes(b'{"click": 1, "price": 3}\n')
    source = {
        **{"format": "parquet", "events": "log"},
        "users": {"path": "users.csv", "key": "user_id"},
        "items": {"path": "items.jsonl", "key": "click"},
    }
    opened = open_source(config(tmp_path, source))
    assert whole(opened.events, ["user_id"])[0] == [(0, "a")]
    assert whole(opened.tables["users"][0], ["city"])[0] == [(0, b"x")]
    assert whole(opened.tables["items"][0], ["price"])[0] == [(0, b"3")]


def tar_archive():
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as opened:
        opened.add(__file__)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            zip_archive("a", b"b"),
            "a zip archive or a spreadsheet, which is not read; name an archive",
        ),
        (written(lambda sink: feather.write_feather(TABLE, sink)), "Arrow or Feather"),
        (written(lambda sink: orc.write_table(TABLE, sink)), "ORC, which is not read; write it as"),
        (b"Obj\x01" + b"x" * 20, "Avro, which is not read; write it as CSV, JSON Lines or Parquet"),
        (pickle.dumps([1] * 20, 4), "a Python pickle, which"),
        (pa.compress(CSV, "zstd", asbytes=True), "packed with zstd, which is not read; unpack it,"),
        (CSV.decode().encode("utf-16"), "text in UTF-16, which is not read; save it in UTF-8"),
        (packed(CSV.decode().encode("utf-16")), "text in UTF-16"),
        (
            CSV.decode().encode("utf-16-le"),
            "no text in UTF-8, since it is full of zero bytes; write",
        ),
        (tar_archive(), "a tar archive, which is not read; unpack it"),
        (b"", "empty"),
        (packed(b""), "empty"),
    ],
)
def test_a_file_that_is_no_table_is_named_with_a_way_out(tmp_path, content, message):
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/log\.csv: {message}"):
        open_source(config(tmp_path, {"format": "csv", "events": "log.csv"}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'\xef\xbb\xbf [\n  {"a": 1}\n]', r"one JSON list; write one object a line, as jq -c"),
        (b'{\n  "a": 1\n}\n', "none of its first lines is a JSON object with keys; write one"),
    ],
)
def test_json_that_is_not_in_lines_is_named(tmp_path, content, message):
    (tmp_path / "log.json").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"log\.json: {message}"):
        open_source(config(tmp_path, {"format": "jsonl", "events": "log.json"})).events.names()


def test_a_zero_byte_in_a_row_is_left_to_who_reads_the_row(tmp_path):
    (tmp_path / "log.csv").write_bytes(b"user_id,click,time\na\0,1,7\n")
    events = open_source(config(tmp_path, {"format": "csv", "events": "log.csv"})).events
    assert whole(events, ["user_id"])[0] == [(0, b"a\0")]


def test_files_of_one_table_are_of_one_format(tmp_path):
    for name, content in (("a.csv", CSV), ("b.parquet", parquet()), ("c.csv", CSV)):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as error:
        open_source(config(tmp_path, {"format": "csv", "events": "*"}))
    assert str(error.value) == (
        f"source: the files of one table are of one format, found {tmp_path}/a.csv (csv) and "
        f'{tmp_path}/b.parquet (parquet); name those of one, as "*.parquet"'
    )


def test_empty_parts_are_left_out_but_not_of_parquet(tmp_path):
    for name, content in (("0", b""), ("1", CSV), ("2", packed(b"")), ("3.parquet", b"")):
        (tmp_path / name).write_bytes(content)
    paths = [f"{tmp_path}/{name}" for name in "012"]
    assert format_of(paths, "csv") == ("csv", (paths[1],))
    assert format_of([f"{tmp_path}/3.parquet"], "csv")[0] == "parquet"


def test_columns_are_of_text_without_a_header(tmp_path):
    (tmp_path / "log").write_bytes(parquet())
    source = {"format": "csv", "events": "log", "columns": ["a", "b"]}
    with pytest.raises(ConfigError, match=r"columns name those of CSV files; .*/log has its own"):
        open_source(config(tmp_path, source))
