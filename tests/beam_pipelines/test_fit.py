import itertools
import json

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather

from beam_pipelines.transforms.fit import (
    CountTokens,
    FitNumbers,
    FitVocabularies,
    _moments,
    _summarise,
    measured,
)
from beam_pipelines.transforms.split import TRAIN, SplitPiece
from tfctr.data.vocabulary import Vocabulary
from tfctr.schema import OOV_ID, PAD_ID, Categorical, MultiValued, Numeric, Schema, Sequence


def pieces_of(folder, columns, split, cuts=()):
    """Cleaned pieces with their splits, cut after these numbers of rows."""
    table = pa.table(columns)
    table = table.append_column("row_id", pa.array(range(table.num_rows)))
    edges = [0, *cuts, table.num_rows]
    found = []
    for i, (start, stop) in enumerate(itertools.pairwise(edges)):
        path = f"{folder}/{i}.feather"
        feather.write_feather(table[start:stop], path)
        (folder / f"{i}.split").write_bytes(np.array(split[start:stop], np.uint8).tobytes())
        found.append(SplitPiece(i, path, stop - start, {}, {}, split_path=f"{folder}/{i}.split"))
    return found


def fit(folder, pieces, transform):
    """What the transform gives, as a dict."""
    path = folder / "found.json"
    with beam.Pipeline("FnApiRunner") as pipeline:
        _ = (
            pipeline
            | beam.Create(pieces)
            | transform
            | beam.combiners.ToDict()
            | beam.Map(lambda found: path.write_text(json.dumps(found)))
        )
    return json.loads(path.read_text())


VOCABULARIES = Schema(
    features=[
        Categorical(name="city", side="user"),
        Categorical(name="item", side="item", dtype="int", min_count=2),
        MultiValued(name="tags", side="item", max_length=3),
        Sequence(name="clicks", side="user", max_length=3, dtype="int", shares="item"),
    ]
)
COLUMNS = {
    "city": ["Oslo", "Lima", "Lima", None, "Bern", "Rome", "Rome", "Rome"],
    "item": pa.array([7, 7, 9, 10, 9, 9, 11, 11], pa.int64()),
    "tags": [["a", "b"], ["b"], [], ["c", "b"], ["a"], ["z"], ["z"], ["z"]],
    "clicks": pa.array([[1], [1], [1], [], [], [], [], []], pa.list_(pa.int64())),
}
SPLIT = [TRAIN] * 5 + [1, 2, 2]


@pytest.mark.parametrize("cuts", [(), (1, 4), (1, 2, 3, 3, 4, 5, 6, 7)])
def test_vocabularies_hold_training_tokens_by_count_then_by_token(tmp_path, cuts):
    pieces = pieces_of(tmp_path, COLUMNS, SPLIT, cuts)
    found = fit(tmp_path, pieces, FitVocabularies(VOCABULARIES, str(tmp_path), len(pieces)))
    folder = tmp_path / "vocabularies"
    assert sorted(path.name for path in folder.iterdir()) == ["city.txt", "item.txt", "tags.txt"]
    assert (folder / "city.txt").read_text() == "Lima\nBern\nOslo\n"
    assert (folder / "item.txt").read_text() == "7\n9\n"  # 10 is too rare, 11 never trained on
    assert (folder / "tags.txt").read_text() == "b\na\nc\n"
    assert found == {
        "city": {"tokens": 3, "vocabulary_size": 6},
        "item": {"tokens": 3, "vocabulary_size": 5},
        "tags": {"tokens": 3, "vocabulary_size": 6},
    }


def test_no_token_often_enough_gives_an_empty_vocabulary(tmp_path):
    schema = Schema(features=[Categorical(name="city", side="user", min_count=3)])
    found = fit(
        tmp_path,
        pieces_of(tmp_path, {"city": COLUMNS["city"]}, SPLIT),
        FitVocabularies(schema, str(tmp_path), 1),
    )
    assert found == {"city": {"tokens": 3, "vocabulary_size": 3}}
    assert (tmp_path / "vocabularies" / "city.txt").read_bytes() == b""


def test_counts_merge_in_any_order(monkeypatch):
    monkeypatch.setattr(CountTokens, "MERGE_ROWS", 3)
    rng = np.random.default_rng(0)
    values = rng.integers(0, 50, 400)
    combine = CountTokens()

    def count(parts):
        states = []
        for part in parts:
            tokens, counts = np.unique(part, return_counts=True)
            state = combine.create_accumulator()
            states.append(combine.add_input(state, pa.table({"token": tokens, "count": counts})))
        merged = combine.extract_output(combine.merge_accumulators(states))
        return dict(zip(merged["token"].to_pylist(), merged["count"].to_pylist(), strict=True))

    expected = {int(value): int((values == value).sum()) for value in np.unique(values)}
    assert count(np.array_split(values, 13)) == expected
    assert count(np.array_split(values[::-1], 2)) == expected


def test_ids_of_tokens():
    vocabulary = Vocabulary.parse("b\na\né\n".encode(), "string")
    assert vocabulary.size == 6
    assert vocabulary.ids(pa.array(["a", "b", None, "c", "é"])).tolist() == [
        4,
        3,
        PAD_ID,
        OOV_ID,
        5,
    ]
    numbers = Vocabulary.parse(b"7\n-1\n", "int")
    assert numbers.ids(pa.array([-1, 0, None, 7])).tolist() == [4, OOV_ID, PAD_ID, 3]
    empty = Vocabulary.parse(b"", "string")
    assert empty.ids(pa.array(["a", None])).tolist() == [OOV_ID, PAD_ID]
    assert vocabulary.ids(pa.array([], pa.string())).tolist() == []


@pytest.mark.parametrize("token", ["\u2028", "\x85", "\x0b", "tab\there", "\x00", " "])
def test_a_token_of_any_sign_survives_its_file(token):
    vocabulary = Vocabulary(pa.array(["first", token]))
    read = Vocabulary.parse(vocabulary.to_bytes(), "string")
    assert read.ids(pa.array([token])).tolist() == [4]


NUMBERS = Schema(
    features=[
        Numeric(name="x", side="user"),
        Numeric(name="y", side="user", transform="bucketize", num_buckets=4),
        Numeric(name="z", side="user", transform="bucketize", boundaries=[1.0, 2.0]),
        Numeric(name="never", side="user"),
    ]
)


@pytest.mark.parametrize("cuts", [(), (100, 100, 350)])
def test_statistics_of_training_rows_are_those_of_numpy(tmp_path, cuts):
    rng = np.random.default_rng(3)
    n = 1000
    columns = {
        "x": 1e6 + rng.normal(size=n),
        "y": rng.exponential(size=n),
        "z": rng.normal(size=n),
        "never": np.full(n, np.nan),
    }
    columns["x"][::7] = np.nan
    split = rng.integers(0, 3, n)
    pieces = pieces_of(tmp_path, columns, split, cuts)
    found = fit(tmp_path, pieces, FitNumbers(NUMBERS, len(pieces)))
    train = {name: values[split == TRAIN].astype(np.float32) for name, values in columns.items()}
    for name in "xyz":
        present = train[name][~np.isnan(train[name])].astype(np.float64)
        np.testing.assert_allclose(found[name]["mean"], present.mean(), rtol=1e-12)
        np.testing.assert_allclose(found[name]["std"], present.std(), rtol=1e-6)
        assert found[name]["min"] == present.min()
        assert found[name]["max"] == present.max()
        assert found[name]["missing"] == pytest.approx(1 - len(present) / len(train[name]))
    assert found["never"] == {"missing": 1.0}
    expected = np.quantile(train["y"], [0.25, 0.5, 0.75], method="higher")
    np.testing.assert_allclose(found["y"]["boundaries"], expected, rtol=0.02)
    assert np.isin(np.float32(found["y"]["boundaries"]), train["y"]).all()
    buckets = np.searchsorted(found["y"]["boundaries"], train["y"], side="right")
    assert np.ptp(np.bincount(buckets)) <= 1  # of equal counts
    assert "boundaries" not in found["x"]
    assert "boundaries" not in found["z"]  # those of the config stand


def test_the_order_in_which_pieces_arrive_changes_no_bit():
    rng = np.random.default_rng(4)
    columns = [rng.lognormal(9, 3, 50).astype(np.float32) for _ in range(40)]
    parts = [_moments("x", i, values, [])[1] for i, values in enumerate(columns)]
    features = {"x": NUMBERS["z"]}
    expected = _summarise(("x", {"moments": [parts], "bins": []}), features, 40)
    for _ in range(5):
        shuffled = [parts[i] for i in rng.permutation(40)]
        assert _summarise(("x", {"moments": [shuffled], "bins": []}), features, 40) == expected


SPREADS = Schema(
    features=[
        Numeric(name="robust", side="user", transform="robust"),
        Numeric(name="halves", side="user", transform="robust"),
        Numeric(name="log", side="user", transform="log"),
        Numeric(name="far", side="user"),
        Numeric(name="rare", side="user"),
    ]
)


def test_robust_statistics_logarithms_and_outliers(tmp_path):
    rng = np.random.default_rng(5)
    normal = rng.normal(20, 3, 1000)
    columns = {
        "robust": np.r_[normal, 3e38, np.inf, np.nan],
        "halves": np.r_[np.zeros(800), np.arange(203)],
        "log": np.r_[-np.exp(normal[:500]), np.exp(normal[500:]), 0, 3e38, np.inf],
        "far": np.r_[normal, -1e9, -1e9, 30],
        "rare": np.r_[np.zeros(1002), 1],
    }
    pieces = pieces_of(tmp_path, columns, [TRAIN] * 1003, (400,))
    found = fit(tmp_path, pieces, FitNumbers(SPREADS, len(pieces)))
    robust = found["robust"]
    assert robust["median"] == pytest.approx(np.median(normal), abs=0.02)
    assert robust["iqr"] == pytest.approx(np.subtract(*np.quantile(normal, [0.75, 0.25])), abs=0.05)
    assert robust["max"] == np.float32(3e38)
    assert found["halves"]["iqr"] == pytest.approx(152 / 3.29 * 1.349)  # of the central 90%
    logs = columns["log"][:-1].astype(np.float32).astype(np.float64)
    logs = np.sign(logs) * np.log1p(np.abs(logs))
    assert found["log"]["mean"] == pytest.approx(logs.mean())
    assert found["log"]["std"] == pytest.approx(logs.std())
    flattened = found["far"]["flattened"]
    assert flattened["rows"] == 2
    assert found["far"]["farthest"]["value"] == -1e9
    assert found["far"]["farthest"]["row"] == 1000
    assert 10 < flattened["central"][0] < flattened["central"][1] < 30
    assert "flattened" not in found["rare"]  # all rows but one have one value, and that is all
    fitted = SPREADS.fitted({name: measured(SPREADS[name], found[name]) for name in found})
    center, scale = fitted["robust"].center_and_scale
    assert (center, scale) == (pytest.approx(20, abs=0.3), pytest.approx(3, abs=0.3))


def test_a_number_of_a_later_split_that_is_far_from_the_training_rows_has_its_row(tmp_path):
    columns = {"far": np.r_[np.arange(20.0), 3e38, -1e3, np.inf], "rare": np.arange(23.0)}
    split = [TRAIN] * 20 + [TRAIN + 1] * 3
    pieces = pieces_of(tmp_path, columns, split, (7,))
    schema = Schema(features=SPREADS.features[3:])
    found = fit(tmp_path, pieces, FitNumbers(schema, len(pieces)))
    assert found["far"]["max"] == 19
    assert "flattened" not in found["far"]
    farthest = found["far"]["farthest"]
    assert (farthest["value"], farthest["row"]) == (np.float32(3e38), 20)
    assert "farthest" not in found["rare"]


@pytest.mark.parametrize(
    ("values", "boundaries"),
    [
        ([1, 1, 1, 1, 2, 2, 3, 9], [2.0, 3.0]),  # one value fills two buckets
        ([5, 5, 5, 5], [5.0]),
        ([0.1, 0.2, 0.3, 0.4], [0.2, 0.3, 0.4]),
    ],
)
def test_boundaries_where_values_repeat(tmp_path, values, boundaries):
    schema = Schema(features=[NUMBERS["y"]])
    columns = {"y": np.array(values, np.float64)}
    pieces = pieces_of(tmp_path, columns, [TRAIN] * len(values))
    found = fit(tmp_path, pieces, FitNumbers(schema, 1))
    assert np.float32(found["y"]["boundaries"]).tolist() == np.float32(boundaries).tolist()
