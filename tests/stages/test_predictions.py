"""Predictions beside the ids of the log."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from tfctr.config import DataConfig
from tfctr.data.dataset import Dataset
from tfctr.data.manifest import DataError
from tfctr.stages import Predictions, prepare

CONSOLE = Console(quiet=True)
PARTS = ["train", "test", "valid", "train", "test"] * 4


def evaluated(folder: Path, **changes: Any) -> Any:
    """What `Predictions` needs of an evaluation: a dataset, and the logits of its rows."""
    lines = ["part,click,u,i,price"]
    # All users of the test rows are unknown to the training rows.
    lines += [f"{part},{n % 2},{part} {n},0{n}.0,{n}" for n, part in enumerate(PARTS)]
    (folder / "log.csv").write_text("\n".join(lines))
    content = {
        "name": "shop",
        "directory": str(folder),
        "source": {"format": "csv", "events": "log.csv"},
        "label": {"column": "click"},
        "user": "user",
        "item": "item",
        "features": [
            {"name": "price", "kind": "numeric", "side": "item"},
            {"name": "item", "kind": "categorical", "side": "item", "column": "i", "dtype": "int"},
            {"name": "user", "kind": "categorical", "side": "user", "column": "u"},
        ],
        "split": {"by": "column", "column": "part"},
    }
    config = DataConfig.model_validate(content | changes)
    prepare(config, folder / "data", console=CONSOLE)
    data = Dataset.open(folder / "data")
    for split in ("valid", "test"):
        columns = data.columns(split, ["label"]) | {"logit": np.array([-100.0, 0, 2, 100] * 2)}
        rows = data.num_rows(split)
        columns = {name: values[:rows] for name, values in columns.items()}
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    trained = SimpleNamespace(
        open_data=lambda: data, config=SimpleNamespace(data=config), held_out=("valid", "test")
    )
    return SimpleNamespace(trained=trained, folder=folder)


def test_ids_are_those_of_the_log(tmp_path: Path) -> None:
    stage = Predictions(evaluated(tmp_path))
    assert stage.make(CONSOLE) == {"rows": {"valid": 4, "test": 8}}
    found = pq.read_table(tmp_path / "predictions" / "test.parquet")
    assert found.schema == pa.schema(
        {
            "row_id": pa.int64(),
            "user": pa.string(),
            "item": pa.int64(),
            "label": pa.int8(),
            "probability": pa.float32(),
        }
    )
    rows = [n for n, part in enumerate(PARTS) if part == "test"]
    assert found["row_id"].to_pylist() == rows
    assert found["user"].to_pylist() == [f"test {n}" for n in rows]
    assert found["item"].to_pylist() == rows
    assert found["label"].to_pylist() == [n % 2 for n in rows]
    expected = [0, 0.5, 1 / (1 + np.exp(-2)), 1] * 2
    np.testing.assert_allclose(found["probability"], expected, atol=1e-7)
    (tmp_path / "log.csv").write_text("part,click,u,i,price\ntrain,1,a,1,1\n")
    with pytest.raises(DataError, match=r"log\.csv: changed since the dataset was prepared"):
        stage.make(CONSOLE)


def test_ids_of_a_log_that_tables_are_joined_to(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("u,age\ntrain 0,3\ntrain 3,4\ntrain 5,5\n")
    source = {"format": "csv", "events": "log.csv", "users": {"path": "users.csv", "key": "u"}}
    age = {"name": "age", "kind": "numeric", "side": "user"}
    user = {"name": "user", "kind": "categorical", "side": "user", "column": "u"}
    stage = Predictions(evaluated(tmp_path, source=source, features=[age, user], item=None))
    (tmp_path / "users.csv").write_text("u,age\n")  # a table with no row is an error if it is read
    stage.make(CONSOLE)
    found = pq.read_table(tmp_path / "predictions" / "valid.parquet")
    assert found["user"].to_pylist() == [f"valid {n}" for n in (2, 7, 12, 17)]


def test_without_a_user_and_an_item_rows_are_named_by_their_place(tmp_path: Path) -> None:
    Predictions(evaluated(tmp_path, user=None, item=None)).make(CONSOLE)
    found = pq.read_table(tmp_path / "predictions" / "valid.parquet")
    assert found.column_names == ["row_id", "label", "probability"]
    assert found["row_id"].to_pylist() == [2, 7, 12, 17]
