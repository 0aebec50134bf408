"""Rows in files to scores in files, by a Beam job that goes on where it was killed."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from beam_pipelines.score import main, raw_tensor, score
from tests.serving.raw_rows import ROWS, SCHEMA, model_scores
from tfctr.config import ConfigError
from tfctr.data.conform import conform
from tfctr.data.manifest import DataError

COPIES = 3


def columns() -> dict[str, pa.Array]:
    """The rows of the export's tests, under the columns that their features are read from."""
    return {f.source_column: pa.array(ROWS[f.name]) for f in SCHEMA.inputs}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Two files, the first of three row groups; `id` counts the rows through."""
    number = len(next(iter(columns().values())))
    for name, copies, first in (("a", COPIES, 0), ("b", 1, COPIES * number)):
        ids = pa.array(range(first, first + copies * number))
        table = pa.concat_tables([pa.table(columns())] * copies).append_column("id", ids)
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=number)
    return tmp_path


def scores_of(folder: Path) -> dict[int, float]:
    found = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    table = pa.concat_tables(found)
    assert table.column_names == ["id", "row_id", "score"]
    return dict(zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True))


def test_every_row_has_the_model_s_score(exported: Path, model: Any, rows: Path) -> None:
    status = main(
        [
            *("--model", str(exported.parent), "--rows", str(rows / "*.parquet")),
            *("--output", str(rows / "scores"), "--ids", "id"),
        ]
    )
    assert status == 0
    expected = np.tile(model_scores(model, ROWS), COPIES + 1)
    found = scores_of(rows / "scores")
    assert sorted(found) == list(range(len(expected)))
    np.testing.assert_allclose([found[i] for i in range(len(expected))], expected, atol=1e-6)
    manifest = json.loads((rows / "scores" / "manifest.json").read_text())
    assert manifest["splits"] == {"scores": {"rows": len(expected)}}


def test_it_goes_on_behind_what_is_written_and_writes_anew_what_changed(
    exported: Path, rows: Path
) -> None:
    def run(*files: str) -> dict[str, int]:
        arguments = [str(rows / name) for name in files], str(rows / "scores"), ["id"]
        score(str(exported), *arguments)
        return {p.name: p.stat().st_mtime_ns for p in (rows / "scores").glob("part-*")}

    whole = run("a.parquet", "b.parquet")
    expected = scores_of(rows / "scores")
    (rows / "scores" / "manifest.json").unlink()  # as if killed behind three of the four pieces
    (rows / "scores" / "part-00003.parquet").unlink()
    (rows / "scores" / "part-00009.parquet.ab12cd34.part").write_bytes(b"half")
    again = run("a.parquet", "b.parquet")
    assert scores_of(rows / "scores") == expected
    assert {name for name in whole if whole[name] != again[name]} == {"part-00003.parquet"}
    fewer = run("a.parquet")
    assert fewer == {name: at for name, at in again.items() if name != "part-00003.parquet"}
    pq.write_table(pq.read_table(rows / "a.parquet"), rows / "a.parquet", row_group_size=6)
    assert not fewer.items() & run("a.parquet").items()  # other rows in the pieces
    assert scores_of(rows / "scores").items() <= expected.items()


def test_csv_and_json_lines_and_bad_rows_beside_good_ones(
    exported: Path, model: Any, tmp_path: Path
) -> None:
    names = {f.source_column: f.name for f in SCHEMA.inputs}
    lines = [
        {column: ROWS[name][row] for column, name in names.items()} | {"id": row}
        for row in range(len(next(iter(ROWS.values()))))
    ]
    bad = lines[0] | {"user": "not a number", "id": 77}
    text = "\n".join(json.dumps(line) for line in [lines[0], bad, *lines[1:]])
    (tmp_path / "rows.jsonl").write_text(text + "\nnot JSON\n")
    arguments: Any = (str(exported), [str(tmp_path / "rows.jsonl")], str(tmp_path / "s"), ["id"])
    with pytest.raises(DataError, match="2 of 7 rows of the rows are bad"):
        score(*arguments)
    manifest = score(*arguments, max_bad_share=0.5)
    found = {int(number): value for number, value in scores_of(tmp_path / "s").items()}
    np.testing.assert_allclose([found[i] for i in range(5)], model_scores(model, ROWS), atol=1e-6)
    assert manifest["counts"] == {"read": 7, "bad": 2}
    score(*arguments[:2], str(tmp_path / "t"), max_bad_share=0.5)  # no ids
    alone = pq.read_table(tmp_path / "t" / "part-00000.parquet")
    assert alone["row_id"].to_pylist() == [0, 2, 3, 4, 5]
    np.testing.assert_array_equal(alone["score"], [found[i] for i in range(5)])
    letters = (tmp_path / "s" / "dead_letters" / "part-00000.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in letters] == [1, 6]


def test_scores_stand_beside_whole_rows_as_they_are_in_the_log(
    exported: Path, model: Any, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(exported), "--rows", str(rows / "b.parquet")]
    assert main([*arguments, "--output", str(rows / "s"), "--whole-rows"]) == 0
    found, given = pq.read_table(rows / "s" / "part-00000.parquet"), rows / "b.parquet"
    assert found.drop_columns(["row_id", "score"]).equals(pq.read_table(given))
    np.testing.assert_allclose(found["score"], model_scores(model, ROWS), atol=1e-6)
    written = pq.read_metadata(rows / "s" / "part-00000.parquet").row_group(0)
    written = [written.column(i) for i in range(written.num_columns)]
    plain = [c.path_in_schema for c in written if not c.has_dictionary_page]
    assert plain == ["row_id", "score"]  # whose values do not repeat
    capsys.readouterr()
    assert main([*arguments, "--output", str(rows / "s"), "--ids", "user", "item"]) == 0
    assert capsys.readouterr().out == (
        f"{rows / 's'}: {{'scores': 5}}, 0 bad rows set aside; 1 columns that the model does not "
        "read are ignored: id\n"
    )
    assert pq.read_schema(rows / "s" / "part-00000.parquet").remove_metadata() == pa.schema(
        {"user": pa.int64(), "item": pa.string(), "row_id": pa.int64(), "score": pa.float32()}
    )


def test_rows_as_they_are_logged_are_scored_as_prepare_reads_them(
    exported: Path, model: Any, tmp_path: Path
) -> None:
    names = [f.source_column for f in SCHEMA.inputs]
    lines = [
        {name: written(column[row].as_py()) for name, column in columns().items()}
        | {"referrer": "mail", "id": f"r{row}"}
        for row in range(len(columns()["user"]))
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with open(tmp_path / "rows.csv", "w", newline="") as file:
        table = csv.DictWriter(file, [*names, "referrer", "id"])
        table.writeheader()
        table.writerows(lines)
    for kind in ("jsonl", "csv"):
        output = str(tmp_path / kind)
        rows = [str(tmp_path / f"rows.{kind}")]
        manifest = score(str(exported), rows, output, ["id", "user", "item"])
        assert manifest["ignored"] == ["referrer"]
        found = pq.read_table(tmp_path / kind / "part-00000.parquet")
        np.testing.assert_allclose(found["score"], model_scores(model, ROWS), atol=1e-6)
        assert found["id"].to_pylist() == [f"r{row}" for row in range(5)]
        assert found["user"].to_pylist() == ROWS["user"]
        assert found["item"].to_pylist() == ROWS["item"]


def written(value: Any) -> Any:
    """A value as text: a list with `|` between its values, an integer with a fraction of 0."""
    if isinstance(value, list):
        return "|".join(str(written(item)) for item in value if item is not None)
    return f"{value}.0" if isinstance(value, int) else value


def test_tables_are_joined_as_prepare_joins_them(
    exported: Path, model: Any, tmp_path: Path
) -> None:
    at_item = ["genres", "price", "tags", "rare"]
    content = {**columns(), "item": pa.array([f"i{row}" for row in range(5)])}
    items = pa.table({name: content[name] for name in ["item", *at_item]})
    pq.write_table(items.slice(0, 4), tmp_path / "items.parquet")
    pq.write_table(pa.table(content).drop_columns(at_item), tmp_path / "rows.parquet")
    made = {
        "name": "shop",
        "source": {
            "format": "parquet",
            "events": "not-here.parquet",
            "items": {"path": str(tmp_path / "items.parquet"), "key": "item"},
        },
        "label": {"column": "click"},
        "split": {"by": "random"},
        "features": [{"name": "item", "kind": "categorical", "side": "item"}],
    }
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(made))
    arguments = ["--model", str(exported), "--rows", str(tmp_path / "rows.parquet")]
    arguments += ["--output", str(tmp_path / "s"), "--config", str(tmp_path / "shop.yaml")]
    assert main(arguments) == 0
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest["counts"] == {"read": 5, "bad": 0, "unmatched_items": 1}
    logged = ROWS | {"item": content["item"].to_pylist()}
    for name in at_item:
        logged[name] = [*logged[name][:4], [] if SCHEMA[name].is_list else None]
    path = tmp_path / "s" / "part-00000.parquet"
    np.testing.assert_allclose(pq.read_table(path)["score"], model_scores(model, logged), atol=1e-6)
    written_at = path.stat().st_mtime_ns
    assert main(arguments) == 0
    assert path.stat().st_mtime_ns == written_at
    pq.write_table(items, tmp_path / "items.parquet")
    assert main(arguments) == 0
    assert path.stat().st_mtime_ns > written_at


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("item", ["a", None, "größer"], [b"a", b"", "größer".encode()]),
        ("item", [None, None], [b"", b""]),
        ("item", [], []),
        ("history", [["a", "bc"], None, []], [[b"a", b"bc"], [], []]),
        ("history", [None, ["a", None]], [[], [b"a", b""]]),
        ("history", [None], [[]]),
        ("history", [], []),
    ],
)
def test_strings_become_tensors_as_arrow_has_them(
    name: str, values: list[Any], expected: list[Any]
) -> None:
    feature = SCHEMA[name]
    assert feature.dtype == "string"
    kind = pa.list_(pa.string()) if feature.is_list else pa.string()
    typed, _ = conform(feature, pa.array([None, *values, None], kind))
    found = raw_tensor(feature, typed.slice(1, len(values)))
    data = bytes(found.data)
    ends = found.starts + found.sizes
    if feature.is_list:
        assert found.starts.shape == (len(values), feature.max_length)
        expected = [row + [b""] * (feature.max_length - len(row)) for row in expected]
    pairs = zip(found.starts.ravel(), ends.ravel(), strict=True)
    assert [data[start:end] for start, end in pairs] == list(np.ravel(expected))


def test_what_is_wrong_is_said(exported: Path, rows: Path) -> None:
    with pytest.raises(ConfigError, match="neither a SavedModel nor a folder of versions"):
        score(str(rows), [str(rows / "a.parquet")], str(rows / "s"))
    with pytest.raises(ConfigError, match="no file matches"):
        score(str(exported), [str(rows / "nowhere.parquet")], str(rows / "s"))
    with pytest.raises(ConfigError, match=r"no column 'colour'; columns: .*price"):
        score(str(exported), [str(rows / "a.parquet")], str(rows / "s"), ["colour"])
    pq.write_table(pa.table({"id": [1]}), rows / "c.parquet")
    with pytest.raises(ConfigError, match=r"'item', 'user', .*; columns: id; --config joins the t"):
        score(str(exported), [str(rows / "c.parquet")], str(rows / "s"))
    of_scores = pa.table(columns()).append_column("score", pa.array([0.5] * 5))
    pq.write_table(of_scores, rows / "d.parquet")
    with pytest.raises(ConfigError, match="rows: found 'score', a column of the output itself"):
        score(str(exported), [str(rows / "d.parquet")], str(rows / "s"), whole_rows=True)
