import gzip
import struct

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.tfrecord import examples
from beam_pipelines.tfrecord.examples import INT64_WIDTH, Field, encode
from tfctr.data import files

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False)


def read_back(tmp_path, content, compression=""):
    path = tmp_path / "part.tfrecord"
    path.write_bytes(content)
    return [record.numpy() for record in tf.data.TFRecordDataset(str(path), compression)]


def as_dicts(records):
    """What protobuf's own parser finds in each record."""
    found = []
    for record in records:
        example = tf.train.Example.FromString(record)
        row = {}
        for name, feature in example.features.feature.items():
            kind = feature.WhichOneof("kind")
            row[name] = list(getattr(feature, kind).value)
        found.append(row)
    return found


@st.composite
def batches(draw):
    """Fields and, as plain Python rows, their values."""
    fields, strategies = [], []
    for i in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["id", "ids", "int64", "float", "floats", "text"]))
        name = draw(st.sampled_from(["f", "fé", "x" * 130])) + str(i)
        length = draw(st.integers(1, 40)) if kind in ("ids", "floats") else 1
        if kind in ("id", "ids"):
            num_ids = draw(st.sampled_from([1, 127, 128, 129, 2**14, 2**28, 2**28 + 1, 2**40]))
            fields.append(Field.ids(name, num_ids, length))
            value = st.integers(0, num_ids - 1)
        elif kind == "int64":
            fields.append(Field(name, width=INT64_WIDTH))
            value = INT64
        elif kind == "text":
            fields.append(Field(name, values=0))
            value = st.text(max_size=200)
        else:
            fields.append(Field(name, length))
            value = FLOAT32
        strategies.append(
            value if kind == "text" else st.lists(value, min_size=length, max_size=length)
        )
    return fields, draw(st.lists(st.tuples(*strategies), min_size=1, max_size=9))


def columns_of(fields, rows):
    columns = {}
    for i, field in enumerate(fields):
        values = [row[i] for row in rows]
        if field.is_text:
            columns[field.name] = pa.array(values, pa.string())
        else:
            kind = np.int64 if field.width else np.float32
            array = np.array(values, dtype=kind).reshape(len(rows), field.values)
            columns[field.name] = array[:, 0] if field.values == 1 else array
    return columns


@given(batches())
@settings(max_examples=60, deadline=None)
def test_records_hold_what_protobuf_would_read(tmp_path_factory, batch):
    fields, rows = batch
    content = b"".join(encode(fields, columns_of(fields, rows)))
    found = as_dicts(read_back(tmp_path_factory.mktemp("records"), content))
    expected = [
        {
            f.name: [value.encode()] if f.is_text else value
            for f, value in zip(fields, row, strict=True)
        }
        for row in rows
    ]
    assert found == expected


def test_parse_example_reads_the_same_as_from_examples_made_by_tensorflow(tmp_path):
    rng = np.random.default_rng(0)
    n = 500
    fields = [
        Field("row", width=INT64_WIDTH),
        Field.ids("id", 300),
        Field.ids("ids", 5, 3),
        Field("x"),
        Field("title", values=0),
    ]
    columns = {
        "row": rng.integers(-(2**62), 2**62, n),
        "id": rng.integers(0, 300, n),
        "ids": rng.integers(0, 5, (n, 3)),
        "x": rng.normal(size=n).astype(np.float32),
        "title": pa.array([f"title {i}" if i % 3 else None for i in range(n)]),
    }
    columns["x"][7] = np.nan

    def feature(field, i):
        value = columns[field.name][i]
        if field.is_text:
            texts = [(value.as_py() or "").encode()]
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
        values = np.atleast_1d(value)
        if field.width:
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    made = [
        tf.train.Example(
            features=tf.train.Features(feature={f.name: feature(f, i) for f in fields})
        ).SerializeToString()
        for i in range(n)
    ]
    specs = {
        "row": tf.io.FixedLenFeature([], tf.int64),
        "id": tf.io.FixedLenFeature([], tf.int64),
        "ids": tf.io.FixedLenFeature([3], tf.int64),
        "x": tf.io.FixedLenFeature([], tf.float32),
        "title": tf.io.FixedLenFeature([], tf.string),
    }
    records = read_back(tmp_path, b"".join(encode(fields, columns)))
    found, expected = tf.io.parse_example(records, specs), tf.io.parse_example(made, specs)
    for name in specs:
        np.testing.assert_array_equal(found[name].numpy(), expected[name].numpy())


@pytest.mark.parametrize("length", [0, 1, 127, 128, 129, 16_383, 16_384, 16_385, 3_000_000])
def test_texts_of_any_length(tmp_path, length):
    fields = [Field.ids("id", 10), Field("a", values=0), Field("b", values=0)]
    columns = {
        "id": np.array([3, 4]),
        "a": pa.array(["x" * length, "short"]),
        "b": pa.array(["", "é" * length]),
    }
    found = as_dicts(read_back(tmp_path, b"".join(encode(fields, columns))))
    assert found[0] == {"id": [3], "a": [b"x" * length], "b": [b""]}
    assert found[1] == {"id": [4], "a": [b"short"], "b": ["é".encode() * length]}


def test_a_sliced_text_column_gives_its_own_rows(tmp_path):
    texts = pa.array(["left", "one", None, "three"]).slice(1)
    columns = {"id": np.arange(3), "t": texts}
    fields = [Field.ids("id", 10), Field("t", values=0)]
    found = as_dicts(read_back(tmp_path, b"".join(encode(fields, columns))))
    assert [row["t"] for row in found] == [[b"one"], [b""], [b"three"]]


@pytest.mark.parametrize("with_text", [False, True])
def test_chunks_of_rows_join_without_a_seam(tmp_path, monkeypatch, with_text):
    fields = [Field.ids("id", 1000)] + [Field("t", values=0)] * with_text
    columns = {"id": np.arange(50), "t": pa.array([f"text {i}" for i in range(50)])}
    whole = b"".join(encode(fields, columns))
    monkeypatch.setattr(examples, "CHUNK", 7)
    assert b"".join(encode(fields, columns)) == whole
    assert [row["id"] for row in as_dicts(read_back(tmp_path, whole))] == [[i] for i in range(50)]


def test_no_rows_give_no_bytes():
    fields = [Field.ids("id", 10), Field("t", values=0)]
    assert b"".join(encode(fields, {"id": np.zeros(0), "t": pa.array([], pa.string())})) == b""


def test_only_texts(tmp_path):
    content = b"".join(encode([Field("t", values=0)], {"t": pa.array(["a", None])}))
    assert as_dicts(read_back(tmp_path, content)) == [{"t": [b"a"]}, {"t": [b""]}]


def test_checksums_are_those_of_the_format():
    (record,) = encode([Field("x")], {"x": np.array([1.5], np.float32)})
    content = bytes(record)

    def masked(data):
        crc = google_crc32c.value(data)
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    (length,) = struct.unpack("<Q", content[:8])
    assert len(content) == length + 16
    assert struct.unpack("<I", content[8:12]) == (masked(content[:8]),)
    assert struct.unpack("<I", content[-4:]) == (masked(content[12:-4]),)


def test_gzip_is_the_same_bytes_every_time(tmp_path):
    parts = encode([Field.ids("id", 10)], {"id": np.arange(10)})
    packed = files.compress(parts)
    assert packed == files.compress(parts)
    assert gzip.decompress(packed) == b"".join(parts)
    assert len(read_back(tmp_path, packed, "GZIP")) == 10


@pytest.mark.parametrize(
    ("num_ids", "width"), [(1, 1), (128, 1), (129, 2), (2**14, 2), (2**14 + 1, 3)]
)
def test_ids_take_no_more_bytes_than_their_number_needs(num_ids, width):
    assert Field.ids("id", num_ids).width == width
