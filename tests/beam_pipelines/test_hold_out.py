"""Tokens without training rows: rows worked out by hand, and plain loops over the log."""

import hashlib
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines.prepare import prepare
from beam_pipelines.sequences import write_sequences
from tests.beam_pipelines.test_histories import categorical, history, plain_histories
from tests.conftest import content_of
from tfctr.config import DataConfig, HoldOut, digest
from tfctr.data import Dataset
from tfctr.data.clean import EXAMPLES
from tfctr.data.held_out import is_held_out, left_out_rows
from tfctr.data.manifest import DataError
from tfctr.data.raw_rows import raw_rows
from tfctr.data.summary import described
from tfctr.frameworks.srp4ctr.config import SequencesConfig
from tfctr.schema import FIRST_TOKEN_ID, OOV_ID

FEATURES = [
    categorical("user", "user"),
    categorical("item", "item", dtype="int"),
    {"name": "price", "kind": "numeric", "side": "item"},
    history("past_item", shares="item"),
    history("past_stars", column="stars", dtype="int"),
]
HOLD_OUT = {"feature": "item", "share": 0.25}
CONFIG = {
    "name": "test",
    "source": {"format": "parquet", "events": "log-*.parquet"},
    "label": {"column": "stars", "positive_above": 3, "drop": [3]},
    "time": {"column": "time"},
    "user": "user",
    "item": "item",
    "features": FEATURES,
}


def config(folder: Path, hold_out: Any = HOLD_OUT, split: Any = None, **changes: Any) -> DataConfig:
    split = (split or {"valid": 0.15, "test": 0.23}) | ({"hold_out": hold_out} if hold_out else {})
    return DataConfig.model_validate(
        CONFIG | {"directory": str(folder), "split": split} | changes,
    )


def chance(token: int | str, seed: int) -> float:
    """Splitmix64, of a string's BLAKE2b hash."""
    if isinstance(token, str):
        digest = hashlib.blake2b(token.encode(), digest_size=8).digest()
        token = int.from_bytes(digest, "little")
    x = (token + (seed + 1) * 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return (x ^ (x >> 31)) / 2**64


@pytest.mark.parametrize("seed", [0, 7, -1])
def test_a_hash_of_the_token_and_the_seed_chooses(seed: int) -> None:
    hold_out = HoldOut(feature="item", share=0.3, seed=seed)
    numbers = [*range(-5, 2000), None, 2**63 - 1]
    texts = [None if n is None else f"i{n}" for n in numbers]
    for tokens, column in (
        (numbers, pa.array(numbers, pa.int64())),
        (texts, pa.array(texts)),
        (texts, pa.array(texts).dictionary_encode()),
    ):
        expected = [token is not None and chance(token, seed) < 0.3 for token in tokens]
        assert is_held_out(column, hold_out).tolist() == expected
        assert 0.25 < np.mean(expected) < 0.35


# --- worked out by hand ---------------------------------------------------------------------------

# Item 3 is held out, of items 1 to 4. Validation begins at 107, test at 109.
LOG = """
ann 1 5 10 100
ann 3 5 90 101
bob 3 3 50 101
bob 3 1 70 102
cid 3 5 80 102
ann 3 4 60 103
ann 2 4 20 104
bob 1 1 30 105
bob 2 4 40 106
ann 3 4 99 107
bob 3 1 5 108
cid 4 5 15 109
ann 3 5 25 110
bob 1 2 35 111
"""
I1, I2 = 3, 4
S4, S1, S5 = 3, 4, 5
BY_HAND = {  # split, item, past_item, past_stars
    0: ("train", I1, [0, 0, 0, 0], [0, 0, 0, 0]),
    6: ("train", I2, [I1, 0, 0, 0], [S5, 0, 0, 0]),
    7: ("train", I1, [0, 0, 0, 0], [0, 0, 0, 0]),  # bob's row 2 is dropped and held out
    8: ("train", I2, [I1, 0, 0, 0], [S1, 0, 0, 0]),
    9: ("valid", OOV_ID, [I1, I2, 0, 0], [S5, S4, 0, 0]),
    10: ("valid", OOV_ID, [I1, I2, 0, 0], [S1, S4, 0, 0]),
    11: ("test", OOV_ID, [0, 0, 0, 0], [0, 0, 0, 0]),
    12: ("test", OOV_ID, [I1, I2, OOV_ID, 0], [S5, S4, S4, 0]),  # the one of 107 happened
    13: ("test", I1, [I1, I2, OOV_ID, 0], [S1, S4, S1, 0]),
}


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows)


def write_by_hand(folder: Path) -> None:
    """Two files; all rows of the second of five pieces are held out."""
    rows = []
    for line in LOG.split("\n")[1:-1]:
        user, *numbers = line.split()
        row = dict(zip(("item", "stars", "price", "time"), map(int, numbers), strict=True))
        rows.append({"user": user} | row)
    pq.write_table(table_of(rows[:9]), folder / "log-1.parquet", row_group_size=3)
    pq.write_table(table_of(rows[9:]), folder / "log-2.parquet", row_group_size=3)


def test_rows_of_held_out_tokens_are_not_in_the_training_data(tmp_path: Path) -> None:
    assert [token for token in range(1, 5) if chance(token, 0) < HOLD_OUT["share"]] == [3]
    write_by_hand(tmp_path)
    manifest = prepare(config(tmp_path), str(tmp_path / "data"))
    assert manifest["cuts"] == {"valid_from": 107, "test_from": 109}
    data = Dataset.open(tmp_path / "data")
    found = {}
    for split in EXAMPLES:
        columns = data.columns(split, ["row_id", "item", "past_item", "past_stars"])
        for row, item, items, stars in zip(*columns.values(), strict=True):
            found[int(row)] = (split, item, items.tolist(), stars.tolist())
    assert found == BY_HAND
    assert data.vocabulary_file("item").read_text().split() == ["1", "2"]
    assert data.vocabulary_file("past_stars").read_text().split() == ["4", "1", "5"]
    assert manifest["numbers"]["price"]["mean"] == 25
    assert manifest["counts"] == {"read": 14, "bad": 0, "dropped": 1, "held_out": 4}
    assert "4 rows of held-out tokens of item left out of training" in described(manifest)
    assert sorted(left_out_rows(str(tmp_path / "data"))) == [1, 2, 3, 4, 5]


def test_without_held_out_tokens_nothing_is_new(tmp_path: Path) -> None:
    write_by_hand(tmp_path)
    plain = config(tmp_path, hold_out=None)
    manifest = prepare(plain, str(tmp_path / "data"))
    assert "held_out" not in manifest["counts"]
    assert not (tmp_path / "data" / "held_out").exists()
    assert len(described(manifest)) == 3
    explicit = DataConfig.model_validate(plain.model_dump())  # with `hold_out: null`
    assert digest(explicit) == digest(plain) != digest(config(tmp_path))


# --- against plain loops --------------------------------------------------------------------------


def write_log(folder: Path, row_group_size: int, seed: int = 1) -> list[dict[str, Any]]:
    """Two files, out of order, with ties."""
    rng = random.Random(seed)
    rows = [
        {
            "user": rng.choice(["ann", "bob", "cid", "dan", "eve"]),
            "item": rng.randint(1, 40),
            "stars": rng.choice([1, 2, 4, 5]),
            "price": rng.random(),
            "time": rng.randint(0, 60),
        }
        for _ in range(240)
    ]
    for i, part in enumerate((rows[:130], rows[130:])):
        pq.write_table(table_of(part), folder / f"log-{i}.parquet", row_group_size=row_group_size)
    return rows


@pytest.mark.parametrize(
    ("by", "more", "min_history"),
    [("global_time", {"pool": 0.3}, 3), ("user_time", {}, 0), ("random", {"seed": 4}, 0)],
)
def test_other_rows_and_splits_are_those_without_it(
    tmp_path: Path, by: str, more: dict[str, Any], min_history: int
) -> None:
    log = write_log(tmp_path, row_group_size=50)
    split = {"by": by, "valid": 0.2, "test": 0.2} | more
    hold_out = {"feature": "item", "share": 0.3, "seed": 5}
    changes = {"split": split, "min_history": min_history}
    before = prepare(config(tmp_path, None, **changes), str(tmp_path / "all"))
    made = config(tmp_path, hold_out, **changes)
    manifest = prepare(made, str(tmp_path / "some"))
    every, some = (Dataset.open(tmp_path / name) for name in ("all", "some"))
    held = {i for i, row in enumerate(log) if chance(row["item"], 5) < 0.3}
    assert manifest["cuts"] == before["cuts"]
    left_out = set()
    for name in ("train", "valid", "test", *(["pool"] if "pool" in more else [])):
        of_all, of_some = (d.columns(name, ["row_id"])["row_id"].tolist() for d in (every, some))
        if name in ("train", "pool"):
            left_out |= held & {*of_all}
            of_all = [row for row in of_all if row not in held]
        else:
            assert held & {*of_all}
        assert of_some == of_all
    assert manifest["counts"]["held_out"] == len(left_out) > 20
    if min_history:  # rows with too few earlier events are events: those of training are left out
        cut = manifest["cuts"]["valid_from"]
        left_out = {i for i in held if log[i]["time"] < cut}
        assert len(left_out) > manifest["counts"]["held_out"]
    assert {*left_out_rows(str(tmp_path / "some")).tolist()} == left_out
    events = [(r["user"], r["time"], r["item"]) for i, r in enumerate(log) if i not in left_out]
    tokens = [None, None, None, *map(int, some.vocabulary_file("item").read_text().split())]
    for name in EXAMPLES:
        rows = some.columns(name, ["row_id", "past_item"])
        asked = [(log[i]["user"], log[i]["time"]) for i in rows["row_id"]]
        expected = plain_histories(events, asked, 4)
        raw = raw_rows(made, some, name, len(asked))
        assert raw["past_item"].to_pylist() == expected
        for ids, past in zip(rows["past_item"], expected, strict=True):
            for token, item in zip(ids, past, strict=False):
                assert token == (tokens.index(item) if item in tokens else OOV_ID)
            assert not ids[len(past) :].any()


def test_pieces_and_files_do_not_matter(tmp_path: Path) -> None:
    found = []
    for name, size in (("few", 1000), ("many", 3)):
        (tmp_path / name).mkdir()
        write_log(tmp_path / name, row_group_size=size)
        made = config(tmp_path / name, HOLD_OUT | {"share": 0.7})
        prepare(made, str(tmp_path / name / "data"))
        data = Dataset.open(tmp_path / name / "data")
        names = ["row_id", "item", "past_item", "price"]
        found.append({split: data.columns(split, names) for split in EXAMPLES})
        found[-1]["words"] = content_of(data.directory / "vocabularies")
    for split in EXAMPLES:
        for name, values in found[0][split].items():
            np.testing.assert_array_equal(found[1][split][name], values)
    assert found[0]["words"] == found[1]["words"]
    pieces = len(list((tmp_path / "many" / "data" / "held_out").iterdir()))
    assert pieces > 70 > len(list((tmp_path / "many" / "data" / "train").iterdir()))  # some empty


@pytest.mark.parametrize("by", ["global_time", "user_time", "random"])
def test_windows_of_events_do_not_hold_them(tmp_path: Path, by: str) -> None:
    """All events of training have a token, so one out of vocabulary would be held out."""
    log = write_log(tmp_path, row_group_size=50)
    split = {"by": by, "valid": 0.2, "test": 0.2}
    counts = {}
    for name, hold_out in (("all", None), ("some", HOLD_OUT)):
        features = [*FEATURES[:2], history("past_item", 100, shares="item")]
        made = config(tmp_path, hold_out, split, features=features)
        sequences = SequencesConfig.model_validate(
            {"name": "windows", "data": made, "held_out": 0.5}
        )
        prepare(made, str(tmp_path / name))
        windows = tmp_path / f"windows-{name}"
        manifest = write_sequences(sequences, str(tmp_path / name), str(windows))
        counts[name] = sum(found["events"] for found in manifest["splits"].values())
        found = Dataset.open(windows)
        tokens = np.concatenate(
            [found.columns(part, ["past_item"])["past_item"].ravel() for part in ("train", "valid")]
        )
        assert set(tokens.tolist()) - {0} == set(
            range(FIRST_TOKEN_ID, found.schema["item"].num_ids)
        )
    train = Dataset.open(tmp_path / "all").columns("train", ["row_id"])["row_id"]
    kept = [i for i in train if chance(log[i]["item"], 0) >= HOLD_OUT["share"]]
    for name, rows in (("all", train), ("some", kept)):
        events = Counter(log[i]["user"] for i in rows)
        assert counts[name] == sum(number for number in events.values() if number > 1)
    assert len(train) - len(kept) > 10


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hold_out", "says"),
    [
        (HOLD_OUT | {"feature": "movie"}, "'movie' is not a categorical feature; those are: user"),
        (HOLD_OUT | {"feature": "price"}, r"split\.hold_out\.feature: 'price' is not a categor"),
        (HOLD_OUT | {"feature": "past_item"}, "'past_item' is not a categorical feature"),
        (HOLD_OUT | {"share": 1}, "less than 1"),
        ({"feature": "item"}, "Field required"),
        (HOLD_OUT | {"part": 2}, "unknown key 'part'; allowed: feature, share, seed"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, hold_out: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config(tmp_path, hold_out)


def test_a_given_split_is_as_it_is_given(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown key 'hold_out'; allowed: by, column, train"):
        config(tmp_path, split={"by": "column", "column": "part"})


def test_training_rows_must_be_left(tmp_path: Path) -> None:
    write_by_hand(tmp_path)
    made = config(tmp_path, HOLD_OUT | {"share": 0.99})
    with pytest.raises(DataError, match="no row falls into train; its 8 rows are of held-out"):
        prepare(made, str(tmp_path / "data"))
