"""Each example's earlier events, against plain loops over the log."""

import json
import random
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.prepare import prepare
from beam_pipelines.transforms.histories import Past, _write_past, find_earlier, read_past
from beam_pipelines.transforms.split import EXAMPLES, SplitPiece
from tests.conftest import content_of, world_config
from tfctr import backbones, metrics
from tfctr.config import ConfigError, DataConfig, load_data
from tfctr.data import Dataset
from tfctr.data.clean import num_examples
from tfctr.data.manifest import DataError
from tfctr.data.raw_rows import raw_rows
from tfctr.data.users import rows_by_bucket, sorted_rows
from tfctr.data.vocabulary import Vocabulary
from tfctr.optimizers import LazyAdam
from tfctr.schema import OOV_ID, PAD_ID, History, Schema, Sequence

CONFIGS = Path(__file__).parents[2] / "configs"


def categorical(name: str, side: str = "context", **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "categorical", "side": side, **more}


def history(name: str, max_length: int = 4, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "history", "max_length": max_length, **more}


FEATURES = [
    history("past_stars", dtype="int", column="stars"),
    categorical("user", "user"),
    categorical("item", "item", dtype="int", min_count=2),
    history("past_item", shares="item"),
    history("past_two", 2, shares="item"),
    history("past_city", shares="city"),
    categorical("city", "item"),
]
CONFIG = {
    "name": "test",
    "source": {
        "format": "csv",
        "events": "log-*.csv",
        "items": {"path": "items.csv", "key": "item"},
    },
    "label": {"column": "stars", "positive_above": 3, "drop": [3]},
    "time": {"column": "time"},
    "user": "user",
    "features": FEATURES,
    "split": {"by": "global_time", "valid": 0.2, "test": 0.2},
    "max_bad_share": 0.5,
}


def config(folder: Path, **changes: Any) -> DataConfig:
    return DataConfig.model_validate(CONFIG | {"directory": str(folder)} | changes)


def all_rows(data: Dataset, names: list[str]) -> dict[str, np.ndarray]:
    """Columns over all splits, rows in the order of the log."""
    parts = [data.columns(split, ["row_id", *names]) for split in EXAMPLES if data.num_rows(split)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["row_id"])
    return {name: values[order] for name, values in columns.items()}


# --- worked out by hand ---------------------------------------------------------------------------

ITEMS = "item,city\n1,Oslo\n2,Rome\n3,\n"  # item 3 has no city, item 4 is not in the table
LOGS = (
    """user,item,stars,time
ann,1,5,100
bob,1,1,100
ann,2,3,101
ann,3,4,103
ann,1,2,103
eve,2,1,100
""",
    """user,item,stars,time
bob,2,4,102
ann,4,5,102
cid,2,4,104
,2,4,104
ann,1,five,104
bob,1,5,105
dan,1,1,106
ann,2,5,107
ann,2,5,108
""",
)
# Cuts at 104 and 106. Of the training rows' items 3 and 4 are too rare. The stars' own vocabulary
# holds those of the training time, dropped ones too: 1, 4 and 5 twice, 2 and 3 once.
I1, I2, RARE = 3, 4, OOV_ID
S1, S4, S5, S2, S3 = 3, 4, 5, 6, 7
OSLO, ROME = 3, 4
NOTHING = ([0, 0, 0, 0], [0, 0, 0, 0], [0, 0], [0, 0, 0, 0])
BY_HAND = {  # row_id: past_stars, past_item, past_two, past_city
    0: NOTHING,
    1: NOTHING,
    # ann at 103, twice: 100, 101 (dropped, but it happened), 102
    3: ([S5, S3, S5, 0], [I1, I2, RARE, 0], [I2, RARE], [OSLO, ROME, 0, 0]),
    4: ([S5, S3, S5, 0], [I1, I2, RARE, 0], [I2, RARE], [OSLO, ROME, 0, 0]),
    5: NOTHING,
    6: ([S1, 0, 0, 0], [I1, 0, 0, 0], [I1, 0], [OSLO, 0, 0, 0]),
    7: ([S5, S3, 0, 0], [I1, I2, 0, 0], [I1, I2], [OSLO, ROME, 0, 0]),
    8: NOTHING,
    # bob at 105, a validation row
    11: ([S1, S4, 0, 0], [I1, I2, 0, 0], [I1, I2], [OSLO, ROME, 0, 0]),
    12: NOTHING,
    # ann at 107: 101, 102, both of 103 in the order of the log
    13: ([S3, S5, S4, S2], [I2, RARE, RARE, I1], [RARE, I1], [ROME, 0, 0, OSLO]),
    # ann at 108, a test row: the one of 107, a test row itself, is earlier
    14: ([S5, S4, S2, S5], [RARE, RARE, I1, I2], [I1, I2], [0, 0, OSLO, ROME]),
}
CLICKS_BY_HAND = {  # past_item; only what was given more than 3 stars
    0: [0, 0, 0, 0],
    1: [0, 0, 0, 0],
    3: [I1, RARE, 0, 0],
    4: [I1, RARE, 0, 0],
    5: [0, 0, 0, 0],
    6: [0, 0, 0, 0],
    7: [I1, 0, 0, 0],
    8: [0, 0, 0, 0],
    11: [I2, 0, 0, 0],
    12: [0, 0, 0, 0],
    13: [I1, RARE, RARE, 0],
    14: [I1, RARE, RARE, I2],
}


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("by_hand")
    (folder / "items.csv").write_text(ITEMS)
    for i, log in enumerate(LOGS):
        (folder / f"log-{i}.csv").write_text(log)
    prepare(config(folder), str(folder / "data"))
    return folder


def test_every_history_is_as_worked_out(by_hand: Path) -> None:
    data = Dataset.open(by_hand / "data")
    names = ["past_stars", "past_item", "past_two", "past_city"]
    found = all_rows(data, names)
    assert found["row_id"].tolist() == list(BY_HAND)
    for i, name in enumerate(names):
        np.testing.assert_array_equal(
            found[name], [row[i] for row in BY_HAND.values()], err_msg=name
        )
    assert data.manifest["cuts"] == {"valid_from": 104, "test_from": 106}
    assert data.vocabulary_file("past_stars").read_text().split() == ["1", "4", "5", "2", "3"]
    assert data.vocabulary_file("item").read_text().split() == ["1", "2"]


def test_missing_counts_the_rows_without_any_event(by_hand: Path) -> None:
    manifest = Dataset.open(by_hand / "data").manifest
    assert manifest["counts"] == {"read": 15, "bad": 2, "dropped": 1, "unmatched_items": 1}
    assert manifest["splits"]["train"]["features"]["past_item"] == {"missing": 3, "unknown": 2}
    # Row 14's oldest event is there, though it has no city.
    assert manifest["splits"]["test"]["features"]["past_city"] == {"missing": 1, "unknown": 0}


def test_only_clicks_where_the_config_says_so(by_hand: Path) -> None:
    prepare(config(by_hand, history_events="clicks"), str(by_hand / "clicks"))
    data = Dataset.open(by_hand / "clicks")
    found = all_rows(data, ["past_item"])
    assert found["row_id"].tolist() == list(CLICKS_BY_HAND)
    assert found["past_item"].tolist() == list(CLICKS_BY_HAND.values())


# --- against plain loops --------------------------------------------------------------------------


def plain_histories(
    events: list[tuple[Any, int, Any]], rows: list[tuple[Any, int]], length: int
) -> list[list[Any]]:
    """For each row `(user, time)` the values of its user's latest earlier events, oldest first."""
    found = []
    for user, time in rows:
        earlier = sorted(  # stable: equal times stay in the order of the log
            ((when, value) for who, when, value in events if who == user and when < time),
            key=lambda event: event[0],
        )
        found.append([value for _, value in earlier][-length:])
    return found


@st.composite
def pieces_of_users(draw: st.DrawFn) -> list[list[tuple[int, int, bool, bool]]]:
    row = st.tuples(st.integers(1, 3), st.integers(0, 6), st.booleans(), st.booleans())
    return draw(st.lists(st.lists(row, max_size=12), min_size=1, max_size=4))


@given(pieces_of_users(), st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_a_bucket_of_users_is_what_a_plain_loop_finds(
    tmp_path_factory: pytest.TempPathFactory,
    pieces: list[list[tuple[int, int, bool, bool]]],
    length: int,
) -> None:
    """Users, times, examples or dropped rows, events or none: back in their pieces."""
    folder = tmp_path_factory.mktemp("pieces")
    parts: dict[int, list[Any]] = {i: [] for i in range(len(pieces))}
    buckets: dict[int, list[Any]] = {}
    events = []
    number = 0  # of an event; its token
    for i, rows in enumerate(pieces):
        users = np.array([row[0] for row in rows], np.int64)
        tokens = np.arange(number, number + len(rows), dtype=np.uint32)[:, None]
        number += len(rows)
        columns = [users, np.array([row[1] for row in rows], np.int64)]
        columns += [np.array([row[k] for row in rows], bool) for k in (2, 3)]
        for bucket, chosen in rows_by_bucket(users):
            part = (i, chosen, *(column[chosen] for column in columns), tokens[chosen])
            buckets.setdefault(bucket, []).insert(0, part)  # in any order
        events += [
            (user, time, int(token))
            for (user, time, _, event), token in zip(rows, tokens[:, 0], strict=True)
            if event
        ]
    for bucket, found in buckets.items():
        for index, part in find_earlier(bucket, sorted_rows(found), length):
            parts[index].append(part)
    for i, rows in enumerate(pieces):
        codes = np.array([0 if row[2] else 4 for row in rows], np.uint8)
        (folder / f"{i}.split").write_bytes(codes.tobytes())
        path = f"{folder}/{i}.feather"
        piece = SplitPiece(i, path, len(rows), {}, {}, split_path=f"{folder}/{i}.split")
        past = read_past(_write_past((i, {"piece": [piece], "parts": parts[i]}), 1))
        examples = [(row[0], row[1]) for row in rows if row[2]]
        assert decoded(past) == plain_histories(events, examples, length)
        # Each event is held once a piece.
        assert len(set(past.tokens[0].tolist())) == past.tokens.shape[1]
        before = (folder / f"{i}.past").read_bytes()
        _write_past((i, {"piece": [piece], "parts": parts[i][::-1]}), 1)
        assert (folder / f"{i}.past").read_bytes() == before


def decoded(past: Past) -> list[list[int]]:
    """The first history's events of each example."""
    tokens = past.tokens[0].tolist()
    return [
        tokens[end - length : end]
        for end, length in zip(past.ends.tolist(), past.lengths.tolist(), strict=True)
    ]


USERS = ["ann", "bob", "Zoë", "d d", "7"]


def write_log(folder: Path, seed: int) -> list[dict[str, Any]]:
    """Three files, out of order, many ties; the good rows, by `row_id`."""
    rng = random.Random(seed)
    (folder / "items.csv").write_text(ITEMS)
    rows: list[dict[str, Any]] = []
    for part in range(3):
        lines = ["user,item,stars,time,page"]
        for _ in range(60):
            row = {
                "user": rng.choice(USERS + [""] * (rng.random() < 0.2)),
                "item": rng.randint(1, 5),
                "stars": rng.choice([1, 2, 3, 3, 4, 5]),
                "time": rng.choice([rng.randint(0, 30), rng.randint(10, 20), -1]),
                "page": rng.choice(["a", "b|c", "é", ""]),
                "row_id": len(rows),
            }
            lines.append(",".join(str(row[name]) for name in lines[0].split(",")))
            rows.append(row)
        (folder / f"log-{part}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [row for row in rows if row["user"] and row["time"] >= 0]


RANDOM_FEATURES = [*FEATURES, history("past_page", 7, column="page", min_count=4)]
CITIES = {1: "Oslo", 2: "Rome"}
READS = {  # of an event
    "past_stars": lambda row: row["stars"],
    "past_item": lambda row: row["item"],
    "past_two": lambda row: row["item"],
    "past_city": lambda row: CITIES.get(row["item"]),
    "past_page": lambda row: row["page"] or None,
}


@pytest.mark.parametrize(
    ("by", "which"),
    [("global_time", "all"), ("global_time", "clicks"), ("user_time", "clicks"), ("random", "all")],
)
def test_random_logs_are_what_a_plain_loop_finds(tmp_path: Path, by: str, which: str) -> None:
    log = write_log(tmp_path, seed=len(by) + len(which))
    split = {"by": by, "valid": 0.2, "test": 0.2}
    made = config(tmp_path, features=RANDOM_FEATURES, split=split, history_events=which)
    prepare(made, str(tmp_path / "data"))
    data = Dataset.open(tmp_path / "data")
    found = all_rows(data, ["time", *READS])
    examples = [row for row in log if row["stars"] != 3]
    assert found["row_id"].tolist() == [row["row_id"] for row in examples]
    happened = log if which == "all" else [row for row in log if row["stars"] > 3]
    rows = [(row["user"], row["time"]) for row in examples]
    for name, read in READS.items():
        feature = data.schema[name]
        vocabulary = Vocabulary.open(data.vocabulary_file(feature.vocabulary), feature.dtype)
        kind = pa.string() if feature.dtype == "string" else pa.int64()
        events = [(row["user"], row["time"], read(row)) for row in happened]
        expected = np.full((len(rows), feature.max_length), PAD_ID)
        for i, past in enumerate(plain_histories(events, rows, feature.max_length)):
            expected[i, : len(past)] = vocabulary.ids(pa.array(past, kind))
        np.testing.assert_array_equal(found[name], expected, err_msg=name)
    if by == "global_time":
        rows_of_that_time = examples if which == "clicks" else log
        train = [r for r in rows_of_that_time if r["time"] < data.manifest["cuts"]["valid_from"]]
        counts = Counter(row["page"] for row in train if row["page"])
        ranked = sorted((-n, page) for page, n in counts.items() if n >= 4)
        assert data.vocabulary_file("past_page").read_text(encoding="utf-8").split("\n")[:-1] == [
            page for _, page in ranked
        ]


def test_rows_of_other_days_are_as_if_they_were_not_in_the_log(tmp_path: Path) -> None:
    day = 86_400  # the log's time 0 is 2024-01-01
    for name, kept in (("all", range(-1, 40)), ("chosen", range(5, 20))):
        (tmp_path / name).mkdir()
        write_log(tmp_path / name, seed=8)
        for path in (tmp_path / name).glob("log-*.csv"):
            lines = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
            chosen = [lines[0]]
            for line in lines[1:]:
                if int(line[3]) in kept:
                    chosen.append([*line[:3], str((19_723 + int(line[3])) * day + 7), line[4]])
            path.write_text("\n".join(map(",".join, chosen)) + "\n", encoding="utf-8")
    time = {"column": "time", "since": "2024-01-06", "before": "2024-01-21"}
    found = []
    for made in (config(tmp_path / "all", time=time), config(tmp_path / "chosen")):
        folder = f"{made.directory}-data"
        manifest = prepare(made, folder)
        found.append(all_rows(Dataset.open(folder), ["time", "past_stars", "past_item"]))
        found[-1].pop("row_id")
        found[-1] |= {"examples": num_examples(manifest["counts"])}
    for name, values in found[0].items():
        np.testing.assert_array_equal(values, found[1][name], err_msg=name)
    with pytest.raises(DataError, match="rows are of other days than"):
        prepare(config(tmp_path / "all", time={"column": "time", "since": "2031-01-01"}), folder)


@pytest.mark.parametrize("by", ["global_time", "user_time"])
def test_histories_change_nothing_else(tmp_path: Path, by: str) -> None:
    write_log(tmp_path, seed=3)
    split = {"by": by, "valid": 0.2, "test": 0.2}
    others = [f for f in RANDOM_FEATURES if f["kind"] != "history"]
    prepare(config(tmp_path, features=others, split=split), str(tmp_path / "without"))
    prepare(config(tmp_path, features=RANDOM_FEATURES, split=split), str(tmp_path / "with"))
    without, with_them = (Dataset.open(tmp_path / name) for name in ("without", "with"))
    assert with_them.manifest["counts"]["dropped"] > 10
    for key in ("counts", "bad_reasons", "cuts", "numbers", "tables"):
        assert with_them.manifest[key] == without.manifest[key], key
    names = [feature["name"] for feature in others] + ["time", "label", "user_key", "row_id"]
    for name in ("user", "item", "city"):
        files = (data.vocabulary_file(name) for data in (without, with_them))
        assert len({file.read_bytes() for file in files}) == 1
    for part in EXAMPLES:
        expected, found = (data.columns(part, names) for data in (without, with_them))
        for name in names:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{part} {name}")
        ours = with_them.manifest["splits"][part]["features"]
        theirs = without.manifest["splits"][part]["features"]
        assert {name: ours[name] for name in theirs} == theirs


def test_nothing_at_or_after_an_example_changes_its_history(tmp_path: Path) -> None:
    """Shuffling what happened from some time on leaves the histories up to it as they were."""
    log = write_log(tmp_path, seed=5)
    made = config(tmp_path, features=[f for f in FEATURES if f["name"] != "past_two"])
    prepare(made, str(tmp_path / "data"))
    before = stars_by_row(Dataset.open(tmp_path / "data"))
    differ = 0
    for since in (15, 20):
        folder = tmp_path / f"since-{since}"
        folder.mkdir()
        write_log(folder, seed=5)
        times = {row["row_id"]: row["time"] for row in log}
        shuffle_stars(folder, since)
        prepare(config(folder, features=made.model_dump()["features"]), str(folder / "data"))
        after = stars_by_row(Dataset.open(folder / "data"))
        both = before.keys() & after.keys()
        early = [row for row in both if times[row] <= since]
        assert early
        assert {row: before[row] for row in early} == {row: after[row] for row in early}
        differ += sum(before[row] != after[row] for row in both)
    assert differ > 10  # what came after did change the later histories


def stars_by_row(data: Dataset) -> dict[int, list[str]]:
    tokens = ["-", "?", "?", *data.vocabulary_file("past_stars").read_text().split()]
    assert len(tokens) == 8  # all five, in whatever order
    found = all_rows(data, ["past_stars"])
    return {
        int(row): [tokens[i] for i in ids]
        for row, ids in zip(found["row_id"], found["past_stars"], strict=True)
    }


def shuffle_stars(folder: Path, since: int) -> None:
    """The labels of the rows from a time on, dealt out anew."""
    paths = sorted(folder.glob("log-*.csv"))
    tables = [path.read_text(encoding="utf-8").splitlines() for path in paths]
    cells = [[line.split(",") for line in table] for table in tables]
    late = [row for table in cells for row in table[1:] if int(row[3]) >= since]
    stars = [row[2] for row in late]
    random.Random(since).shuffle(stars)
    for row, value in zip(late, stars, strict=True):
        row[2] = value
    for path, table in zip(paths, cells, strict=True):
        path.write_text("".join(",".join(row) + "\n" for row in table), encoding="utf-8")


# --- whatever reads the log, whatever runs it -----------------------------------------------------

RUNNERS = {
    "processes": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
    "the older runner": ["--runner=BundleBasedDirectRunner"],
}


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS.keys())
def test_any_runner_gives_the_same_bytes(tmp_path: Path, runner: list[str]) -> None:
    write_log(tmp_path, seed=1)
    made = config(tmp_path, features=RANDOM_FEATURES, split={"by": "user_time"}, compression="gzip")
    prepare(made, str(tmp_path / "one"))
    prepare(made, str(tmp_path / "two"), runner)
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def test_the_cut_into_pieces_changes_no_history(tmp_path: Path) -> None:
    """Row groups of Parquet; JSON Lines as well, whose lists are told apart by the features."""
    log = write_log(tmp_path, seed=2)
    table = pa.Table.from_pylist([row | {"page": row["page"] or None} for row in log])
    pq.write_table(table, tmp_path / "one.parquet")
    pq.write_table(table, tmp_path / "many.parquet", row_group_size=7)
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    features = [f for f in RANDOM_FEATURES if f["name"] not in ("city", "past_city")]
    expected = None
    for name in ("one.parquet", "many.parquet", "log.jsonl"):
        source = {"format": name.split(".")[1], "events": name}
        prepare(config(tmp_path, source=source, features=features), str(tmp_path / "data"))
        found = all_rows(Dataset.open(tmp_path / "data"), [n for n in READS if n != "past_city"])
        expected = expected or found
        for column, values in expected.items():
            np.testing.assert_array_equal(found[column], values, err_msg=f"{name} {column}")
    assert len(list((tmp_path / "data" / "train").iterdir())) == 1


def test_the_generated_world_has_histories_too(tmp_path: Path) -> None:
    made = world_config(
        source={"format": "world", "users": 60, "items": 40, "events": 3_000},
        features=[
            categorical("user_id", "user", dtype="int"),
            categorical("item_id", "item", dtype="int"),
            categorical("category", "item"),
            history("past_item", 20, shares="item_id"),
            history("past_click", 20, column="click"),
            history("past_category", 20, shares="category"),
        ],
    )
    prepare(made, str(tmp_path / "data"))
    data = Dataset.open(tmp_path / "data")
    rows = all_rows(data, ["user_key", "time", "label", "item_id", "past_item", "past_click"])
    clicks = data.vocabulary_file("past_click").read_text().split()
    assert sorted(clicks) == ["0", "1"]
    keys, times = rows["user_key"].tolist(), rows["time"].tolist()
    for name, values in (
        ("past_item", rows["item_id"].tolist()),
        ("past_click", [3 + clicks.index(str(int(label))) for label in rows["label"]]),
    ):
        events = list(zip(keys, times, values, strict=True))
        some = range(0, 3_000, 37)
        expected = plain_histories(events, [(keys[i], times[i]) for i in some], 20)
        found = rows[name][some]
        assert [[i for i in ids if i != PAD_ID] for ids in found.tolist()] == expected


def leaky_events(
    user: np.ndarray, time: np.ndarray, is_event: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """`earlier_events` with `<=` for `<`: a row is among its own events."""
    before = np.cumsum(is_event) - is_event
    new_user = np.r_[True, user[1:] != user[:-1]]
    first_of_user = before[np.maximum.accumulate(np.where(new_user, np.arange(len(user)), 0))]
    end = before + is_event
    return np.maximum(first_of_user, end - length), end


@pytest.mark.slow
def test_a_history_with_the_example_itself_would_make_the_score_jump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world_config(
        source={"format": "world", "users": 300, "items": 100, "events": 12_000},
        features=[
            categorical("user_id", "user", dtype="int"),
            categorical("item_id", "item", dtype="int"),
            history("past_item", 5, shares="item_id"),
            history("past_click", 5, column="click"),
        ],
    )
    auc = {}
    for name in ("strict", "leaky"):
        if name == "leaky":
            monkeypatch.setattr("beam_pipelines.transforms.histories.earlier_events", leaky_events)
        prepare(made, str(tmp_path / name))
        data = Dataset.open(tmp_path / name)
        keras.utils.set_random_seed(1)
        model = backbones.create("din", data.schema, hidden_units=(32,))
        model.compile(LazyAdam(0.01))
        model.fit(data.train(256, seed=1), epochs=2, verbose=0, shuffle=False)
        logits = model.predict(data.test(1024), verbose=0)
        auc[name] = metrics.auc(data.columns("test", ["label"])["label"], np.ravel(logits))
    assert auc["strict"] < 0.75
    assert auc["leaky"] > 0.99


# --- what a model and a server see ----------------------------------------------------------------


def test_raw_rows_are_looked_up_to_the_very_ids_of_training(tmp_path: Path) -> None:
    import tensorflow as tf

    from tfctr.serving.exporter.raw_features import RawFeatures
    from tfctr.serving.raw_values import raw_spec

    write_log(tmp_path, seed=4)
    made = config(tmp_path, features=RANDOM_FEATURES)
    prepare(made, str(tmp_path / "data"))
    data = Dataset.open(tmp_path / "data")
    files = {f.name: data.vocabulary_file(f.vocabulary) for f in data.schema.inputs}
    served = RawFeatures(data.schema, files)
    for split in EXAMPLES:
        raw = raw_rows(made, data, split, 1_000)
        assert raw.column_names == ["row_id", "time", "label", *(f.name for f in data.schema)]
        columns = data.columns(split, ["row_id", *READS])
        assert raw["row_id"].to_pylist() == columns["row_id"].tolist()
        for name in READS:
            feature = data.schema[name]
            missing = "" if feature.dtype == "string" else -(2**63)
            spec = raw_spec(feature)
            lists = raw[name].to_pylist()
            width = spec.shape[1] or max(map(len, lists))
            values = [
                [missing if v is None else v for v in row] + [missing] * (width - len(row))
                for row in lists
            ]
            ids = served.look_up({name: tf.constant(values, spec.dtype)})[name]
            np.testing.assert_array_equal(ids, columns[name], err_msg=f"{split} {name}")


def test_a_list_longer_than_the_history_is_cut_to_its_latest_events(tmp_path: Path) -> None:
    import tensorflow as tf

    from tfctr.serving.exporter.raw_features import RawFeatures

    (tmp_path / "h.txt").write_text("a\nb\nc\n")
    feature = History(name="h", max_length=3, vocabulary_size=6)
    served = RawFeatures(Schema(features=(feature,)), {"h": tmp_path / "h.txt"})
    raw = [["a", "b", "", "c", "a"], ["a", "", "b", "", ""], [""] * 5, ["", "", "", "?", "c"]]
    found = served.look_up({"h": tf.constant(raw)})["h"].numpy().tolist()
    assert found == [[0, 5, 3], [3, 0, 4], [0, 0, 0], [0, 1, 5]]


def test_a_history_is_embedded_with_the_rows_of_what_it_shares(by_hand: Path) -> None:
    from tfctr.layers.field_embedding import FieldEmbedding

    data = Dataset.open(by_hand / "data")
    fields = FieldEmbedding(data.schema, 4)
    assert fields.offsets["item"] == fields.offsets[data.schema["past_item"].vocabulary]
    assert fields.num_rows == sum(data.schema[n].num_ids for n in fields.offsets)
    rows, _ = next(iter(data.train(4)))
    assert fields(rows).shape == (4, 7, 4)
    alone = data.schema.select(["past_item"])
    assert alone["past_item"].num_ids == data.schema["item"].num_ids
    assert FieldEmbedding(alone, 4)({"past_item": rows["past_item"]}).shape == (4, 1, 4)


# --- configs --------------------------------------------------------------------------------------


def test_a_history_takes_column_and_dtype_of_what_it_shares() -> None:
    schema = Schema.model_validate(
        {
            "features": [
                history("past", shares="item"),
                categorical("item", "item", dtype="int", column="movie"),
                {**history("seen", shares="item"), "kind": "sequence", "side": "user"},
            ]
        }
    )
    past = schema["past"]
    assert isinstance(past, Sequence)
    assert (past.column, past.dtype, past.side, past.is_list) == ("movie", "int", "user", True)
    assert (schema["seen"].source_column, schema["seen"].dtype) == ("seen", "int")
    assert Schema.model_validate(schema.model_dump()) == schema


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no user": ({"user": None}, "feature 'past_stars': a history needs the key 'user'"),
    "not all nor clicks": ({"history_events": "some"}, "Input should be 'all' or 'clicks'"),
    "another dtype": (
        {"features": [*FEATURES, history("h", shares="item", dtype="string")]},
        "'h' has dtype 'string' but shares 'item' of dtype 'int'",
    ),
    "a set": (
        {
            "features": [
                *FEATURES,
                {"name": "tags", "kind": "multi_valued", "side": "item", "max_length": 2},
                history("h", shares="tags"),
            ]
        },
        "'h' shares 'tags', a multi_valued feature; a history takes columns with one value",
    ),
    "the column of a set": (
        {
            "features": [
                *FEATURES,
                {"name": "tags", "kind": "multi_valued", "side": "item", "max_length": 2},
                history("h", column="tags"),
            ]
        },
        "'h' reads column 'tags' of 'tags', a multi_valued feature",
    ),
    "another history": (
        {"features": [*FEATURES, history("h", shares="past_stars")]},
        "'h' shares 'past_stars', which is not a categorical",
    ),
    "an item's": (
        {"features": [*FEATURES, history("h", side="item")]},
        "Input should be 'user'",
    ),
    "a separator": (
        {"features": [*FEATURES, history("h", separator=",")]},
        "unknown key 'separator'",
    ),
}


@pytest.mark.parametrize(("changes", "says"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config(tmp_path, **changes)


def test_a_mistake_in_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(
        json.dumps({**CONFIG, "features": [*FEATURES, history("h", max_length=0)]})
    )
    with pytest.raises(ConfigError) as caught:
        load_data(tmp_path / "data.yaml")
    assert "data.yaml: features[7].max_length: found 0;" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_column_that_is_not_there_or_holds_lists_is_named(tmp_path: Path) -> None:
    table = pa.table({"user": ["a"], "stars": [5], "time": [7], "tags": [["x"]]})
    pq.write_table(table, tmp_path / "log.parquet")
    source = {"format": "parquet", "events": "log.parquet"}
    for column, says in (
        ("nope", "features: 'h' reads column 'nope', which is in no table; columns of events: u"),
        ("tags", r"features: 'h': reads column 'tags' of type list<.*>; strings or integers"),
    ):
        features = [categorical("user", "user"), history("h", column=column)]
        with pytest.raises(ConfigError, match=says):
            prepare(config(tmp_path, source=source, features=features), str(tmp_path / "data"))


def test_a_history_without_a_frequent_token_is_an_error(tmp_path: Path) -> None:
    write_log(tmp_path, seed=1)
    features = [*FEATURES, history("h", column="page", min_count=999)]
    with pytest.raises(DataError, match=r"'h': none of its 3 values .* min_count = 999"):
        prepare(config(tmp_path, features=features), str(tmp_path / "data"))


# --- real data ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_movielens_1m(data_home: Path, tmp_path: Path) -> None:
    whole = load_data(CONFIGS / "movielens-1m" / "data.yaml#histories").model_dump()
    short = [f | {"max_length": 5} if f["kind"] == "history" else f for f in whole["features"]]
    prepare(DataConfig.model_validate(whole | {"features": short}), str(tmp_path / "data"))
    data = Dataset.open(tmp_path / "data")
    with zipfile.ZipFile(data_home / "ml-1m.zip") as archive:
        text = archive.read("ml-1m/ratings.dat").decode()
        movies = archive.read("ml-1m/movies.dat").decode("latin-1")
    years = {line.split("::")[0]: line.split("::")[1][-5:-1] for line in movies.splitlines()}
    log = [line.split("::") for line in text.splitlines()]
    names = ("hist_movie_id", "hist_release_year", "hist_stars")
    found = all_rows(data, ["user_key", *names])
    rows = [row for row in log if row[2] != "3"]
    assert found["user_key"].tolist() == [int(row[0]) for row in rows]
    ids = {}
    for name in names:
        tokens = data.vocabulary_file(data.schema[name].vocabulary).read_text().split()
        ids[name] = {token: i + 3 for i, token in enumerate(tokens)}
    assert sorted(ids["hist_stars"]) == ["1", "2", "3", "4", "5"]
    for user in ("1", "10", "4169", "6040"):  # 4169 rated most: 2,314 movies
        theirs = [(user, int(row[3]), row) for row in log if row[0] == user]
        chosen = [i for i, row in enumerate(rows) if row[0] == user]
        expected = plain_histories(theirs, [(user, int(rows[i][3])) for i in chosen], 5)
        for name, read in (
            ("hist_movie_id", lambda row: row[1]),
            ("hist_release_year", lambda row: years[row[1]]),
            ("hist_stars", lambda row: row[2]),
        ):
            known = [[ids[name].get(read(row), OOV_ID) for row in past] for past in expected]
            padded = [past + [PAD_ID] * (5 - len(past)) for past in known]
            np.testing.assert_array_equal(found[name][chosen], padded, err_msg=f"{user} {name}")
