"""Shards read as columns without TensorFlow."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from beam_pipelines.tfrecord.examples import Field, encode, layout
from tfctr.data import Dataset, files
from tfctr.data.manifest import DataError
from tfctr.data.records import read_columns

FIELDS = [
    Field("row_id", width=10),
    Field("price"),
    Field.ids("tags", 70_000, 3),
    Field("title", values=0),
    Field.ids("item", 2**31),
]
ROWS = 5_000  # more than are taken apart at a time
RANDOM = np.random.default_rng(0)
COLUMNS = {
    "row_id": RANDOM.integers(-(2**62), 2**62, ROWS),
    "price": RANDOM.normal(size=ROWS).astype(np.float32),
    "tags": RANDOM.integers(0, 70_000, (ROWS, 3)),
    "title": pa.array(["é" * (i % 40) for i in range(ROWS)]),
    "item": RANDOM.integers(0, 2**31, ROWS),
}
LAYOUT = layout(FIELDS)


def write(path: Path, content: bytes) -> str:
    path.write_bytes(files.compress([content]) if path.suffix == ".gz" else content)
    return str(path)


@pytest.fixture(scope="module")
def content() -> bytes:
    return b"".join(encode(FIELDS, COLUMNS))


@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord.gz"])
def test_columns_are_those_that_were_encoded(tmp_path: Path, content: bytes, name: str) -> None:
    found = read_columns(
        write(tmp_path / name, content), LAYOUT, ["item", "tags", "row_id", "price"]
    )
    for field, values in found.items():
        np.testing.assert_array_equal(values, COLUMNS[field].reshape(ROWS, -1), err_msg=field)
        assert values.dtype == ("float32" if field == "price" else "int64")


def test_a_dataset_reads_the_same_through_tensorflow(world_data: Path) -> None:
    data = Dataset.open(world_data)
    names = ["row_id", "time", "label", "item_id", "tags", "price"]
    shard = data.manifest["splits"]["test"]["shards"][0]["name"]
    found = read_columns(str(world_data / shard), data.manifest["layout"], names)
    features, labels = next(iter(data.test(100, features=["item_id", "tags", "price"])))
    for name, values in {**features, "label": labels}.items():
        np.testing.assert_array_equal(found[name][:100], np.reshape(values, (100, -1)))


def test_an_empty_shard_has_empty_columns(tmp_path: Path) -> None:
    found = read_columns(write(tmp_path / "a.tfrecord", b""), LAYOUT, ["tags", "price"])
    assert {name: values.shape for name, values in found.items()} == {
        "tags": (0, 3),
        "price": (0, 1),
    }


def changed(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda content: content[:-5], "cut off or damaged at record 4,999"),
        (lambda content: content[:7], "cut off or damaged at record 0"),
        (lambda content: changed(content, 40), "record 0 is damaged: its checksum differs"),
        (lambda content: changed(content, len(content) - 1), "record 4,999 is damaged"),
        (lambda content: changed(content, 1), "cut off or damaged"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, damage: object, says: str) -> None:
    path = write(tmp_path / "a.tfrecord", damage(content))  # type: ignore[operator]
    with pytest.raises(DataError, match=f"a.tfrecord: .*{says}"):
        read_columns(path, LAYOUT, ["item"])


@pytest.mark.parametrize("field", [Field("cost"), Field("price", values=300)])
def test_another_layout_is_refused(tmp_path: Path, content: bytes, field: Field) -> None:
    other = layout([FIELDS[0], field, *FIELDS[2:]])
    with pytest.raises(DataError, match=r"another layout|shorter than the manifest"):
        read_columns(write(tmp_path / "a.tfrecord", content), other, ["row_id"])
