"""`tfctr init` on small logs of each format: the config that it writes, and `prepare` on it."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from tfctr.cli import app
from tfctr.config import load_run
from tfctr.data.manifest import read_manifest
from tfctr.stages import prepare

ROWS = 600
USER = np.arange(ROWS) * 7 % 30
ITEM = np.arange(ROWS) * 11 % 40
CLICK = (ITEM % 3 == 0) & (USER % 2 == 0) | (np.arange(ROWS) % 10 == 0)
SECONDS = 1_700_000_000 + 60 * np.arange(ROWS)


def init(folder: Path, *args: str) -> tuple[str, str]:
    """What `tfctr init` prints and writes, to `run.yaml` in the folder."""
    output = folder / "run.yaml"
    result = CliRunner().invoke(app, ["init", *args, "--output", str(output)])
    assert result.exit_code == 0, result.output
    return result.output, output.read_text(encoding="utf-8")


def data_of(text: str) -> dict[str, Any]:
    """The `data` of a config, with the features by name."""
    content = yaml.safe_load(text)
    assert content["model"] == {"backbone": "dcn_v2"}
    data: dict[str, Any] = content["data"]
    assert content["name"] == f"{data['name']}-dcnv2"
    data["features"] = {f.pop("name"): f for f in data["features"]}
    return data


def prepared(folder: Path) -> dict[str, Any]:
    """The manifest of `tfctr prepare` on it."""
    prepare(load_run(folder / "run.yaml").data, folder / "work", console=Console(quiet=True))
    manifest = read_manifest(folder / "work" / "manifest.json")
    assert manifest is not None
    return manifest


def token(side: str, **more: Any) -> dict[str, Any]:
    return {"kind": "categorical", "side": side} | more


def number(side: str, **more: Any) -> dict[str, Any]:
    return {"kind": "numeric", "side": side} | more


def comment(text: str, start: str) -> str:
    """The comment beside the only line that starts so."""
    (line,) = (line for line in text.splitlines() if line.strip().startswith(start))
    return line.rpartition("  # ")[2]


def write_csv(path: Path, header: str, line: Callable[[int], str]) -> Path:
    path.write_text("".join(f"{text}\n" for text in [header, *map(line, range(ROWS))]))
    return path


def test_csv(tmp_path: Path) -> None:
    log = write_csv(
        tmp_path / "clicks.csv",
        "request_id,ts,user_id,item,price,brand,hour,member,seen,label2,click",
        lambda i: (
            f"r{i},{SECONDS[i]},{USER[i]},i{ITEM[i]},{ITEM[i] + 0.5},b{ITEM[i] % 7},{i % 24},"
            f"{USER[i] % 2 == 0},i{i % 40}|i{(i + 1) % 40},,{int(CLICK[i])}"
        ),
    )
    printed, text = init(tmp_path, str(log))
    says = "from a sample of 600 rows, with 4 questions in comments; 2 columns left out\n"
    assert says in printed
    assert "to decide" not in printed
    assert data_of(text) == {
        "name": "run",
        "source": {"format": "csv", "events": str(log)},
        "label": {"column": "click"},
        "time": {"column": "ts"},
        "user": "user_id",
        "item": "item",
        "split": {"by": "global_time", "valid": 0.1, "test": 0.1},
        "defaults": {"min_count": 2},
        "features": {
            "user_id": token("user", dtype="int"),
            "item": token("item"),
            "price": number("item"),
            "brand": token("item"),
            "hour": token("context", dtype="int"),
            "member": token("user", dtype="int"),
            "seen": {"kind": "sequence", "side": "user", "shares": "item", "max_length": 2},
        },
    }
    assert comment(text, "# - {name: request_id") == "each row has a value of its own"
    assert comment(text, "# - {column: label2") == "no value in the sample that can be read"
    assert comment(text, "- {name: hour").startswith("24 whole numbers: do they count something?")
    says = "it is the same in all rows of a user, and of an item; which side is it?"
    assert comment(text, "- {name: member") == says
    assert comment(text, "- {name: seen") == "items in the order of time, oldest first?"
    manifest = prepared(tmp_path)
    assert [manifest["splits"][split]["rows"] for split in ("train", "valid", "test")] == [
        *(480, 60, 60)
    ]
    assert manifest["counts"]["bad"] == 0


def test_tsv_without_names(tmp_path: Path) -> None:
    """Stars, and nothing says which column is which; Latin-1 in a joined table."""
    lines = (f"{USER[i]}\t{ITEM[i] + 100}\t{1 + i % 5}\t{SECONDS[i]}\n" for i in range(ROWS))
    (tmp_path / "ratings.tsv").write_text("".join(lines))
    films = (
        f"{i}\tCafé number {i} (1995)\t{'War|Drama' if i % 2 else 'War'}\n" for i in range(200)
    )
    (tmp_path / "films.tsv").write_bytes("".join(films).encode("latin-1"))
    _, text = init(tmp_path, str(tmp_path / "ratings.tsv"), "--items", str(tmp_path / "films.tsv"))
    data = data_of(text)
    assert data["source"] == {
        "format": "csv",
        "events": str(tmp_path / "ratings.tsv"),
        "encoding": "latin-1",
        "columns": ["user", "item", "rating", "timestamp"],
        "items": {
            "path": str(tmp_path / "films.tsv"),
            "key": "item",
            "columns": ["item", "items_2", "items_3"],
        },
    }
    assert data["label"] == {"column": "rating", "positive_above": 3}
    assert data["time"] == {"column": "timestamp"}
    assert data["features"] == {
        "user": token("user", dtype="int"),
        "item": token("item", dtype="int"),
        "items_2": {"kind": "text", "side": "item"},
        "items_3": {"kind": "multi_valued", "side": "item", "max_length": 2},
    }
    assert "is more than 3 of 5 a click?" in comment(text, "label:")
    assert comment(text, "columns:").endswith("are these names right?")
    manifest = prepared(tmp_path)
    assert manifest["counts"]["unmatched_items"] == 0
    assert manifest["vocabularies"]["items_3"]["vocabulary_size"] == 3 + 2


def test_json_lines(tmp_path: Path) -> None:
    """Packed, with lists, objects, missing keys, texts of several lines, and milliseconds."""
    with gzip.open(tmp_path / "reviews.jsonl.gz", "wt", encoding="utf-8") as file:
        for i in range(ROWS):
            row: dict[str, Any] = {
                "reviewerID": f"A{USER[i]}",
                "asin": f"B{ITEM[i]}",
                "overall": 4.0 + i // 2 % 2 if CLICK[i] else 1.0 + i % 3,
                "unixReviewTime": int(SECONDS[i]) * 1000,
                "style": {"colour": "rot"},
                "reviewText": f"Schön.\n{i} mal",
                "verified": i % 13 == 0,
            }
            if i % 4:
                row["category"] = ["Books", f"Shelf {ITEM[i] % 5}"]
            if i % 7:
                row["price"] = float(ITEM[i]) + 0.25
            file.write(json.dumps(row) + "\n")
    _, text = init(tmp_path, str(tmp_path / "reviews.jsonl.gz"))
    data = data_of(text)
    assert data["source"]["format"] == "jsonl"
    assert data["label"] == {"column": "overall", "positive_above": 3}
    assert data["time"] == {"column": "unixReviewTime", "unit": "ms"}
    assert (data["user"], data["item"]) == ("reviewerID", "asin")
    assert data["features"] == {
        "reviewerID": token("user"),
        "asin": token("item"),
        "reviewText": {"kind": "text", "side": "context"},
        "verified": token("context", dtype="int"),
        "category": {"kind": "multi_valued", "side": "item", "max_length": 2},
        "price": number("item"),
    }
    assert comment(text, "# - {column: style}") == "an object, which is not read"
    assert prepared(tmp_path)["counts"]["bad"] == 0


def test_parquet(tmp_path: Path) -> None:
    """A folder a day, two outcomes, times with fractions of a second, lists and views."""
    for day in range(3):
        rows = slice(200 * day, 200 * (day + 1))
        count = len(USER[rows])
        table = pa.table(
            {
                "user_id": USER[rows],
                "ad_id": ITEM[rows],
                "clk": CLICK[rows],
                "like": np.arange(count) % 9 == 0,
                "kind": pa.array([f"k{i % 4}" for i in ITEM[rows]]).cast(pa.string_view()),
                "tags": [["a", "b"][: i % 3] for i in range(count)],
                "ts": pa.array(SECONDS[rows] * 1000 + 5, pa.timestamp("ms")),
                "bid": ITEM[rows] / 4.0,
            }
        )
        folder = tmp_path / "log" / f"day=2023-11-1{day}"
        folder.mkdir(parents=True)
        pq.write_table(table, folder / "part-0.parquet")
    _, text = init(tmp_path, str(tmp_path / "log"))
    data = data_of(text)
    assert data["source"] == {"format": "parquet", "events": str(tmp_path / "log")}
    assert data["label"] == {"column": "clk"}
    assert comment(text, "label:").startswith("2 columns could be the label: clk, like; is it this")
    assert data["time"] == {"column": "ts", "unit": "ms"}
    assert comment(text, "time:") == "2 columns could be the time: ts, day; is it this one?"
    assert data["features"] == {
        "user_id": token("user", dtype="int"),
        "ad_id": token("item", dtype="int"),
        "kind": token("item"),
        "tags": {"kind": "multi_valued", "side": "context", "max_length": 2},
        "bid": number("item"),
    }
    assert comment(text, "# - {name: like").startswith("another outcome?")
    assert sum(split["rows"] for split in prepared(tmp_path)["splits"].values()) == ROWS


def test_columns_of_odd_types_and_names(tmp_path: Path) -> None:
    place = np.arange(ROWS)
    columns = {
        "click": CLICK,
        "": place % 4,
        "time": [f"v{i % 7}" for i in place],
        "a\nb": place % 7,
        "c*": place % 9,
        "c_": pa.array([f"k{i % 11}" for i in place]).dictionary_encode(),
        "half": (place % 37).astype(np.float16) / 4,
        "wide": pa.array([2**64 - 1 - i % 5 for i in range(ROWS)], pa.uint64()),
        "vector": [[i / 3, 0.5] for i in place],
        "map": pa.array([[("a", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())),
        "pause": pa.array(place, pa.duration("s")),
        "bytes": [b"\xff"] * ROWS,
        "same": [["a"]] * ROWS,
    }
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    _, text = init(tmp_path, str(tmp_path / "log.parquet"))
    assert data_of(text)["features"] == {
        "time_": token("context", column="time"),
        "a_b": token("context", column="a\nb", dtype="int"),
        "c_": token("context", column="c*", dtype="int"),
        "c__": token("context", column="c_"),
        "half": number("context"),
        "wide": token("context"),
    }
    assert {name: comment(text, f"# - {{column: {name}}}") for name in ("''", "vector", "map")} == {
        "''": "it has no name to read it by",
        "vector": "lists of numbers; a feature is one number",
        "map": "an object, which is not read",
    }
    assert comment(text, "# - {column: pause}") == "of type duration[s]"
    assert comment(text, "# - {column: bytes}") == "no value in the sample that can be read"
    assert comment(text, "# - {name: same") == "it is the same in all sampled rows"
    assert prepared(tmp_path)["counts"]["bad"] == 0


def test_numbered_columns_are_a_pattern(tmp_path: Path) -> None:
    """As ads data are: hashes and counts with a long tail, by splits in files; no user, no time."""
    rng = np.random.default_rng(0)
    names = ["label", *(f"I{i}" for i in range(1, 6)), *(f"C-{i}" for i in range(1, 6))]
    (tmp_path / "ads").mkdir()
    for split, rows in (("train", 500), ("valid", 100), ("test", 100)):
        counts = np.round(rng.lognormal(2, 2, (rows, 5))).astype(int)
        tokens = rng.integers(0, 90, (rows, 5))
        tokens[:, 3] = 7  # constant here, but a column like the others
        lines = [
            f"{i % 4 == 0:d};{';'.join(map(str, counts[i]))};{';'.join(f'{t:04x}z' for t in row)}\n"
            for i, row in enumerate(tokens)
        ]
        (tmp_path / "ads" / f"{split}.csv").write_text(";".join(names) + "\n" + "".join(lines))
    _, text = init(tmp_path, str(tmp_path / "ads"))
    data = data_of(text)
    assert data["source"] == {"format": "csv", "separator": ";"}
    of_split = {
        split: str(tmp_path / "ads" / f"{split}.csv") for split in ("train", "valid", "test")
    }
    assert data["split"] == {"by": "file", **of_split}
    assert data["features"] == {
        "I*": number("context", transform="log"),
        "C-*": token("context"),
    }
    assert {"user", "item", "time"}.isdisjoint(data)
    manifest = prepared(tmp_path)
    assert len(manifest["schema"]["features"]) == 10
    assert [manifest["splits"][s]["rows"] for s in ("train", "valid", "test")] == [500, 100, 100]


@pytest.mark.parametrize(
    ("header", "line", "expected"),
    [
        pytest.param(
            "user,item,click,when",
            lambda i: (
                f"u{USER[i]},i{ITEM[i]},{CLICK[i]:d},2024-03-{1 + i // 24:02d}T{i % 24:02d}:15:00Z"
            ),
            {"time": {"column": "when"}},
            id="iso-8601",
        ),
        pytest.param(
            "user,item,click,hour",
            lambda i: f"u{USER[i]},i{ITEM[i]},{CLICK[i]:d},1410{1 + i // 24:02d}{i % 24:02d}",
            {"time": {"column": "hour", "format": "%y%m%d%H"}},
            id="digits",
        ),
        pytest.param(
            "user,item,click,date",
            lambda i: (
                f"u{USER[i]},i{ITEM[i]},{CLICK[i]:d},{1 + i // 24:02d}.03.2024 {i % 24:02d}:15"
            ),
            {"time": {"column": "date", "format": "%d.%m.%Y %H:%M"}},
            id="format",
        ),
        pytest.param(
            "click,t,c1,c2,n1",
            lambda i: f"{CLICK[i]:d},{i + 1},a{i % 9},b{i % 31},{i % 17 / 4 if i % 5 else ''}",
            {
                "time": {"column": "t"},
                "features": {
                    "c1": token("context"),
                    "c2": token("context"),
                    "n1": number("context"),
                },
            },
            id="no-user-and-steps-of-a-clock",
        ),
        pytest.param(
            "click,user,item,part",
            lambda i: f"{CLICK[i]:d},u{USER[i]},i{ITEM[i]},{('Train', 'Train', 'dev')[i % 3]}",
            {"split": {"by": "column", "column": "part", "train": "Train", "valid": "dev"}},
            id="split-by-column",
        ),
        pytest.param(
            "click,user,item,price",
            lambda i: f"{CLICK[i]:d},u{USER[i]},i{ITEM[i]},{'3e38' if i == 7 else i % 50 / 4}",
            {
                "split": {"by": "random", "valid": 0.1, "test": 0.1},
                "features": {
                    "user": token("user"),
                    "item": token("item"),
                    "price": number("context", transform="log"),
                },
            },
            id="outlier-and-no-time",
        ),
        pytest.param(
            "click;user;item;price;qty",
            lambda i: f"{CLICK[i]:d};u{USER[i]};i{ITEM[i]};{i % 50},25;{'NA' if i % 9 else i % 3}",
            {
                "source": {
                    **{"format": "csv", "events": "log.csv", "separator": ";"},
                    **{"missing": ["NA"], "decimal": ","},
                }
            },
            id="decimal-commas",
        ),
        pytest.param(
            "user_id,item_id,user_age,dwell,click",
            lambda i: (
                f"{USER[i]},{ITEM[i]},{20 + USER[i]},{5 + i % 9 if CLICK[i] else 0},{CLICK[i]:d}"
            ),
            {
                "features": {
                    "user_id": token("user", dtype="int"),
                    "item_id": token("item", dtype="int"),
                    "user_age": token("user", dtype="int"),
                },
            },
            id="known-only-afterwards",
        ),
    ],
)
def test_shapes_of_csv(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    header: str,
    line: Callable[[int], str],
    expected: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "log.csv", header, line)
    result = CliRunner().invoke(app, ["init", "log.csv"])
    assert result.exit_code == 0, result.output
    assert "log.yaml: from a sample of 600 rows, with " in result.output
    data = data_of((tmp_path / "log.yaml").read_text())
    assert {key: data[key] for key in expected} == expected
    assert load_run("log.yaml").data.source.events == "log.csv"  # type: ignore[union-attr]


def test_what_only_the_user_can_decide_is_said(tmp_path: Path) -> None:
    log = write_csv(
        tmp_path / "log.csv",
        "click,user,item,price",
        lambda i: f"{CLICK[i]:d},u{USER[i]},i{ITEM[i]}" + ("" if i % 40 == 0 else ",2.5"),
    )
    printed, text = init(tmp_path, str(log))
    says = "15 of 600 sampled rows are bad, so prepare would stop; most often: 3 values where 4"
    assert f"to decide: {says}" in printed
    assert comment(text, "max_bad_share: 0.01").startswith(says)


def test_bad_rows_of_a_table_are_said(tmp_path: Path) -> None:
    log = write_csv(
        tmp_path / "log.csv", "click,user_id,item_id", lambda i: f"{CLICK[i]:d},{USER[i]},{ITEM[i]}"
    )
    rows = [f"{i},{i / 4}" + (",more" if i % 20 == 5 else "") for i in range(40)]
    (tmp_path / "items.csv").write_text(log_of(["item_id,price", *rows]))
    printed, _ = init(tmp_path, str(log), "--items", str(tmp_path / "items.csv"))
    assert "to decide: 2 of 40 rows of the items are bad, so prepare would stop; most" in printed


def test_a_few_rows_are_no_log(tmp_path: Path) -> None:
    lines = (f'{{"click": 0, "user": {i}, "tag": "{i % 2}"}}\n' for i in range(20))
    (tmp_path / "log.jsonl").write_text("".join(lines))
    printed, text = init(tmp_path, str(tmp_path / "log.jsonl"))
    assert "to decide: the log has 20 rows, too few for training and evaluation" in printed
    assert comment(text, "split:").endswith("are there more?")
    assert comment(text, "label:") == "the sample holds no click; are there some?"


def test_paths_are_relative_to_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("day", "configs"):
        (tmp_path / folder).mkdir()
    for name in ("a.csv", "b.csv"):
        write_csv(
            tmp_path / "day" / name,
            "click,user,item",
            lambda i: f"{CLICK[i]:d},{USER[i]},{ITEM[i]}",
        )
    _, text = init(tmp_path / "configs", "day/a.csv", "day/b.csv")
    data = data_of(text)
    assert data["source"]["events"] == ["../day/a.csv", "../day/b.csv"]
    monkeypatch.chdir("/")
    assert prepared(tmp_path / "configs")["counts"]["read"] == 2 * ROWS


def log_of(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no file 'log.csv'; looked for"),
        ("", "log.csv: empty"),
        ("user,item,click\n", "log.csv: no rows that can be read"),
        ("click\n1\n0\n", "log.csv: no columns: the lines have no number of values in common"),
        ("hello\nyou, there\n", "log.csv: no columns: "),
        (
            log_of(["user,click", *("a,1", "b,1") * 9]),
            "no plausible label: 'click' holds only 1; a",
        ),
        (
            log_of(["user,click", *("a,yes", "b,no") * 9]),
            "'click' holds 'no', 'yes'; write 0 and 1",
        ),
        (log_of(["user,item", *("a,b", "b,c") * 9]), "no plausible label: no column holds 0 and 1"),
        (log_of(["user,click", *("a,1", "a,0") * 9]), "no column that could be a feature"),
        (log_of(["u,u", *("a,1", "a,0") * 9]), "the header names 'u' twice"),
    ],
)
def test_what_is_no_log_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "log.csv").write_text(content)
    result = CliRunner().invoke(app, ["init", "log.csv"])
    assert result.exit_code == 1
    assert says in result.output
    assert len(result.output.splitlines()) == 1
    assert not (tmp_path / "log.yaml").exists()


def test_no_file_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "log.csv", "click,user", lambda i: f"{CLICK[i]:d},{USER[i]}")
    (tmp_path / "log.yaml").write_text("mine")
    result = CliRunner().invoke(app, ["init", "log.csv"])
    assert (result.exit_code, (tmp_path / "log.yaml").read_text()) == (1, "mine")
    assert result.output == "log.yaml: is there already; name another file with --output\n"
    result = CliRunner().invoke(app, ["init", ".", "--output", "new.yaml"])
    assert result.output.startswith(".: all files of this folder are read, and new.yaml would be")
    (tmp_path / "notes.txt").write_text("name: log\n")
    result = CliRunner().invoke(app, ["init", "log.csv", "notes.txt", "--output", "new.yaml"])
    assert result.output.startswith("notes.txt: columns name: log differ from those of log.csv: ")
    result = CliRunner().invoke(app, ["init", "log.csv", "--output", "no/new.yaml"])
    assert result.output == "no/new.yaml: no folder no; make it first\n"


def test_a_table_needs_a_key(tmp_path: Path) -> None:
    log = write_csv(
        tmp_path / "log.csv", "click,user_id,item_id", lambda i: f"{CLICK[i]:d},{USER[i]},{ITEM[i]}"
    )
    output = str(tmp_path / "run.yaml")

    def says(table: str) -> str:
        (tmp_path / "items.csv").write_text(table)
        args = ["init", str(log), "--items", str(tmp_path / "items.csv"), "--output", output]
        result = CliRunner().invoke(app, args)
        assert result.exit_code == 1
        assert len(result.output.splitlines()) == 1
        return result.output

    items = [f"{i},{i / 4}" for i in range(40)]
    assert "its column 'id' has the values of 'item_id' in the log" in says(
        log_of(["id,price", *items])
    )
    assert "its key 'item_id' has 2 values in 18 rows; each row needs one of its own" in says(
        log_of(["item_id,b", *("1,1", "2,2") * 9])
    )
    assert "no column is the key of the items" in says(log_of(["a,b", *("x,1", "y,2") * 9]))
    tabs = log_of(["item_id|price", *(item.replace(",", "|") for item in items)])
    assert "one source has one separator of values" in says(tabs)
