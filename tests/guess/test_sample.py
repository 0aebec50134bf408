from pathlib import Path

import pyarrow as pa
import pytest

from tfctr.config import FileSource
from tfctr.data.sources import opened
from tfctr.guess import sample
from tfctr.guess.columns import Column, Guess, feature


def reader(folder: Path, events: str) -> sample.Reader:
    source = FileSource.model_validate({"format": "csv", "events": events})
    return opened(source, str(folder)).events


def test_the_sample_of_large_files_is_from_all_over_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in range(4):
        lines = (f"{part},{i},{'x' * 40}\n" for i in range(5_000))
        (tmp_path / f"{part}.csv").write_text("part,row,filler\n" + "".join(lines))
    whole = sample.sample(reader(tmp_path, "*.csv"))
    assert whole.rows == 20_000
    monkeypatch.setattr(sample, "TEXT_BYTES", 1 << 16)
    some = sample.sample(reader(tmp_path, "*.csv"))
    assert 1_000 < some.rows < 2_000
    columns = {name: some.columns[name].to_pylist() for name in ("part", "row")}
    assert {*columns["part"]} == {b"0", b"1", b"2", b"3"}
    rows = {(part, row) for part, row in zip(columns["part"], columns["row"], strict=True)}
    assert len(rows) == some.rows
    assert (b"0", b"0") in rows
    assert (b"3", b"4999") in rows


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("price", [i / 7 for i in range(100)], {"kind": "numeric"}),
        ("clicks", [2 ** (i // 8) for i in range(100)], {"kind": "categorical", "dtype": "int"}),
        ("clicks", [1.5 ** (i / 2) for i in range(100)], {"kind": "numeric", "transform": "log"}),
        ("age", [18 + i % 60 for i in range(200)], {"kind": "numeric"}),
        ("city_id", [i % 60 for i in range(200)], {"kind": "categorical", "dtype": "int"}),
        ("hash", [10**12 + i % 60 for i in range(200)], {"kind": "categorical", "dtype": "int"}),
        ("zip", ["00501", "10001"] * 20, {"kind": "categorical"}),  # the zeros are part of it
        ("wide", [str(2**64 - 1 - i % 9) for i in range(90)], {"kind": "categorical"}),
        ("gap", ["1.0", "", "3.0", "2.0"] * 20, {"kind": "categorical", "dtype": "int"}),
        ("share", ["1.0", "2.0", "3.0"] * 20, {"kind": "numeric"}),
        ("city", ["New York", "Rome"] * 20, {"kind": "categorical"}),
        ("title", [f"The film {i}" for i in range(90)], {"kind": "text"}),
        (
            "genres",
            ["War,Drama", "War", "Drama,War,Fun", "Fun,War"] * 9,
            {"kind": "multi_valued", "separator": ",", "max_length": 3},
        ),
    ],
)
def test_the_feature_of_a_column(name: str, values: list, expected: dict) -> None:
    found = feature(Column(name, pa.array(values)))
    assert (dict(found.keys), found.left_out) == (expected, "")


def test_titles_with_commas_are_no_sets() -> None:
    titles = [f"Film {i}, The" if i % 4 == 0 else f"A film {i}" for i in range(80)] * 50
    assert feature(Column("name", pa.array(titles))).keys == {"kind": "text"}
    assert feature(Column("name", pa.array(["x"] * 9))).left_out
    assert feature(Column("none", pa.array([None] * 9, pa.string()))) == Guess(
        left_out="no value in the sample that can be read"
    )
