"""Users' events in windows, against plain loops over the log."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.prepare import prepare
from beam_pipelines.sequences import main, windows, write_sequences
from tests.beam_pipelines.test_histories import (
    FEATURES,
    I1,
    I2,
    ITEMS,
    LOGS,
    OSLO,
    RARE,
    ROME,
    S1,
    S2,
    S3,
    S4,
    S5,
    config,
)
from tests.conftest import WORLD_FEATURES, world_config
from tfctr.config import ConfigError, load
from tfctr.data import Dataset
from tfctr.data.fingerprint import mix, row_keys
from tfctr.data.manifest import DataError
from tfctr.data.users import USER_BUCKETS
from tfctr.frameworks.srp4ctr.config import SequenceEncoderConfig, SequencesConfig

import pyarrow as pa  # isort: skip


@given(st.lists(st.integers(1, 23), min_size=1, max_size=8), st.integers(2, 9), st.integers(1, 12))
@settings(deadline=None, max_examples=80)
def test_windows_are_those_of_a_loop(counts: list[int], length: int, stride: int) -> None:
    expected, first = [], 0
    for count in counts:
        end = count
        while end > 0:
            start = max(0, end - length)
            if end - start >= 2:
                expected.append((first + start, first + end))
            if start == 0:
                break
            end -= stride
        first += count
    start, end = windows(np.array(counts), length, stride)
    assert list(zip(start.tolist(), end.tolist(), strict=True)) == expected


def _buckets(*users: str) -> list[int]:
    return [int(b) for b in mix(row_keys(pa.array(users)), 0) % np.uint64(USER_BUCKETS)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_logs(tmp_path)
    return tmp_path


def write_logs(folder: Path) -> None:
    (folder / "items.csv").write_text(ITEMS)
    for i, text in enumerate(LOGS):
        (folder / f"log-{i}.csv").write_text(text)


def of_four_events(folder: Path, **changes: Any) -> SequencesConfig:
    """Of histories of four events; those of the user in the lower bucket are held out."""
    features = [f for f in FEATURES if f["name"] != "past_two"]
    low, high = sorted(_buckets("ann", "bob"))
    return SequencesConfig.model_validate(
        {
            "name": "windows",
            "data": config(folder, features=features),
            "held_out": (low + high) / 2 / USER_BUCKETS,
        }
        | changes
    )


def test_windows_by_hand(log: Path) -> None:
    """The log of `test_histories`, of the time before 104. Ann has events at 100, 101 (dropped, but
    it happened), 102, and two at 103; bob at 100 and 102; eve one, and cid none yet."""
    sequences = of_four_events(log)
    data, folder = str(log / "data"), str(log / "windows")
    prepare(sequences.data, data)
    manifest = write_sequences(sequences, data, folder)
    found = Dataset.open(folder)
    ann, bob = _buckets("ann", "bob")
    assert ann != bob
    names = ["time", "label", "past_stars", "past_item", "past_city"]
    of_ann = found.columns("valid" if ann < bob else "train", names)
    of_bob = found.columns("train" if ann < bob else "valid", names)
    assert of_ann["past_stars"].tolist() == [[S5, S3, S5, S4, S2]]
    assert of_ann["past_item"].tolist() == [[I1, I2, RARE, RARE, I1]]
    assert of_ann["past_city"].tolist() == [[OSLO, ROME, 0, 0, OSLO]]
    assert of_ann["time"].tolist() == [103]
    assert of_bob["past_stars"].tolist() == [[S1, S4, 0, 0, 0]]
    assert of_bob["past_item"].tolist() == [[I1, I2, 0, 0, 0]]
    assert of_bob["time"].tolist() == [102]
    assert of_ann["label"].tolist() == [0.0]
    assert sum(split["events"] for split in manifest["splits"].values()) == 7
    assert not (log / "windows" / "staged").exists()
    assert not (log / "windows" / "dead_letters").exists()  # the dataset has those


def test_events_out_of_order_twice_and_without_a_time(log: Path) -> None:
    more = "bob,2,4,102\nbob,1,2,101\nbob,2,4,\n"  # again; earlier; who knows when
    (log / "log-1.csv").write_text(LOGS[1] + more)
    sequences = of_four_events(log)
    data, folder = str(log / "data"), str(log / "windows")
    manifest = prepare(sequences.data, data)
    assert any("not a time in s" in reason for reason in manifest["bad_reasons"])
    write_sequences(sequences, data, folder)
    ann, bob = _buckets("ann", "bob")
    of_bob = Dataset.open(folder).columns("train" if ann < bob else "valid", ["past_stars"])
    stars = Dataset.open(data).vocabulary_file("past_stars").read_text().split()
    assert [stars[token - 3] for token in of_bob["past_stars"][0] if token] == ["1", "2", "4", "4"]


WORLD = world_config(
    features=[
        *WORLD_FEATURES,
        {"name": "past_item", "kind": "history", "shares": "item_id", "max_length": 6},
        {"name": "past_click", "kind": "history", "column": "click", "max_length": 6},
    ]
)


@pytest.mark.parametrize("by", ["global_time", "user_time", "random"])
def test_every_event_of_the_training_rows_is_there_and_no_other(tmp_path: Path, by: str) -> None:
    world = WORLD.model_copy(update={"split": WORLD.split.model_copy(update={"by": by})})
    sequences = SequencesConfig.model_validate({"name": "windows", "data": world, "stride": 4})
    prepare(world, str(tmp_path / "data"))
    write_sequences(sequences, str(tmp_path / "data"), str(tmp_path / "windows"))
    data, found = Dataset.open(tmp_path / "data"), Dataset.open(tmp_path / "windows")
    rows = data.columns("train", ["user_key", "time", "row_id", "item_id"])
    order = np.lexsort((rows["row_id"], rows["time"], rows["user_key"]))
    items, users = rows["item_id"][order], rows["user_key"][order]
    columns = [found.columns(s, ["user_key", "time", "past_item"]) for s in ("train", "valid")]
    # No user is in both; one in twenty is held out.
    keys = [set(part["user_key"].tolist()) for part in columns]
    assert not keys[0] & keys[1]
    assert 0 < len(keys[1]) < 0.15 * len(keys[0])
    for user in np.unique(users):
        own = items[users == user]
        if len(own) < 2:
            assert int(user) not in keys[0] | keys[1]
            continue
        (of_user,) = (part for part, known in zip(columns, keys, strict=True) if int(user) in known)
        # In the file the latest window comes first.
        windows_of_user = of_user["past_item"][of_user["user_key"] == user][::-1]
        lengths = (windows_of_user != 0).sum(axis=1)
        ends = len(own) - 4 * np.arange(len(lengths))[::-1]
        for window, length, end in zip(windows_of_user, lengths, ends, strict=True):
            assert window[:length].tolist() == own[end - length : end].tolist()
        assert ends[0] == lengths[0]  # back to the first event


def test_what_is_wrong_is_said(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequences = of_four_events(log)
    data, folder = str(log / "data"), str(log / "windows")
    with pytest.raises(DataError, match="no dataset of this version here"):
        write_sequences(sequences, data, folder)
    prepare(sequences.data, data)
    with pytest.raises(DataError, match="no held-out user has two events"):
        write_sequences(sequences.model_copy(update={"held_out": 0.0001}), data, folder)
    other = sequences.data.model_copy(update={"name": "other"})
    with pytest.raises(DataError, match="prepared with another config"):
        write_sequences(sequences.model_copy(update={"data": other}), data, folder)
    (log / "log-1.csv").write_text(LOGS[1] + "eve,1,5,109\n")
    with pytest.raises(DataError, match="the log changed since"):
        write_sequences(sequences, data, folder)
    with pytest.raises(ValueError, match="no feature of kind history"):
        SequencesConfig.model_validate({"name": "windows", "data": world_config()})
    path = log / "missing.yaml"
    assert main([f"--config={path}", f"--data={data}", f"--output={folder}"]) == 1
    assert "no such file" in capsys.readouterr().err


def test_mistakes_in_an_encoder_config(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(WORLD.model_dump_json(exclude_none=True))
    (tmp_path / "sequences.yaml").write_text("{name: windows, data: data.yaml}")
    path = tmp_path / "encoder.yaml"
    path.write_text("{name: encoder, sequences: sequences.yaml, histories: [past_items]}")
    with pytest.raises(ConfigError, match="'past_items' is not a feature of kind history; those"):
        load(path, SequenceEncoderConfig)
    path.write_text("{name: encoder, sequences: sequences.yaml, dim: 9}")
    with pytest.raises(ConfigError, match="dim: 9 is not a multiple of num_heads, 2"):
        load(path, SequenceEncoderConfig)
    path.write_text("{name: windows, sequences: sequences.yaml}")
    with pytest.raises(ConfigError, match="'windows' is the sequences's name too"):
        load(path, SequenceEncoderConfig)
