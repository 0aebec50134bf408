"""E-CDCTR's pieces: snapshots, their fusion, the student, and weights that move by token."""

import datetime
import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from beam_pipelines.days import write_days
from beam_pipelines.snapshots import join_snapshots
from tests.beam_pipelines.test_days import D1, D2, D3, D4, config, log  # noqa: F401
from tests.frameworks.ecdctr.test_rollout import write_configs
from tests.layers.test_layers import INPUTS, SCHEMA
from tfctr import backbones, metrics
from tfctr.config import Training
from tfctr.data.days import DaysDataset
from tfctr.data.manifest import DataError
from tfctr.data.snapshots import Snapshot, finished_before
from tfctr.data.vocabulary import Vocabulary
from tfctr.frameworks.ecdctr import EcdctrServed, EcdctrStudent
from tfctr.frameworks.ecdctr.config import load_rollout
from tfctr.frameworks.ecdctr.student import USER_HISTORY
from tfctr.layers.historical_fusion import HistoricalFusion
from tfctr.models.transfer import carry_on, reset_statistics
from tfctr.schema import FIRST_TOKEN_ID, Schema
from tfctr.training.loop import train
from tfctr.training.objectives import LastEpoch

RNG = np.random.default_rng(3)
N, DIM = 3, 4  # snapshots, and their width


def test_fusion_is_that_of_a_loop() -> None:
    layer = HistoricalFusion(5)
    current, snapshots = RNG.normal(size=(4, 5)), RNG.normal(size=(4, N, DIM))
    exist = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]])
    found = np.array(layer(current.astype("float32"), snapshots.astype("float32"), exist))
    for weight in (layer.no_key, layer.no_value):
        weight.assign(RNG.normal(size=5))
    found = np.array(layer(current.astype("float32"), snapshots.astype("float32"), exist))
    query, key, value = (
        np.array(part.kernel) for part in (layer.of_query, layer.of_key, layer.of_value)
    )
    for i in range(4):
        scores, values = [], []
        for k in range(N):
            if exist[i, k]:
                scores.append((current[i] @ query) @ (snapshots[i, k] @ key) / 5**0.5)
                values.append(snapshots[i, k] @ value)
        scores.append((current[i] @ query) @ np.array(layer.no_key) / 5**0.5)
        values.append(np.array(layer.no_value))
        shares = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(found[i], shares @ np.array(values), atol=1e-5)


def snapshot_inputs(rows: int = 3) -> dict[str, np.ndarray]:
    exist = (RNG.random((2, rows, N)) < 0.6).astype("int64")
    found = {}
    for side, there in zip(("user", "item"), exist, strict=True):
        vectors = RNG.normal(size=(rows, N, DIM)) * there[:, :, None]
        found[f"{side}_snapshots"] = vectors.reshape(rows, -1).astype("float32")
        found[f"{side}_snapshots_exist"] = there
    return found


def student(name: str = "dcn_v2", schema: Schema = SCHEMA, **arguments: Any) -> EcdctrStudent:
    given = {"embedding_dim": 4, "hidden_units": [8, 4]} | arguments
    made = EcdctrStudent(backbones.create(name, schema, **given), "user", "item", N, DIM)
    made.backbone.fields.stddev = 0.5
    made.build()
    return made


@pytest.mark.parametrize("name", ["dcn_v2", "deepfm", "dnn", "autoint", "din"])
def test_any_backbone_reads_two_further_fields(name: str, tmp_path: Path) -> None:
    model = student(name)
    inputs = INPUTS | snapshot_inputs()
    fields = model.backbone.embed(inputs)
    embeddings = model.embed(inputs)
    assert embeddings.shape[1] == fields.shape[1] + 2
    np.testing.assert_array_equal(embeddings[:, :-2], fields)
    logits = np.array(model(inputs))
    for side in ("user", "item"):
        others = snapshot_inputs()
        changed = {k: v for k, v in others.items() if k.startswith(side)}
        assert np.abs(np.array(model(inputs | changed)) - logits).max() > 1e-6
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(inputs), logits, atol=1e-6)


def test_the_backbone_needs_the_keys_of_snapshots() -> None:
    backbone = backbones.create("dnn", SCHEMA.select(["item", "age"]))
    with pytest.raises(
        ValueError, match=r"does not read user, whose snapshots.*it reads age, item"
    ):
        EcdctrStudent(backbone, "user", "item", N, DIM)


@pytest.mark.parametrize("name", ["dcn_v2", "deepfm", "din"])
def test_the_served_model_finds_the_snapshots_itself(name: str) -> None:
    model = student(name)
    tables = {}
    for side in ("user", "item"):
        ids = SCHEMA[side].num_ids
        exist = RNG.random((ids, N)) < 0.6
        vectors = RNG.normal(size=(ids, N, DIM)) * exist[:, :, None]
        tables[side] = (vectors.reshape(ids, -1).astype("float32"), exist.astype("float32"))
    served = EcdctrServed(model, tables)
    served.build()
    given = {}
    for side, (vectors, exist) in tables.items():
        given |= {f"{side}_snapshots": vectors[INPUTS[side]]}
        given |= {f"{side}_snapshots_exist": exist[INPUTS[side]].astype("int64")}
    logits = np.array(model(INPUTS | given))
    np.testing.assert_allclose(served(INPUTS), logits, atol=1e-6)
    # And ranked: each user with all three items.
    items = [f.name for f in SCHEMA.side("item")]
    user = {f.name: INPUTS[f.name] for f in SCHEMA.side("user", "context")}
    candidates = {k: np.stack([INPUTS[k]] * 3) for k in items}
    scores = np.array(served.score(served.encode_user(user), candidates))
    np.testing.assert_allclose(np.diag(scores), logits, atol=1e-5)
    with pytest.raises(ValueError, match="the table of the users has 3 rows, wanted 7"):
        EcdctrServed(model, tables | {"user": tuple(t[:3] for t in tables["user"])})


def test_a_feature_may_not_be_called_as_what_is_kept_of_a_user() -> None:
    renamed = {f.name: USER_HISTORY if f.name == "age" else f.name for f in SCHEMA}
    schema = Schema(features=tuple(f.model_copy(update={"name": renamed[f.name]}) for f in SCHEMA))
    backbone = backbones.create("dnn", schema.select(["user", "item", USER_HISTORY]))
    with pytest.raises(ValueError, match="found a feature 'user_history'"):
        EcdctrServed(EcdctrStudent(backbone, "user", "item", N, DIM), {})


def grown(**sizes: int) -> Schema:
    return SCHEMA.fitted(
        {f.name: {"vocabulary_size": sizes[f.vocabulary]} for f in SCHEMA if _grows(f, sizes)}
    )


def _grows(feature: Any, sizes: dict[str, int]) -> bool:
    return getattr(feature, "vocabulary", None) in sizes


@pytest.mark.parametrize("name", ["dcn_v2", "deepfm"])
def test_weights_move_by_token(name: str) -> None:
    earlier = student(name, batch_norm=True)
    later = student(name, grown(user=9, item=9, tags=8), batch_norm=True)
    fresh = np.array(later.backbone.fields.table)
    carry_on(later, earlier)
    old, new = earlier.backbone.fields, later.backbone.fields
    for owner, had, size in (("user", 7, 9), ("item", 9, 9), ("tags", 5, 8), ("price", 4, 4)):
        rows = np.array(new.table)[new.offsets[owner] :][:size]
        np.testing.assert_array_equal(rows[:had], np.array(old.table)[old.offsets[owner] :][:had])
        start = new.offsets[owner]
        np.testing.assert_array_equal(rows[had:], fresh[start + had : start + size])
    moved = {id(new.table)}
    for weight, source in zip(later.weights, earlier.weights, strict=True):
        if id(weight) not in moved:
            np.testing.assert_array_equal(weight, source)
    # The same rows, of tokens that both know, have the same logits.
    inputs = INPUTS | snapshot_inputs()
    np.testing.assert_allclose(later(inputs), earlier(inputs), atol=1e-6)
    with pytest.raises(ValueError, match="vocabulary 'user' shrank from 9 ids to 7"):
        carry_on(earlier, later)
    with pytest.raises(ValueError, match="`earlier` should be a EcdctrStudent"):
        carry_on(later, student("dnn"))


def test_statistics_start_anew_and_nothing_else() -> None:
    model = student(batch_norm=True)
    for weight in model.weights:
        weight.assign(RNG.normal(size=weight.shape) ** 2 + 2)
    before = {weight.path: np.array(weight) for weight in model.weights}
    reset_statistics(model)
    start = {"gamma": 1, "beta": 0, "moving_mean": 0, "moving_variance": 1}
    reset = 0
    for weight in model.weights:
        name = weight.path.rpartition("/")[2]
        if name in start:
            reset += 1
            np.testing.assert_array_equal(weight, np.full(weight.shape, start[name]))
        else:
            np.testing.assert_array_equal(weight, before[weight.path])
    assert reset == 2 * 4


def made(until: datetime.date, users: list[str], items: list[str], scale: float) -> Snapshot:
    tokens = {"user": pa.array(users), "item": pa.array(items)}
    vectors = {
        side: scale * np.arange(1, 2 * len(found) + 1, dtype=np.float32).reshape(-1, 2)
        for side, found in tokens.items()
    }
    return Snapshot(D1, until, 2, tokens, vectors)


def test_snapshots_are_kept_by_token(tmp_path: Path) -> None:
    made(D3, ["bob", "cy"], ["pear"], 10).write(tmp_path)
    found = Snapshot.read(tmp_path)
    assert (found.since, found.until, found.dim) == (D1, D3, 2)
    vectors, exist = found.rows("user", Vocabulary(pa.array(["ann", "cy", "bob"])))
    assert exist.tolist() == [False, False, False, False, True, True]
    assert vectors[FIRST_TOKEN_ID + 1 :].tolist() == [[30, 40], [10, 20]]
    assert not vectors[: FIRST_TOKEN_ID + 1].any()
    with pytest.raises(DataError, match="no snapshot here"):
        Snapshot.read(tmp_path / "none")


def test_a_day_reads_what_was_finished_before_it() -> None:
    ends = [D1, D2, D4]
    assert finished_before(ends, D1, 2) == [D1]
    assert finished_before(ends, D3, 2) == [D2, D1]
    assert finished_before(ends, D4, 2) == [D4, D2]
    assert finished_before(ends, D4, 1) == [D4]


def test_rows_get_the_snapshots_of_their_user_and_item(log: Path) -> None:  # noqa: F811
    days = write_days(config(log), D4, str(log / "days"))
    snapshots = log / "snapshots"
    made(D2, ["ann", "bob"], ["apple"], 1).write(snapshots / str(D2))
    made(D3, ["bob", "cy"], ["apple", "plum"], 10).write(snapshots / str(D3))
    chosen = {D1: [], D2: [(D2, "a")], D3: [(D3, "b"), (D2, "a")]}
    join_snapshots(days, chosen, snapshots, 2, 2, log / "joined")
    names = ["user_snapshots", "user_snapshots_exist", "item_snapshots"]

    def rows(day: datetime.date, domain: str) -> list[list[float]]:
        data = DaysDataset(days, {"test": [(day, domain)]}, 3, log / "joined")
        found = data.columns("test", names)
        batch, _ = next(iter(data.test(8, features=("user", *names))))
        for name in names:
            np.testing.assert_array_equal(batch[name], found[name])
        return [
            [*itertools.chain(*(found[name][i].tolist() for name in names))]
            for i in range(len(found[names[0]]))
        ]

    nothing = [0.0] * 4
    assert rows(D1, "ads") == [[*nothing, 0, 0, *nothing]]
    assert rows(D2, "ads") == [[3, 4, 0, 0, 1, 0, *nothing]]  # bob, plum
    # cy with a fig and with a pear: neither was in a snapshot.
    assert rows(D3, "ads") == [[30, 40, 0, 0, 1, 0, *nothing]] * 2
    assert rows(D2, "organic") == [
        [1, 2, 0, 0, 1, 0, *nothing],  # ann, plum
        [*nothing, 0, 0, 1, 2, 0, 0],  # cy, apple
    ]
    assert rows(D3, "organic") == [[*nothing, 0, 0, 10, 20, 1, 2]]  # dan, apple
    with pytest.raises(DataError, match=f"no snapshots are joined to the rows of {D4}"):
        rows(D4, "organic")


def test_a_snapshot_of_later_days_is_refused(log: Path) -> None:  # noqa: F811
    days = write_days(config(log), D4, str(log / "days"))
    made(D3, ["bob"], ["apple"], 1).write(log / "snapshots" / str(D3))
    message = f"the snapshot of {D3} was not finished before {D2}, which reads it"
    with pytest.raises(DataError, match=message):
        join_snapshots(days, {D2: [(D3, "a")]}, log / "snapshots", 2, 2, log / "joined")
    assert not (log / "joined" / str(D2)).exists()
    with pytest.raises(DataError, match="vectors of 2 numbers, wanted 4"):
        join_snapshots(days, {D3: [(D3, "a")]}, log / "snapshots", 2, 4, log / "joined")


@pytest.mark.slow
def test_snapshots_that_knew_their_day_would_score_too_well(tmp_path: Path) -> None:
    """What the guard is for: the same model, with click rates of the days before or of the day."""
    config = load_rollout(write_configs(tmp_path)).days
    last = config.first + datetime.timedelta(days=11)
    log = write_days(config, last, str(tmp_path / "days"))  # noqa: F811
    days = config.days_through(last)[5:]

    def auc(knew: bool) -> float:
        snapshots, joined = tmp_path / f"snapshots-{knew}", tmp_path / f"joined-{knew}"
        for day in days:
            read = [day] if knew else [d for d in log.days if d < day]
            parts = {"test": [(d, "ads") for d in read]}
            rows = DaysDataset(log, parts, len(log.days) - 1).columns(
                "test", ["user_id", "item_id", "label"]
            )
            tokens, vectors = {}, {}
            for side, key in (("user", "user_id"), ("item", "item_id")):
                ids, place = np.unique(rows[key], return_inverse=True)
                clicks, seen = np.bincount(place, rows["label"]), np.bincount(place)
                kept = ids >= FIRST_TOKEN_ID
                tokens[side] = log.vocabulary(key).tokens.take(ids[kept] - FIRST_TOKEN_ID)
                rates = clicks / seen - rows["label"].mean()
                vectors[side] = (4 * rates[kept, None]).astype("float32")
            Snapshot(days[0], day, 1, tokens, vectors).write(snapshots / str(day))
        chosen = {day: [(day, "made up")] for day in days}
        join_snapshots(log, chosen, snapshots, 1, 1, joined)
        splits = {"train": [(d, "ads") for d in days[:-2]], "test": [(d, "ads") for d in days[-2:]]}
        data = DaysDataset(log, splits | {"valid": []}, len(log.days) - 1, joined)
        keras.utils.set_random_seed(1)
        backbone = backbones.create("dnn", data.schema, embedding_dim=4, hidden_units=[8])
        model = EcdctrStudent(backbone, "user_id", "item_id", 1, 1)
        training = Training(
            batch_size=128, epochs=6, in_memory=True, optimizer={"learning_rate": 0.01}
        )
        train(model, data, training, tmp_path, Console(quiet=True), LastEpoch(training))
        (tmp_path / "checkpoint.npz").unlink()
        logits = model.predict(data.test(4096, features=model.reads), verbose=0)
        return metrics.auc(data.columns("test", ["label"])["label"], logits)

    honest, knowing = auc(knew=False), auc(knew=True)
    assert honest < 0.7
    assert knowing > 0.85
