"""Splits that the log gives, by a column or by files of their own, with and without times."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines.prepare import prepare
from tests.beam_pipelines.test_prepare import categorical
from tfctr.config import ConfigError, DataConfig, digest
from tfctr.data import Dataset
from tfctr.data.manifest import DataError

PARTS = {"train": 40, "valid": 8, "test": 5}


def config(folder: Path, **changes: Any) -> DataConfig:
    content = {
        "name": "test",
        "source": {"format": "csv"},
        "label": {"column": "click"},
        "features": [categorical("a"), {"name": "n", "kind": "numeric", "side": "context"}],
        "directory": str(folder),
    }
    content = content | changes
    return DataConfig.model_validate({k: v for k, v in content.items() if v is not None})


def rows(split: str) -> list[dict[str, Any]]:
    first = {"train": 0, "valid": 1000, "test": 2000}[split]
    return [
        {"click": i % 2, "a": f"a{i % 3}", "n": first + i, "part": split}
        for i in range(PARTS[split])
    ]


def write_csv(path: Path, found: list[dict[str, Any]]) -> None:
    lines = [",".join(found[0]), *(",".join(map(str, row.values())) for row in found)]
    path.write_text("\n".join(lines) + "\n")


def numbers(folder: Path) -> dict[str, list[float]]:
    """Column `n` of each split, sorted."""
    data = Dataset.open(folder)
    return {
        split: sorted(data.columns(split, ["n"])["n"].tolist())
        for split in PARTS
        if data.num_rows(split)
    }


def given() -> dict[str, list[float]]:
    return {split: [float(row["n"]) for row in rows(split)] for split in PARTS}


def test_each_split_has_files_of_its_own(tmp_path: Path) -> None:
    train = rows("train")
    write_csv(tmp_path / "train-1.csv", train[:25])
    write_csv(tmp_path / "train-2.csv", train[25:])
    for split in ("valid", "test"):
        write_csv(tmp_path / f"{split}.csv", rows(split))
    files = {"train": "train-*.csv", "valid": ["valid.csv"], "test": "test.csv"}
    found = config(tmp_path, split={"by": "file"} | files)
    manifest = prepare(found, str(tmp_path / "data"))
    assert numbers(tmp_path / "data") == given()
    assert manifest["cuts"] == {}
    assert Dataset.open(tmp_path / "data").columns("test", ["time"])["time"].tolist() == [0] * 5
    again = DataConfig.model_validate(found.model_dump())  # as a manifest holds it
    assert digest(again) == digest(found)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_column_names_the_split_of_each_row(tmp_path: Path, form: str) -> None:
    mixed = [row for split in PARTS for row in rows(split)]
    mixed = [mixed[i] for i in np.random.default_rng(1).permutation(len(mixed))]
    if form == "csv":
        write_csv(tmp_path / "log.csv", mixed)
    else:  # several pieces
        pq.write_table(pa.Table.from_pylist(mixed), tmp_path / "log.parquet", row_group_size=7)
    source = {"format": form, "events": f"log.{form}"}
    prepare(
        config(tmp_path, source=source, split={"by": "column", "column": "part"}),
        str(tmp_path / "data"),
    )
    assert numbers(tmp_path / "data") == given()


def test_a_column_of_numbers_names_splits_and_there_may_be_no_test_rows(tmp_path: Path) -> None:
    codes = {"train": 0, "valid": 1}
    found = [row | {"part": codes[split]} for split in codes for row in rows(split)]
    pq.write_table(pa.Table.from_pylist(found), tmp_path / "log.parquet")
    split = {"by": "column", "column": "part", "train": 0, "valid": 1, "test": 2}
    source = {"format": "parquet", "events": "log.parquet"}
    prepare(config(tmp_path, source=source, split=split), str(tmp_path / "data"))
    assert numbers(tmp_path / "data") == {k: given()[k] for k in codes}


def test_a_row_whose_column_names_no_split_is_set_aside(tmp_path: Path) -> None:
    found = [row for split in PARTS for row in rows(split)]
    found[3]["part"] = "holdout"
    found[4]["part"] = ""
    write_csv(tmp_path / "log.csv", found)
    changes = {
        "source": {"format": "csv", "events": "log.csv"},
        "split": {"by": "column", "column": "part"},
    }
    with pytest.raises(DataError, match=r"part: not one of train, valid, test \(2\)"):
        prepare(config(tmp_path, **changes), str(tmp_path / "data"))
    prepare(config(tmp_path, **changes, max_bad_share=0.1), str(tmp_path / "data"))
    assert numbers(tmp_path / "data")["train"] == given()["train"][:3] + given()["train"][5:]
    (letters,) = (tmp_path / "data/dead_letters").iterdir()
    bad = [json.loads(line)["row"] for line in letters.read_text().splitlines()]
    assert bad == [3, 4]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"split": None, "source": {"format": "csv", "events": "x.csv"}}, "needs the key 'time'"),
        (
            {"source": {"format": "csv", "events": "x.csv"}, "split": {"by": "column"}},
            "Field required",
        ),
        (
            {
                "source": {"format": "csv", "events": "x.csv"},
                "split": {"by": "file", "train": "a.csv", "valid": "b.csv"},
            },
            r"source\.events: the files are those of split \(by: file\); leave events out",
        ),
        (
            {
                "source": {"format": "csv", "events": "x.csv"},
                "split": {"by": "column", "column": "part", "valid": "train"},
            },
            "train, valid and test must differ, found train, train, test",
        ),
        (
            {
                "source": {"format": "csv", "events": "x.csv"},
                "split": {"by": "random"},
                "user": "a",
                "features": [
                    {"name": "a", "kind": "categorical", "side": "user"},
                    {"name": "past", "kind": "history", "shares": "a", "max_length": 3},
                ],
            },
            "'past': a history needs the key 'time'",
        ),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config(tmp_path, **changes)


def test_a_file_of_two_splits_and_a_column_that_is_not_there_are_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", rows("train"))
    split = {"by": "file", "train": "*.csv", "valid": "a.csv"}
    with pytest.raises(ConfigError, match=r"split\.valid: .*a\.csv is a file of train too"):
        prepare(config(tmp_path, split=split), str(tmp_path / "data"))
    changes = {
        "source": {"format": "csv", "events": "a.csv"},
        "split": {"by": "column", "column": "fold"},
    }
    with pytest.raises(ConfigError, match=r"split\.column: found 'fold'; columns of the events: c"):
        prepare(config(tmp_path, **changes), str(tmp_path / "data"))
