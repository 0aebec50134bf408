"""Histories in a log by days, against those worked out by hand."""

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import feather

from beam_pipelines.days import write_days
from beam_pipelines.transforms.carried_events import carried_days
from tests.beam_pipelines.test_days import (
    D1,
    D2,
    D3,
    D4,
    FEATURES,
    HEADER,
    ROWS,
    by_day,  # noqa: F401
    config,
    lines,
    log,  # noqa: F401
    written,
)
from tfctr.data.day_log import DOMAINS, DayLog
from tfctr.data.records import read_columns
from tfctr.frameworks.ecdctr.config import DaysConfig
from tfctr.schema import FIRST_TOKEN_ID, OOV_ID, PAD_ID

HISTORIES = [
    {"name": "items", "kind": "history", "shares": "item", "max_length": 3},
    {"name": "places", "kind": "history", "column": "where", "max_length": 2},
]
APPLE, PLUM = FIRST_TOKEN_ID, FIRST_TOKEN_ID + 1
UNKNOWN = OOV_ID  # too rare on the day of the event
FOUND = {  # of each row in order of the domains, then of the log
    D1: [[], [], [APPLE]],
    D2: [[APPLE, UNKNOWN], [], [APPLE]],
    D3: [[], [APPLE], [APPLE, UNKNOWN]],
    D4: [[APPLE, UNKNOWN, PLUM]],
}


def with_histories(folder: Path, events: str = "log.csv", **data: Any) -> DaysConfig:
    return config(folder, events, data={"features": [*FEATURES, *HISTORIES]} | data)


def histories(found: DayLog, name: str = "items") -> dict[datetime.date, list[list[int]]]:
    shards = {
        day: [s["name"] for domain in DOMAINS for s in found.shards(day, domain)]
        for day in found.days
    }
    return {
        day: [
            [token for token in row if token != PAD_ID]
            for shard in names
            for row in read_columns(f"{found.folder}/{shard}", found.log["layout"], [name])[
                name
            ].tolist()
        ]
        for day, names in shards.items()
    }


def test_histories_are_of_earlier_rows_with_the_ids_of_their_day(log: Path) -> None:  # noqa: F811
    found = write_days(with_histories(log), D4, str(log / "days"))
    assert histories(found) == FOUND
    web, ad = FIRST_TOKEN_ID, FIRST_TOKEN_ID + 1  # of the history's own vocabulary
    assert histories(found, "places") == {
        D1: [[], [], [web]],
        D2: [[web, ad], [], [web]],
        D3: [[], [web], [web, ad]],
        D4: [[ad, web]],
    }


def test_a_day_at_a_time_is_all_at_once(log: Path) -> None:  # noqa: F811
    write_days(with_histories(log), D4, str(log / "at-once"))
    for day in (D2, D3, D4):
        write_days(with_histories(log), day, str(log / "one-by-one"))
    assert written(log / "one-by-one") == written(log / "at-once")


def test_only_the_latest_events_are_carried(log: Path) -> None:  # noqa: F811
    found = write_days(with_histories(log), D4, str(log / "days"))
    files = sorted((Path(found.folder) / str(D4) / "events").iterdir())
    table = pa.concat_tables([feather.read_table(file) for file in files])
    assert table.num_rows == 3 + 2 + 3 + 1  # of ann, bob, cy and dan
    assert max(table.group_by("user").aggregate([("day", "count")])["day_count"].to_pylist()) == 3


def test_files_by_day_have_the_same_histories(by_day: Path) -> None:  # noqa: F811
    for day in (D2, D3, D4):
        found = write_days(with_histories(by_day, "log-{day}.csv"), day, str(by_day / "days"))
    assert histories(found) == FOUND


def test_a_late_day_reads_what_was_before_it_and_is_read_by_later_ones(
    by_day: Path,  # noqa: F811
) -> None:
    """The third day comes behind the fourth; on a fifth all have one more row."""
    fifth, late = datetime.date(1970, 1, 15), by_day / f"log-{D3}.csv"
    content = late.read_text()
    late.unlink()
    made = with_histories(by_day, "log-{day}.csv")
    write_days(made, D4, str(by_day / "days"))
    late.write_text(content)
    found = write_days(made, D4, str(by_day / "days"))
    # With this day, the last to be written, figs and pears have been seen twice.
    assert [*found.vocabulary("item").tokens.to_pylist()] == ["apple", "plum", "fig", "pear"]
    fig, pear = PLUM + 1, PLUM + 2
    assert histories(found)[D3] == [[], [APPLE], [APPLE, fig]]
    rows = ["ann,apple,1,web,1", "cy,apple,1,web,1"]
    (by_day / f"log-{fifth}.csv").write_text(HEADER + lines(fifth, rows))
    found = write_days(made, fifth, str(by_day / "days"))
    [of_ann, of_cy] = histories(found)[fifth]
    assert of_ann == [UNKNOWN, PLUM, UNKNOWN]
    assert of_cy == [APPLE, fig, pear]


def test_rows_that_are_left_out_are_events_all_the_same(tmp_path: Path) -> None:
    rows = ROWS | {D2: ["bob,plum,9,ad,1", "ann,plum,1,web,-1", "cy,apple,,web,1"]}
    text = HEADER + "".join(lines(day, of_day) for day, of_day in rows.items())
    (tmp_path / "log.csv").write_text(text)
    label = {"column": "click", "drop": [-1]}
    found = write_days(with_histories(tmp_path, label=label), D4, str(tmp_path / "days"))
    assert found.rows(D2, "organic") == 1
    # Without ann's row a plum is rare; it is what she saw before the fig all the same.
    assert histories(found)[D4] == [[APPLE, UNKNOWN, UNKNOWN]]
    clicks = with_histories(tmp_path, label=label, history_events="clicks", name="clicks")
    found = write_days(clicks, D4, str(tmp_path / "clicked"))
    assert histories(found)[D4] == [[APPLE]]


def test_days_are_read_that_tell_all_that_was_before() -> None:
    written = {D1: {"number": 0}, D2: {"number": 1}, D4: {"number": 2}, D3: {"number": 3}}
    fifth = datetime.date(1970, 1, 15)
    assert carried_days(written, [fifth]) == [D3, D4]
    assert carried_days({D1: {"number": 0}, D2: {"number": 1}}, [D3, D4]) == [D2]
    assert carried_days({}, [D1]) == []
    assert carried_days({D1: {"number": 0}, D4: {"number": 1}}, [D3, fifth]) == [D1, D4]


def test_a_missing_file_of_events_is_named(log: Path) -> None:  # noqa: F811
    write_days(with_histories(log), D2, str(log / "days"))
    gone = log / "days" / str(D2) / "events" / "part-00003.feather"
    gone.unlink()
    with pytest.raises(Exception, match=r"part-00003\.feather"):
        write_days(with_histories(log), D3, str(log / "days"))
