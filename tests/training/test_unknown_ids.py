"""Ids of training rows that the model reads as unknown."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.training.killed import killed_at
from tests.training.test_training import fit, weights
from tfctr import metrics
from tfctr.data.dataset import WHOLE, Dataset, Part
from tfctr.schema import FIRST_TOKEN_ID, OOV_ID, PAD_ID
from tfctr.training.unknown_ids import with_unknown_ids

RATES = {"user_id": 0.5, "item_id": 0.1}
KEYS = ("user_id", "item_id")


@pytest.fixture(scope="module")
def data(world_data: Path) -> Dataset:
    return Dataset.open(world_data)


def read(batches: tf.data.Dataset) -> list[dict[str, np.ndarray]]:
    return [features | {"label": label} for features, label in batches.as_numpy_iterator()]


def test_each_feature_loses_its_share_of_known_ids_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 50, 40_000)
    columns = {"user_id": ids, "item_id": ids, "hour": ids}
    labels = rng.integers(0, 2, len(ids)).astype("float32")
    rows = tf.data.Dataset.from_tensor_slices((columns, labels)).batch(999)
    batches = with_unknown_ids(rows, RATES, seed=7, part=WHOLE)
    assert int(batches.cardinality()) == int(rows.cardinality())
    parts = read(batches)
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    np.testing.assert_array_equal(found["label"], labels)
    np.testing.assert_array_equal(found["hour"], ids)
    assert (ids == PAD_ID).any()
    for name, rate in RATES.items():
        replaced = found[name] != ids
        assert (found[name][replaced] == OOV_ID).all()
        assert (ids[replaced] >= FIRST_TOKEN_ID).all()
        known = ids >= FIRST_TOKEN_ID
        deviation = np.sqrt(rate * (1 - rate) / known.sum())
        assert replaced[known].mean() == pytest.approx(rate, abs=4 * deviation)
    lost = {name: found[name] == OOV_ID for name in RATES}
    both = (lost["user_id"] & lost["item_id"])[ids >= FIRST_TOKEN_ID].mean()
    assert both == pytest.approx(0.05, abs=0.005)  # each draws for itself


def test_what_is_lost_follows_from_seed_batch_and_worker(data: Dataset) -> None:
    rows = data.train(512, 3, KEYS, in_memory=True)
    drawn = tf.random.stateless_uniform((2, 512), [7, 4]).numpy()  # in the fifth batch

    def lost(name: str, done: int = 0, seed: int = 7, part: Part = WHOLE) -> list[list[int]]:
        batches = with_unknown_ids(rows, RATES, seed, part).skip(done)
        return [np.flatnonzero(of[name] == OOV_ID).tolist() for of in read(batches)]

    for name, chance in zip(RATES, drawn, strict=True):
        whole = lost(name)
        assert whole[4] == np.flatnonzero(chance < RATES[name]).tolist()
        assert whole[0] != whole[1]
        assert whole[20:] == lost(name, done=20)
        assert whole != lost(name, seed=8)
        assert whole != lost(name, part=Part(1, 2))


def test_the_vector_of_unknown_ids_is_trained_and_evaluation_reads_all_ids(
    data: Dataset, tmp_path: Path
) -> None:
    trained = data.columns("train", KEYS)
    assert all((trained[name] != OOV_ID).all() for name in KEYS)  # all tokens are known
    plain, _ = fit(data, tmp_path / "plain", epochs=1, in_memory=True)
    model, state = fit(data, tmp_path / "oov", epochs=1, in_memory=True, oov_rate={"user_id": 0.2})
    unknown = [
        np.asarray(of.fields.rows(name, np.array([OOV_ID])))
        for of in (plain, model)
        for name in KEYS
    ]
    user, item, user_of_rate, item_of_rate = [np.abs(vector).max() for vector in unknown]
    assert user_of_rate > 1e-2
    assert max(user, item, item_of_rate) < 6e-4  # as they were drawn: 1e-4 wide
    logits = model.predict(data.valid(1000), verbose=0)
    found = metrics.auc(data.columns("valid", ["label"])["label"], logits)
    assert state.history[0]["valid_auc"] == pytest.approx(found, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_killed_training_loses_the_same_ids(
    data: Dataset, tmp_path: Path, in_memory: bool
) -> None:
    changes: dict[str, Any] = {
        "epochs": 2,
        "checkpoint_steps": 10,
        "in_memory": in_memory,
        "oov_rate": RATES,
    }
    whole, expected = fit(data, tmp_path / "whole", **changes)
    with killed_at(45):  # 32 are an epoch
        fit(data, tmp_path / "killed", **changes)
    again, found = fit(data, tmp_path / "killed", **changes)
    assert [e["loss"] for e in found.history[:1]] == [e["loss"] for e in expected.history[:1]]
    assert [e["valid_auc"] for e in found.history] == [e["valid_auc"] for e in expected.history]
    for one, other in zip(weights(again), weights(whole), strict=True):
        np.testing.assert_array_equal(one, other)
