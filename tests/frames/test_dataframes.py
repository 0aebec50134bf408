"""A DataFrame as data: what the job makes of a log, scores in its order, a run's metrics."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import tfctr
from beam_pipelines.prepare import prepare
from tests.conftest import content_of
from tfctr.config import ConfigError, DataConfig, Label, Split, SplitByColumn, Time
from tfctr.data import Dataset
from tfctr.data.manifest import DataError
from tfctr.schema import Schema
from tfctr.stages.evaluate import METRICS, predict_split, write_metrics

ROWS = 1200
FEATURES = [
    {"name": "user", "kind": "categorical", "side": "user"},
    {"name": "item", "kind": "categorical", "side": "item", "dtype": "int", "min_count": 2},
    {"name": "price", "kind": "numeric", "side": "item"},
    {"name": "genres", "kind": "multi_valued", "side": "item", "max_length": 2},
]
SCHEMA = Schema.model_validate({"features": FEATURES})
ROLES = {"label": "click", "time": "when", "user": "user", "item": "item"}


class Other:
    """A table of another library: Arrow's interface is all that it has."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    item = rng.integers(0, 30, ROWS)
    price = 1 + item / 4
    price[::50] = np.nan
    return pd.DataFrame(
        {
            "user": [f"u{i}" for i in rng.integers(0, 40, ROWS)],
            "item": item,
            "price": price,
            "genres": [["war", "drama", "war"][: i % 3] for i in item],
            "when": pd.to_datetime(1_700_000_000 + 60 * rng.permutation(ROWS), unit="s"),
            "click": (rng.random(ROWS) < 0.1 + 0.6 * (item % 3 == 0)).astype(int),
        }
    )


@pytest.fixture(scope="module")
def data(frame: pd.DataFrame) -> Dataset:
    return Dataset.from_dataframe(frame, SCHEMA, **ROLES)


@pytest.fixture(scope="module")
def model(data: Dataset) -> Any:
    model = tfctr.backbones.DeepFM(data.schema, embedding_dim=4, hidden_units=(8,))
    model.compile(tfctr.optimizers.LazyAdam(3e-2), metrics=[tfctr.metrics.AUC()])
    model.fit(data.train(128), validation_data=data.valid(128), epochs=2, verbose=0)
    return model


@pytest.mark.parametrize("kind", ["pandas", "pyarrow", "another library"])
def test_a_frame_is_prepared_as_the_job_prepares_its_log(
    frame: pd.DataFrame, tmp_path: Path, kind: str
) -> None:
    table = pa.table(frame)
    given = {"pandas": frame, "pyarrow": table, "another library": Other(table)}[kind]
    found = Dataset.from_dataframe(given, SCHEMA, **ROLES, directory=tmp_path / "found")
    pq.write_table(table, tmp_path / "log.parquet")
    config = {
        "name": "log",
        "source": {"format": "parquet", "events": str(tmp_path / "log.parquet")},
        **{"label": {"column": "click"}, "time": {"column": "when"}},
        **{"user": "user", "item": "item", "features": FEATURES},
    }
    manifest = prepare(DataConfig.model_validate(config), str(tmp_path / "expected"))
    for part in ("train", "valid", "test", "vocabularies"):
        expected = content_of(tmp_path / "expected" / part)
        assert expected
        assert content_of(tmp_path / "found" / part) == expected
    assert found.manifest["schema"] == manifest["schema"]
    assert repr(found).startswith(f"Dataset('{tmp_path}/found'): train: 960 rows, 2023-11-14 22:13")


def test_without_a_time_the_split_is_the_random_one_of_configs(
    frame: pd.DataFrame, data: Dataset
) -> None:
    at_random = Dataset.from_dataframe(frame, FEATURES, label="click")
    assert at_random.manifest["config"]["split"] == Split(by="random").model_dump(mode="json")
    rows = {s: at_random.columns(s, ["row_id"])["row_id"] for s in ("train", "valid", "test")}
    np.testing.assert_array_equal(np.sort(np.concatenate([*rows.values()])), np.arange(ROWS))
    # By time: what is tested on comes last.
    times = {split: data.columns(split, ["time"])["time"] for split in ("train", "valid", "test")}
    assert times["train"].max() < times["valid"].min() <= times["valid"].max() < times["test"].min()


def test_features_are_guessed_and_left_out_columns_are_named(frame: pd.DataFrame) -> None:
    with_more = frame.assign(
        request=[f"r{i}" for i in range(ROWS)],
        when=frame["when"].astype("int64") // 10**6,
        part=np.repeat(["training", "valid", "test"], [1000, 150, 50]),
    ).set_index("user")
    split = SplitByColumn(by="column", column="part", train="training")
    with pytest.warns(UserWarning, match=r"request \(each row has a value of its own\)"):
        found = Dataset.from_dataframe(with_more[::-1], **ROLES, split=split)
    assert [found.num_rows(part) for part in ("train", "valid", "test")] == [1000, 150, 50]
    kinds = {feature.name: (feature.kind, feature.side) for feature in found.schema}
    assert kinds == {
        "user": ("categorical", "user"),
        "item": ("categorical", "item"),
        "price": ("numeric", "item"),
        "genres": ("multi_valued", "item"),
    }
    assert found.manifest["config"]["time"]["unit"] == "ms"
    assert found.manifest["config"]["user"] == "user"


def test_bad_rows_are_set_aside_and_counted(frame: pd.DataFrame) -> None:
    bad = frame.assign(click=frame["click"].astype(object), when=frame["when"].astype(object))
    bad.loc[3, "click"] = None
    bad.loc[4, "click"] = 2
    bad.loc[5, "when"] = "soon"
    bad.loc[6, "user"] = None
    with pytest.warns(UserWarning, match="4 of 1,200 rows are bad and left out: "):
        found = Dataset.from_dataframe(bad, SCHEMA, **ROLES)
    assert found.manifest["counts"]["bad"] == 4
    reasons = found.manifest["bad_reasons"]
    label = "click: the label must be 0 or 1; label.positive_above makes clicks of stars or counts"
    assert {label: 2, "user: missing": 1}.items() <= reasons.items()
    assert any(reason.startswith("when: not a time in s ") for reason in reasons)
    letters = found.directory / "dead_letters" / "part-00000.jsonl"
    assert [json.loads(line)["row"] for line in letters.open()] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("change", "arguments", "kind", "text"),
    [
        ({}, {"label": "clik"}, ConfigError, "label: found 'clik'; columns of the events: user, "),
        ({}, {"time": "then"}, ConfigError, "time: found 'then'; columns of the events: user, "),
        ({}, {"time": "genres"}, ConfigError, "DataFrame: time: reads column 'genres' of type"),
        ({}, {"user": "item"}, ConfigError, "DataFrame: user: 'item' is not a categorical feature"),
        ({"click": 3}, {}, DataError, "1,200 of 1,200 rows of the events are bad, more than"),
        (
            {},
            {"schema": [*FEATURES, {"name": "age", "kind": "numeric", "side": "user"}]},
            ConfigError,
            "features: 'age' reads column 'age', which is in no table; columns of events: user, ",
        ),
        ({}, {"max_bad_shares": 1}, ConfigError, "DataFrame: unknown key 'max_bad_shares' "),
    ],
)
def test_mistakes_are_those_of_the_job(
    frame: pd.DataFrame, change: Any, arguments: Any, kind: Any, text: str
) -> None:
    with pytest.raises(kind) as raised:
        Dataset.from_dataframe(frame.assign(**change), **{"schema": SCHEMA} | ROLES | arguments)
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_no_frame_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(ConfigError, match="found dict; a DataFrame is needed"):
        Dataset.from_dataframe({"click": [0, 1]}, label="click")
    with pytest.raises(DataError, match="DataFrame: the source has no rows"):
        Dataset.from_dataframe(frame.head(0), SCHEMA, label="click")
    with pytest.raises(ConfigError, match="label: found 'clik'; columns of the events: user"):
        Dataset.from_dataframe(frame, label="clik")


def test_batches_of_tf_data_are_rows(frame: pd.DataFrame, tmp_path: Path) -> None:
    few = frame.drop(columns=["when", "click"])
    features = {name: few[name].to_numpy() for name in ("user", "item", "price")}
    genres = tf.ragged.constant(few["genres"].tolist(), dtype=tf.string)
    rows = tf.data.Dataset.from_tensor_slices(
        ({**features, "genres": genres}, frame["click"].to_numpy())
    )
    among = rows.map(lambda x, y: x | {"click": y}).ragged_batch(100)
    arguments: dict[str, Any] = {"user": "user", "item": "item"}
    for i, (batches, label) in enumerate([(rows, {}), (among, {"label": "click"})]):
        folder = tmp_path / str(i)
        Dataset.from_tf_data(batches, SCHEMA, **label, **arguments, directory=folder)
    arguments["label"] = "click"
    expected = Dataset.from_dataframe(frame, SCHEMA, **arguments, directory=tmp_path / "frame")
    assert expected.num_rows("train")
    for i in (0, 1):
        for part in ("train", "valid", "test", "vocabularies"):
            found = content_of(tmp_path / str(i) / part)
            assert found == content_of(expected.directory / part)
    with pytest.raises(ConfigError, match="label: found 'label'; features of the rows: "):
        Dataset.from_tf_data(among, SCHEMA)


def test_probabilities_are_in_the_order_of_the_rows(
    frame: pd.DataFrame, data: Dataset, model: Any
) -> None:
    found = tfctr.predict(model, frame)
    assert (found.shape, found.dtype) == ((ROWS,), np.float32)
    for split in ("train", "test"):
        rows = data.columns(split, ["row_id", "label", "user", "item", "price", "genres"])
        ids, label = rows.pop("row_id"), rows.pop("label")
        np.testing.assert_allclose(found[ids], tfctr.predict(model, rows), atol=1e-6)
        np.testing.assert_array_equal(frame["click"].to_numpy()[ids], label)
    order = np.random.default_rng(0).permutation(ROWS)
    np.testing.assert_allclose(tfctr.predict(model, frame.iloc[order]), found[order], atol=1e-6)
    new = pa.table({"user": ["nobody"], "item": [999], "price": [None], "genres": [None]})
    assert 0 < tfctr.predict(model, new)[0] < 1


def test_rows_that_cannot_be_read_have_no_score(frame: pd.DataFrame, model: Any) -> None:
    few = frame.head(5).astype({"price": object})
    few.loc[2, "price"] = "much"
    with pytest.warns(UserWarning, match=r"1 of 5 rows are bad .*: price: not a number \(1\)"):
        found = tfctr.predict(model, few)
    np.testing.assert_array_equal(np.isnan(found), np.arange(5) == 2)
    kept = [0, 1, 3, 4]
    np.testing.assert_allclose(found[kept], tfctr.predict(model, frame.iloc[kept]), atol=1e-6)
    with pytest.raises(ConfigError, match="DataFrame: no column 'price'; columns: user, item"):
        tfctr.predict(model, frame.drop(columns="price"))


def test_metrics_are_those_of_a_run(
    frame: pd.DataFrame, data: Dataset, model: Any, tmp_path: Path
) -> None:
    write_metrics(data, ("valid", "test"), lambda s: predict_split(model, data, s), tmp_path)
    expected = json.loads((tmp_path / METRICS).read_text())
    found = tfctr.evaluate(model, data)
    assert found == expected
    assert found["test"]["gauc"] > 0.5
    of_test = data.columns("test", ["row_id"])["row_id"]
    of_frame = tfctr.evaluate(model, frame.iloc[of_test])
    for key in ("rows", "auc", "gauc", "log_loss", "normalized_entropy", "calibration_ratio"):
        assert of_frame[key] == pytest.approx(expected["test"][key], abs=1e-6)
    assert of_frame["segments"].keys() == expected["test"]["segments"].keys()
    with pytest.raises(ConfigError, match="label: found 'click'; columns of the rows: user, "):
        tfctr.evaluate(model, frame.drop(columns="click"))
    trained = model.evaluate(data.test(128), verbose=0, return_dict=True)
    assert trained["auc"] == pytest.approx(expected["test"]["auc"], abs=1e-3)


def test_a_saved_model_needs_its_data(
    frame: pd.DataFrame, data: Dataset, model: Any, tmp_path: Path
) -> None:
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    with pytest.raises(ConfigError, match="deepfm: does not know the vocabularies"):
        tfctr.predict(loaded, frame)
    found = tfctr.predict(loaded, frame, data=Dataset.open(data.directory))
    np.testing.assert_allclose(found, tfctr.predict(model, frame), atol=1e-6)
    few = [FEATURES[0] | {"min_count": 31}, *FEATURES[1:]]
    other = Dataset.from_dataframe(frame, few, label="click")
    with pytest.raises(ConfigError, match=r"feature 'user' has 43 ids, but .* that it was trained"):
        tfctr.predict(loaded, frame, data=other)


def test_stars_and_histories(frame: pd.DataFrame) -> None:
    stars = frame.assign(stars=1 + 3 * frame["click"], when=np.arange(ROWS))
    stars.loc[::10, "stars"] = 3
    schema = [*FEATURES, {"name": "past", "kind": "history", "shares": "item", "max_length": 3}]
    data = Dataset.from_dataframe(
        stars,
        schema,
        label=Label(column="stars", positive_above=3, drop=(3,)),
        time=Time(column="when", unit="none"),
        user="user",
    )
    assert data.manifest["counts"]["dropped"] == ROWS // 10
    model = tfctr.backbones.DIN(data.schema, embedding_dim=4, hidden_units=(4,))
    with pytest.raises(ConfigError, match="DataFrame: no column 'past'"):
        tfctr.predict(model, stars)
    # With each user's earlier events in a column, rows have the scores of the dataset.
    ids = data.columns("test", ["row_id"])["row_id"]
    past = [
        stars["item"][(stars["user"] == stars["user"][i]) & (stars["when"] < i)].tolist()[-3:]
        for i in ids
    ]
    found = tfctr.predict(model, stars.iloc[ids].assign(past=past))
    np.testing.assert_allclose(found, tfctr.predict(model, data.test(256)), atol=1e-6)
    measured = tfctr.evaluate(model, stars.iloc[ids].assign(past=past))
    assert measured["rows"] == len(ids)


def test_everything_can_be_found_and_nothing_is_imported_before() -> None:
    code = (
        "import sys, tfctr\n"
        "heavy = ('tensorflow', 'keras', 'apache_beam', 'pandas', 'pyarrow', 'numpy')\n"
        "assert not {*heavy} & {*sys.modules}\n"
        "print(*dir(tfctr))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {
        *("backbones", "config", "data", "frameworks", "language", "layers", "metrics", "models"),
        *("optimizers", "retrieval", "schema", "serving", "training"),
        *("Run", "compare", "evaluate", "predict"),
    } <= {*done.stdout.split()}
    for name in dir(tfctr):
        room = getattr(tfctr, name)
        for part in getattr(room, "__all__", ()):
            assert getattr(room, part) is not None
    with pytest.raises(AttributeError, match="module 'tfctr' has no attribute 'backbone'"):
        _ = tfctr.backbone


def test_every_layer_is_exported() -> None:
    folder = Path(tfctr.layers.__path__[0])
    found = {
        name
        for path in folder.glob("*.py")
        for name in tfctr.saving.KERAS_CLASS.findall(path.read_text())
    }
    assert len(found) > 20
    assert found <= {*dir(tfctr.layers)}


def test_a_model_knows_its_size_before_its_first_call(
    data: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sizes: vocabularies of 43 and 33 and 5 ids, one number, all in 2 dimensions."""
    model = tfctr.backbones.FM(data.schema, embedding_dim=2)
    assert model.name == "fm"
    assert tfctr.backbones.DCNv2(data.schema, name="mine").name == "mine"
    number = model.count_params()
    model.summary()
    assert f"Total params: {number:,} " in capsys.readouterr().out
    assert number == sum(int(np.prod(weight.shape)) for weight in model.weights) > 3 * 81
