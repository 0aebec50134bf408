"""MovieLens as organic rows and ads, day by day."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfctr.config import DataConfig
from tfctr.data.sources import open_source
from tfctr.data.times import SECONDS_PER_DAY
from tfctr.data.world import START

COLUMNS = ["user_id", "movie_id", "rating", "domain", "click", "day_time"]


def read(path: Path, **settings: Any) -> list[tuple[Any, ...]]:
    config = DataConfig(
        name="test",
        source={"format": "movielens", "path": str(path), "two_domains": settings},
        label={"column": "click", "drop": [-1]},
        time={"column": "day_time"},
        features=[{"name": "user_id", "kind": "categorical", "side": "user"}],
        directory=".",
    )
    events = open_source(config).events
    assert set(COLUMNS) < set(events.names())
    found: list[tuple[Any, ...]] = []
    for piece in events.pieces():
        table = events.read(piece, COLUMNS).table
        found += zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)
    return found


def write(folder: Path, ratings: str) -> Path:
    (folder / "ratings.dat").write_text(ratings)
    (folder / "users.dat").write_text("1::F::1::10::48067\n")
    (folder / "movies.dat").write_text("10::A (1995)::Drama\n")
    return folder


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """100 users by 40 movies; stars go round, times are of few sittings."""
    lines = [
        f"{u}::{m}::{(u + m) % 5 + 1}::{956_703_932 + (u % 7) * 10_000_000 + u * 40 + m}\n"
        for u in range(1, 101)
        for m in range(1, 41)
    ]
    return write(tmp_path, "".join(lines))


def test_ads_are_some_ratings_of_some_movies_and_need_five_stars(grid: Path) -> None:
    rows = read(grid, days=10, ads_items=0.3, ads_share=0.5)
    assert len(rows) == 4_000
    ads = [row for row in rows if row[3] == "ads"]
    advertised = {movie for _, movie, *_ in ads}
    assert 5 < len(advertised) < 20
    of_those = [row for row in rows if row[1] in advertised]
    assert 0.4 < len(ads) / len(of_those) < 0.6
    clicks = {
        "organic": {b"1": 0, b"2": 0, b"3": -1, b"4": 1, b"5": 1},
        "ads": {b"1": 0, b"2": 0, b"3": -1, b"4": 0, b"5": 1},
    }
    for _, _, stars, domain, click, _ in rows:
        assert click == clicks[domain][stars]
    assert not any(row[3] == "ads" for row in read(grid, days=10, ads_share=0.0))
    everything = read(grid, days=10, ads_items=1.0, ads_share=1.0)
    assert all(row[3] == "ads" for row in everything)


def test_days_have_equally_many_rows_in_the_order_of_time(grid: Path) -> None:
    rows = read(grid, days=10)
    lines = [line.split("::") for line in (grid / "ratings.dat").read_text().splitlines()]
    time = np.array([int(line[3]) for line in lines])
    day_time = np.array([row[5] for row in rows])
    order = np.argsort(time, kind="stable")
    assert (np.diff(day_time[order]) >= 0).all()
    days = Counter(((day_time - START) // SECONDS_PER_DAY).tolist())
    assert sorted(days) == [*range(10)]
    assert all(395 <= number <= 405 for number in days.values())


def test_what_is_no_number_has_no_click_and_no_time(tmp_path: Path) -> None:
    lines = "1::10::5::978300760\n1::10::five::978300761\n1::10::4::soon\n1::10::1::978300763\n"
    first, second, third, last = read(write(tmp_path, lines), days=2, ads_items=0.0)
    assert (first[4], second[4], third[4], last[4]) == (1, None, 1, 0)
    assert third[5] is None
    assert first[5] < second[5] < last[5]
    assert (last[5] - START) // SECONDS_PER_DAY == 1
