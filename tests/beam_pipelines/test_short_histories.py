"""Examples need so many earlier events: as worked out by hand, and against plain loops."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines.prepare import prepare
from beam_pipelines.transforms.split import EXAMPLES
from tests.beam_pipelines.test_histories import (
    CONFIG,
    FEATURES,
    ITEMS,
    LOGS,
    all_rows,
    categorical,
    config,
    plain_histories,
    write_log,
)
from tfctr.data import Dataset

# The log of `test_histories`, and the earlier events of each good row: row 2 is dropped for its
# three stars, and is an event all the same. All of ann's at 103 have the three before.
NUMBER = {0: 0, 1: 0, 2: 1, 3: 3, 4: 3, 5: 0, 6: 1, 7: 2, 8: 0, 11: 2, 12: 0, 13: 5, 14: 6}
S4, S1, S5, S2, S3 = 3, 4, 5, 6, 7  # of the training time: 4 thrice, 1 and 5 twice
BY_HAND = {  # split, past_stars
    3: ("train", [S5, S3, S5, 0]),
    4: ("train", [S5, S3, S5, 0]),
    7: ("train", [S5, S3, 0, 0]),
    11: ("valid", [S1, S4, 0, 0]),
    13: ("test", [S3, S5, S4, S2]),
    14: ("test", [S5, S4, S2, S5]),
}
C1, C4, C5 = 3, 4, 5  # thrice each, up to 107
CLICKS_BY_HAND = {
    3: ("train", [C5, C5, 0, 0]),
    4: ("train", [C5, C5, 0, 0]),
    13: ("valid", [C5, C5, C4, 0]),
    14: ("test", [C5, C5, C4, C5]),
}


@pytest.mark.parametrize(
    ("which", "expected", "cuts"),
    [("all", BY_HAND, (105, 107)), ("clicks", CLICKS_BY_HAND, (107, 108))],
)
def test_rows_with_two_earlier_events_are_split(
    tmp_path: Path, which: str, expected: dict[int, Any], cuts: tuple[int, int]
) -> None:
    (tmp_path / "items.csv").write_text(ITEMS)
    for i, log in enumerate(LOGS):
        (tmp_path / f"log-{i}.csv").write_text(log)
    features = [f for f in FEATURES if "item" not in f["name"] and "two" not in f["name"]]
    made = config(tmp_path, features=features, min_history=2, history_events=which)
    manifest = prepare(made, str(tmp_path / "data"))
    assert manifest["cuts"] == {"valid_from": cuts[0], "test_from": cuts[1]}
    assert manifest["counts"]["dropped"] == len(NUMBER) - len(expected)
    data = Dataset.open(tmp_path / "data")
    found = {
        int(row): (split, stars.tolist())
        for split in EXAMPLES
        for row, stars in zip(*data.columns(split, ["row_id", "past_stars"]).values(), strict=True)
    }
    assert found == expected


def earlier(log: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[int]:
    events = [(row["user"], row["time"], 1) for row in log]
    past = plain_histories(events, [(row["user"], row["time"]) for row in rows], len(log))
    return [len(found) for found in past]


@pytest.mark.parametrize("by", ["user_time", "random"])
def test_random_logs_are_what_a_plain_loop_finds(tmp_path: Path, by: str) -> None:
    """Without a history among the features, too: rows of three stars are events."""
    log = write_log(tmp_path, seed=9)
    examples = [row for row in log if row["stars"] != 3]
    expected = [row for row, n in zip(examples, earlier(log, examples), strict=True) if n >= 10]
    features = [f for f in FEATURES if f["kind"] != "history"]
    split = {"by": by, "valid": 0.2, "test": 0.2}
    made = config(tmp_path, features=features, split=split, min_history=10)
    manifest = prepare(made, str(tmp_path / "data"))
    data = Dataset.open(tmp_path / "data")
    assert all_rows(data, [])["row_id"].tolist() == [row["row_id"] for row in expected]
    assert manifest["counts"]["dropped"] == len(log) - len(expected)
    if by == "user_time":  # shares are of each user's examples, not of all that happened
        users = {row["user"] for row in expected}
        for split_name, share in (("valid", 0.2), ("test", 0.2)):
            np.testing.assert_allclose(
                data.num_rows(split_name), share * len(expected), atol=2 * len(users)
            )


def test_the_cut_into_pieces_leaves_out_the_same_rows(tmp_path: Path) -> None:
    log = write_log(tmp_path, seed=2)
    table = pa.Table.from_pylist(log)
    pq.write_table(table, tmp_path / "one.parquet")
    pq.write_table(table, tmp_path / "many.parquet", row_group_size=7)
    found = []
    for name in ("one", "many"):
        source = {"format": "parquet", "events": f"{name}.parquet"}
        features = [f for f in FEATURES if "city" not in f["name"]]
        made = config(tmp_path, source=source, features=features, min_history=4)
        prepare(made, str(tmp_path / name))
        data = Dataset.open(tmp_path / name)
        found.append({split: data.columns(split, ["row_id", "past_item"]) for split in EXAMPLES})
    for split in EXAMPLES:
        for name, values in found[0][split].items():
            np.testing.assert_array_equal(found[1][split][name], values)
    assert len(list((tmp_path / "many" / "train").iterdir())) > 5


def test_a_user_and_a_time_are_needed(tmp_path: Path) -> None:
    plain = [categorical("item")]
    with pytest.raises(ValueError, match=r"min_history: earlier events .* need the key 'user'"):
        config(tmp_path, features=plain, user=None, min_history=5)
    with pytest.raises(ValueError, match=r"min_history: earlier events .* need the key 'time'"):
        config(
            tmp_path,
            features=CONFIG["features"][1:2],
            time=None,
            split={"by": "random"},
            min_history=5,
        )
