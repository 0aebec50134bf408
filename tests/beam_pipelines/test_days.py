"""A log by days and domains, against rows worked out by hand."""

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from beam_pipelines import days
from beam_pipelines.days import main, write_days
from tfctr.config import ConfigError
from tfctr.data.day_log import DOMAINS, DayLog
from tfctr.data.days import DaysDataset
from tfctr.data.hashed import to_buckets
from tfctr.data.manifest import DataError
from tfctr.data.records import read_columns
from tfctr.data.summary import warnings_of_days
from tfctr.data.times import SECONDS_PER_DAY
from tfctr.frameworks.ecdctr.config import DaysConfig, load_days
from tfctr.schema import FIRST_TOKEN_ID, OOV_ID
from tfctr.training.divergence import extreme_inputs

D1, D2, D3, D4 = (datetime.date(1970, 1, day) for day in (11, 12, 13, 14))
HEADER = "time,user,item,price,where,click\n"
ROWS = {  # user, item, price, domain, click
    D1: ["ann,apple,1,web,1", "bob,apple,3,web,0", "ann,pear,2,ad,0"],
    D2: ["bob,plum,9,ad,1", "ann,plum,1,web,0", "cy,apple,,web,1"],
    D3: ["cy,fig,5,ad,0", "cy,pear,2,ad,1", "dan,apple,4,web,0"],
    D4: ["ann,fig,2,web,0"],
}
FEATURES = [
    {"name": "user", "kind": "categorical", "side": "user"},
    {"name": "item", "kind": "categorical", "side": "item", "min_count": 2},
    {"name": "price", "kind": "numeric", "side": "item"},
    {"name": "where", "kind": "categorical", "side": "context"},
]


def lines(day: datetime.date, rows: list[str]) -> str:
    start = (day - datetime.date(1970, 1, 1)).days * SECONDS_PER_DAY
    return "".join(f"{start + 100 * i},{row}\n" for i, row in enumerate(rows))


LISTED = {"tokens": {"files": "items.parquet"}}


def config(folder: Path, events: str = "log.csv", **changes: Any) -> DaysConfig:
    data = {
        "name": "raw",
        "source": {"format": "csv", "events": events},
        "label": {"column": "click"},
        "time": {"column": "time"},
        "user": "user",
        "item": "item",
        "features": FEATURES,
        "directory": str(folder),
    } | changes.pop("data", {})
    content = {
        "name": "days",
        "data": data,
        "domain": {"feature": "where", "organic": "web", "ads": "ad"},
        "first": D1,
        "measured_days": 2,
    }
    return DaysConfig.model_validate(content | changes)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """One log of all days."""
    text = HEADER + "".join(lines(day, rows) for day, rows in ROWS.items())
    (tmp_path / "log.csv").write_text(text)
    return tmp_path


@pytest.fixture
def by_day(tmp_path: Path) -> Path:
    write_by_day(tmp_path)
    return tmp_path


def write_by_day(folder: Path) -> None:
    """A file a day."""
    for day, rows in ROWS.items():
        (folder / f"log-{day}.csv").write_text(HEADER + lines(day, rows))


def tokens(log: DayLog, name: str, through: int | None = None) -> list[Any]:
    return log.vocabulary(name, through).tokens.to_pylist()


def written(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_tokens_come_with_their_day_and_stay(log: Path) -> None:
    found = write_days(config(log), D4, str(log / "days"))
    # Of each day by count, then by token; items come when they were seen twice in all.
    assert tokens(found, "user", 0) == ["ann", "bob"]
    assert tokens(found, "user", 1) == ["ann", "bob", "cy"]
    assert tokens(found, "user") == ["ann", "bob", "cy", "dan"]
    assert tokens(found, "item", 0) == ["apple"]
    assert tokens(found, "item", 1) == ["apple", "plum"]
    assert tokens(found, "item") == ["apple", "plum", "pear", "fig"]
    assert found.sizes(0) == {"user": 5, "item": 4, "where": 5}
    assert found.schema()["user"].num_ids == FIRST_TOKEN_ID + 4


def test_rows_are_put_by_day_and_domain_with_the_ids_of_then(log: Path) -> None:
    found = write_days(config(log), D4, str(log / "days"))

    def rows(day: datetime.date, domain: str) -> list[list[float]]:
        names, layout = ["user", "item", "label"], found.log["layout"]
        parts = [
            read_columns(f"{found.folder}/{shard['name']}", layout, names)
            for shard in found.shards(day, domain)
        ]
        return [
            list(row)
            for part in parts
            for row in zip(*(part[name][:, 0].tolist() for name in names), strict=True)
        ]

    ann, bob, cy, dan = range(FIRST_TOKEN_ID, FIRST_TOKEN_ID + 4)
    apple, plum, pear, fig = range(FIRST_TOKEN_ID, FIRST_TOKEN_ID + 4)
    assert rows(D1, "organic") == [[ann, apple, 1.0], [bob, apple, 0.0]]
    assert rows(D1, "ads") == [[ann, OOV_ID, 0.0]]  # a pear was seen but once
    assert rows(D2, "ads") == [[bob, plum, 1.0]]
    assert rows(D2, "organic") == [[ann, plum, 0.0], [cy, apple, 1.0]]
    assert rows(D3, "ads") == [[cy, OOV_ID, 0.0], [cy, pear, 1.0]]
    assert rows(D3, "organic") == [[dan, apple, 0.0]]
    assert rows(D4, "organic") == [[ann, fig, 0.0]]
    assert found.shards(D4, "ads") == []
    price = found.raw_schema["price"]
    assert (price.mean, price.std) == (3.2, pytest.approx(np.std([1, 3, 2, 9, 1])))  # of two days


def test_numbers_far_from_those_of_the_measured_days_are_told(by_day: Path) -> None:
    far = lines(D3, ["cy,fig,3e9,ad,0", "cy,fig,,ad,0", "cy,pear,-1e12,web,1"])
    (by_day / f"log-{D3}.csv").write_text(HEADER + far)
    made = config(by_day, "log-{day}.csv")
    first = write_days(made, D2, str(by_day / "days"))
    assert warnings_of_days(first, [D1, D2]) == []
    assert first.shards(D2, "ads")[0]["numbers"] == {"price": [9.0, 9.0]}
    found = write_days(made, D4, str(by_day / "days"))
    (line,) = warnings_of_days(found, [D3, D4])
    assert line.startswith("feature 'price': -1e+12 on 1970-01-13 is 3.3")
    assert "deviations from the mean of the rows of the first days; write transform" in line
    assert warnings_of_days(found, [D4]) == []
    parts = [(D2, "ads"), (D3, "ads")]
    dataset = DaysDataset(found, {"train": parts}, 3)
    assert dataset.manifest["numbers"] == {"price": {"min": 9.0, "max": 3e9}}
    assert extreme_inputs(dataset, ["price"]) == ["price = 3e+09"]


def test_a_day_at_a_time_is_all_at_once(log: Path) -> None:
    write_days(config(log), D4, str(log / "at-once"))
    for day in (D2, D3, D4, D4):
        write_days(config(log), day, str(log / "one-by-one"))
    assert written(log / "one-by-one") == written(log / "at-once")


def test_hashed_tokens_come_as_buckets_a_day_at_a_time_too(log: Path) -> None:
    hashed = [f | {"hash_buckets": 3} if f["name"] == "user" else f for f in FEATURES]
    changed = config(log, data={"features": hashed})
    write_days(changed, D4, str(log / "at-once"))
    for day in (D2, D3, D4):
        found = write_days(changed, day, str(log / "one-by-one"))
    assert written(log / "one-by-one") == written(log / "at-once")
    users = ["ann", "bob", "cy", "dan"]  # in the order of their days
    buckets = to_buckets(pa.array(users), 3).to_pylist()
    assert sorted(tokens(found, "user")) == sorted(set(buckets))
    vocabulary = found.vocabulary("user")
    ids = [FIRST_TOKEN_ID + tokens(found, "user").index(bucket) for bucket in buckets]
    assert vocabulary.ids(pa.array(users)).tolist() == ids


def test_files_by_day_are_the_same_days(by_day: Path) -> None:
    one = by_day / "log.csv"
    one.write_text(HEADER + "".join(lines(day, rows) for day, rows in ROWS.items()))
    of_files = write_days(config(by_day, "log-{day}.csv"), D4, str(by_day / "files"))
    of_one = write_days(config(by_day), D4, str(by_day / "days"))
    assert [*of_files.days] == [*of_one.days] == [D1, D2, D3, D4]
    for day in of_one.days:
        assert tokens(of_files, "item") == tokens(of_one, "item")
        assert of_files.rows(day, "ads") == of_one.rows(day, "ads")


def test_a_day_may_have_several_files(by_day: Path) -> None:
    for day, rows in ROWS.items():
        for name, part in (("web", "web"), ("ad", "ad")):
            chosen = [row for row in rows if row.split(",")[3] == part]
            (by_day / f"{name}-{day}.csv").write_text(HEADER + lines(day, chosen))
    source = {"format": "csv", "events": ["web-{day}.csv", "ad-{day}.csv"]}
    both = write_days(config(by_day, data={"source": source}), D4, str(by_day / "both"))
    one = write_days(config(by_day, "log-{day}.csv"), D4, str(by_day / "one"))
    assert [*both.days] == [D1, D2, D3, D4]
    for day in both.days:
        assert [both.rows(day, d) for d in DOMAINS] == [one.rows(day, d) for d in DOMAINS]
    assert tokens(both, "item") == tokens(one, "item")


def test_what_came_later_is_unknown_as_of_a_day(log: Path) -> None:
    found = write_days(config(log), D4, str(log / "days"))
    parts = [(day, "organic") for day in (D2, D3)]
    names = ["user", "item"]
    then = DaysDataset(found, {"test": parts}, through=0)
    assert then.columns("test", names)["user"].tolist() == [3, OOV_ID, OOV_ID]
    batch, _ = next(iter(then.test(8, features=names)))
    assert batch["item"].numpy().tolist() == [OOV_ID, 3, 3]  # no plum yet
    now = DaysDataset(found, {"test": parts}, through=3)
    assert now.columns("test", names)["user"].tolist() == [3, 5, 6]
    assert (now.schema["user"].num_ids, then.schema["user"].num_ids) == (7, 5)
    now.write_vocabularies(log / "vocabularies")
    assert now.vocabulary_file("user").read_text() == "ann\nbob\ncy\ndan\n"


def test_a_day_that_is_not_there_is_written_when_it_comes(by_day: Path) -> None:
    late = (by_day / f"log-{D3}.csv").read_text()
    (by_day / f"log-{D3}.csv").unlink()
    days = config(by_day, "log-{day}.csv")
    found = write_days(days, D4, str(by_day / "days"))
    assert [*found.days] == [D1, D2, D4]
    before = tokens(found, "user")
    (by_day / f"log-{D3}.csv").write_text(late)
    found = write_days(days, D4, str(by_day / "days"))
    assert [*found.days] == [D1, D2, D4, D3]  # as they came
    assert tokens(found, "user") == [*before, "dan"]
    assert tokens(found, "item") == ["apple", "plum", "fig", "pear"]


def test_a_day_of_empty_files_is_not_there_yet(by_day: Path) -> None:
    for day, rows in ROWS.items():
        names, start = (
            HEADER.strip().split(","),
            (day - datetime.date(1970, 1, 1)).days * SECONDS_PER_DAY,
        )
        found = [dict(zip(names, [start, *row.split(",")], strict=True)) for row in rows]
        text = "".join(f"{json.dumps(row)}\n" for row in found)
        (by_day / f"log-{day}.jsonl").write_text("" if day == D3 else text)
    source = {"format": "jsonl", "events": "log-{day}.jsonl"}
    log = write_days(config(by_day, data={"source": source}), D2, str(by_day / "days"))
    log = write_days(config(by_day, data={"source": source}), D3, str(by_day / "days"))
    assert [*log.days] == [D1, D2]
    log = write_days(config(by_day, data={"source": source}), D4, str(by_day / "days"))
    assert [*log.days] == [D1, D2, D4]


def test_a_day_is_whole_when_its_marker_is_there(by_day: Path) -> None:
    days = config(by_day, "log-{day}.csv", ready="done-{day}")
    for day in (D1, D2):
        (by_day / f"done-{day}").touch()
    assert [*write_days(days, D3, str(by_day / "days")).days] == [D1, D2]
    (by_day / f"done-{D3}").touch()
    assert [*write_days(days, D3, str(by_day / "days")).days] == [D1, D2, D3]


def test_rows_of_another_day_than_their_file_are_set_aside(by_day: Path) -> None:
    path = by_day / f"log-{D3}.csv"
    path.write_text(path.read_text() + lines(D2, ["ann,apple,1,web,1"]))
    days = config(by_day, "log-{day}.csv", data={"max_bad_share": 0.3})
    found = write_days(days, D3, str(by_day / "days"))
    assert found.rows(D2, "organic") == 2
    (letters,) = (by_day / "days" / "dead_letters" / str(D3)).glob("*.jsonl")
    (letter,) = [json.loads(line) for line in letters.read_text().splitlines()]
    assert letter["reason"] == f"time: of another day than its file, {D3}"
    assert '"user": "ann"' in letter["text"]


def test_too_many_bad_rows_write_no_day(by_day: Path) -> None:
    days = config(by_day, "log-{day}.csv")
    write_days(days, D2, str(by_day / "days"))
    path = by_day / f"log-{D3}.csv"
    path.write_text(path.read_text().replace(",web,", ",radio,"))
    with pytest.raises(DataError, match=r"1 of 3 rows of the events are bad.*where: not a domain"):
        write_days(days, D3, str(by_day / "days"))
    assert [*DayLog.open(by_day / "days").days] == [D1, D2]
    assert not [*(by_day / "days").glob(".tmp-*")]
    assert [*(by_day / "days" / "dead_letters" / str(D3)).iterdir()]


def test_files_that_changed_behind_a_written_day_are_refused(by_day: Path) -> None:
    days = config(by_day, "log-{day}.csv")
    write_days(days, D2, str(by_day / "days"))
    path = by_day / f"log-{D1}.csv"
    path.write_text(path.read_text() + lines(D1, ["eve,apple,1,web,1"]))
    with pytest.raises(DataError, match=f"the files of {D1} have changed"):
        write_days(days, D3, str(by_day / "days"))


def test_a_vocabulary_that_shrank_is_refused(log: Path) -> None:
    write_days(config(log), D4, str(log / "days"))
    path = log / "days" / str(D2) / "vocabularies" / "user.txt"
    content = path.read_text()
    path.write_text("")
    found = DayLog.open(log / "days")
    with pytest.raises(DataError, match=r"user.txt: changed; the vocabulary shrank or changed"):
        found.vocabulary("user")
    assert tokens(found, "user", 0) == ["ann", "bob"]
    path.write_text(content)
    (log / "days" / str(D2) / "manifest.json").unlink()
    with pytest.raises(DataError, match="written as number 1 is missing"):
        DayLog.open(log / "days")


def test_the_measured_days_come_first(log: Path) -> None:
    with pytest.raises(DataError, match="the first 2 days are written together"):
        write_days(config(log), D1, str(log / "days"))
    assert not (log / "days").exists()


def test_another_config_needs_another_folder(log: Path) -> None:
    write_days(config(log), D2, str(log / "days"))
    with pytest.raises(DataError, match="written with another config"):
        write_days(config(log, measured_days=1), D2, str(log / "days"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"domain": {"feature": "price"}}, "domain.feature: 'price' is not a categorical feature"),
        ({"name": "raw"}, "name: 'raw' is the data's name too"),
        ({"data": {"user": None}}, "needs the keys 'user' and 'item'"),
        ({"data": {"min_history": 5}}, "data: min_history is 5; a log by day does not count"),
        (
            {"data": {"split": {"hold_out": {"feature": "item", "share": 0.1}}}},
            "data: split.hold_out leaves out training rows; a log by day has no split",
        ),
        (
            {"data": {"features": [f | LISTED if f["name"] == "item" else f for f in FEATURES]}},
            "data: feature 'item' has tokens of files; vocabularies of a log by day grow by",
        ),
        ({"ready": "done"}, "ready: needs {day} in the path, found 'done'"),
    ],
)
def test_configs_that_cannot_be(log: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(log, **changes)


def test_a_day_before_the_first_is_refused(log: Path) -> None:
    day = D1 - datetime.timedelta(days=1)
    with pytest.raises(ConfigError, match=f"found the day {day}; the log starts on {D1}"):
        write_days(config(log), day, str(log / "days"))


def test_two_jobs_at_once_are_one_clear_error(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = days.job.run

    def run_beside_another(*arguments: Any) -> Any:
        monkeypatch.setattr(days.job, "run", run)
        monkeypatch.setattr(days, "_clear_leftovers", lambda _: None)
        write_days(config(log), D2, str(log / "days"))
        return run(*arguments)

    monkeypatch.setattr(days.job, "run", run_beside_another)
    with pytest.raises(DataError, match="another job has written 1970-01-11 meanwhile"):
        write_days(config(log), D2, str(log / "days"))
    assert list(DayLog.open(str(log / "days")).days) == [D1, D2]


def test_the_job_is_a_command(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    content = config(log).model_dump(mode="json", exclude_none=True)
    (log / "days.yaml").write_text(yaml.safe_dump(content))
    assert load_days(log / "days.yaml").domain.ads == "ad"
    args = ["--config", str(log / "days.yaml"), "--output", str(log / "days"), "--through"]
    assert main([*args, str(D4)]) == 0
    assert "4 days through 1970-01-14, rows: {'organic': 6, 'ads': 4}" in capsys.readouterr().out
    assert main([*args, "1970-01-01"]) == 1
    assert "the log starts on" in capsys.readouterr().err
