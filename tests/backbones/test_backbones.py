"""Backbones: against plain NumPy, through `fit`, and through `.keras` files."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tfctr.frameworks.rok.rim  # noqa: F401  a backbone too
from tests.conftest import few_quick
from tests.layers.test_layers import INPUTS as OWN
from tests.layers.test_layers import SCHEMA
from tfctr import backbones
from tfctr.optimizers import LazyAdam

INPUTS = OWN | {  # and two similar rows a row: both there, one, none
    "retrieved_label": np.array([[2, 1], [2, 0], [0, 0]]),
    "retrieved_age": np.array([[20, np.nan], [50, np.nan], [np.nan] * 2], np.float32),
    "retrieved_user": np.array([[3, 5], [3, 0], [0, 0]]),
    "retrieved_price": np.array([[2.0, 3.0], [np.nan, np.nan], [np.nan] * 2], np.float32),
    "retrieved_item": np.array([[1, 7], [8, 0], [0, 0]]),
    "retrieved_tags": np.array([[4, 3, 0, 3, 0, 0], [4, 0, 0, 0, 0, 0], [0] * 6]),
    "retrieved_rank": np.array([[1.0, 2.0], [3.0, np.nan], [np.nan] * 2], np.float32),
}
SMALL: dict[str, dict[str, Any]] = {
    "bst": {"embedding_dim": 4, "hidden_units": [8, 4], "num_blocks": 2},
    "dien": {"embedding_dim": 4, "hidden_units": [8, 4], "auxiliary_weight": 0.1},
    "din": {"embedding_dim": 4, "hidden_units": [8, 4], "attention_units": [6, 5]},
    "lr": {},
    "fm": {"embedding_dim": 4},
    "wide_deep": {"embedding_dim": 4, "hidden_units": [8, 4]},
    "pnn": {"embedding_dim": 4, "hidden_units": [8, 4], "products": "both"},
    "xdeepfm": {"embedding_dim": 4, "cin_units": [5, 3], "hidden_units": [8, 4]},
    "dnn": {"embedding_dim": 4, "hidden_units": [8, 4], "batch_norm": True},
    "dcn": {"embedding_dim": 4, "hidden_units": [8, 4], "num_cross_layers": 2},
    "deepfm": {"embedding_dim": 4, "hidden_units": [8, 4]},
    "dcn_v2": {"embedding_dim": 4, "hidden_units": [8, 4], "num_cross_layers": 2, "dropout": 0.1},
    "autoint": {
        "embedding_dim": 4,
        "num_attention_layers": 2,
        "num_heads": 3,
        "attention_dim": 2,
        "hidden_units": [8, 4],
    },
    "fibinet": {"embedding_dim": 4, "hidden_units": [8, 4]},
    "finalmlp": {
        "embedding_dim": 4,
        "hidden_units": [8, 4],
        "second_hidden_units": [6],
        "num_heads": 2,
        "gate_1_fields": ["user", "seen"],
        "gate_units": [5],
    },
    "gdcn": {"embedding_dim": 4, "hidden_units": [8, 4], "num_cross_layers": 2},
    "rim": {"embedding_dim": 4, "hidden_units": [8, 4]},
    "masknet": {"embedding_dim": 4, "hidden_units": [8, 4], "num_blocks": 2, "block_units": 6},
}


def make(name: str) -> backbones.Backbone:
    model = backbones.create(name, SCHEMA, **SMALL[name])
    model.fields.stddev = 0.5
    model.build()
    return model


def test_every_registered_backbone_is_tested() -> None:
    assert set(SMALL) == set(backbones.registered())


@pytest.mark.parametrize("name", SMALL)
def test_call_is_embed_represent_and_predict_logits(name: str) -> None:
    model = make(name)
    embeddings = model.embed(INPUTS)
    assert (len(embeddings), embeddings.shape[2]) == (3, model.field_dim)
    logits = model.predict_logits(model.represent(embeddings))
    assert logits.shape == (3,)
    np.testing.assert_allclose(model(INPUTS), logits, atol=1e-6)


def test_lr_is_a_sum_of_weights() -> None:
    model = make("lr")
    kernel, bias = (np.array(w) for w in model.head.weights)
    total = np.array(model.embed(INPUTS)).sum(axis=(1, 2))
    np.testing.assert_allclose(model(INPUTS), total * kernel[0, 0] + bias[0], atol=1e-6)


def test_deepfm_against_numpy() -> None:
    model = make("deepfm")
    e = np.array(model.embed(INPUTS))
    vectors, weights = e[..., :-1], e[..., -1]
    deep = np.array(model.deep(vectors.reshape(3, -1)))
    pairs = [sum(v[i] @ v[j] for i in range(len(v)) for j in range(i + 1, len(v))) for v in vectors]
    q = np.concatenate([deep, np.array(pairs)[:, None], weights.sum(1, keepdims=True)], axis=1)
    np.testing.assert_allclose(model.represent(e), q, atol=1e-5)


def test_dcn_v2_against_numpy() -> None:
    model = make("dcn_v2")
    e = np.array(model.embed(INPUTS))
    x0 = e.reshape(3, -1)
    x = x0
    for cross in model.crosses:
        kernel, bias = (np.array(w) for w in cross.weights)
        x = x0 * (x @ kernel + bias) + x
    q = np.concatenate([x, model.deep(x0)], axis=1)
    np.testing.assert_allclose(model.represent(e), q, atol=1e-5)


@pytest.mark.parametrize("name", few_quick(SMALL, "dcn_v2"))
def test_fit_learns_with_nothing_but_an_optimizer(name: str) -> None:
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    n = 512
    rows = {k: v[rng.integers(0, 3, n)] for k, v in INPUTS.items()}
    labels = (rows["item"] == 8).astype(np.float32)
    model = backbones.create(name, SCHEMA, **SMALL[name])
    model.compile(optimizer=LazyAdam(0.05))
    history = model.fit(rows, labels, batch_size=32, epochs=5, verbose=0)
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]
    assert model.predict(rows, verbose=0).shape == (n,)


@pytest.mark.parametrize("name", SMALL)
def test_a_keras_file_keeps_weights_and_config(name: str, tmp_path: Path) -> None:
    model = make(name)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again) is type(model)
    assert again.get_config() == model.get_config()
    np.testing.assert_array_equal(again(INPUTS), model(INPUTS))


@pytest.mark.parametrize("name", few_quick(SMALL, "din"))
def test_a_keras_file_keeps_the_optimizer(name: str, tmp_path: Path) -> None:
    labels = np.array([1.0, 0.0, 1.0], np.float32)
    model = make(name)
    # Tracing would take longer than these steps.
    model.compile(optimizer=LazyAdam(0.01, embedding_l2=1e-3), run_eagerly=True)
    model.fit(INPUTS, labels, epochs=3, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    again.run_eagerly = True
    np.testing.assert_array_equal(again(INPUTS), model(INPUTS))
    keras.utils.set_random_seed(0)
    model.fit(INPUTS, labels, epochs=2, verbose=0)
    keras.utils.set_random_seed(0)
    again.fit(INPUTS, labels, epochs=2, verbose=0)
    if not getattr(model, "dropout", 0):  # whose random state Keras does not save
        np.testing.assert_allclose(again(INPUTS), model(INPUTS), atol=1e-6)


def test_evaluate_and_save_see_tables_that_are_up_to_date(tmp_path: Path) -> None:
    """A lazy optimizer owes L2 to rows that the last batches did not touch."""
    model = make("lr")
    model.compile(optimizer=LazyAdam(0.05, embedding_l2=0.1))
    labels = np.array([1.0, 0.0, 1.0], np.float32)
    one = {k: v[1:2] for k, v in INPUTS.items()}
    model.fit(INPUTS, labels, verbose=0)
    untouched = int(INPUTS["item"][0]) + model.fields.offsets["item"]
    for _ in range(30):
        model.train_on_batch(one, labels[1:2])
    owed = float(np.array(model.fields.table)[untouched, 0])
    model.evaluate(INPUTS, labels, verbose=0)
    paid = float(np.array(model.fields.table)[untouched, 0])
    assert abs(paid) < 0.9 * abs(owed)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert float(np.array(again.fields.table)[untouched, 0]) == pytest.approx(paid, abs=1e-6)


def test_an_unknown_backbone_or_argument_is_named() -> None:
    with pytest.raises(ValueError, match=r"backbone: found 'dnc'; allowed: .*dcn_v2, deepfm"):
        backbones.create("dnc", SCHEMA)
    with pytest.raises(ValueError, match="dcn_v2: unknown key 'layers'; allowed: embedding_dim"):
        backbones.create("dcn_v2", SCHEMA, layers=3)


def test_a_backbone_may_read_some_features_only() -> None:
    model = backbones.create("deepfm", SCHEMA.select(["item", "seen", "age"]), embedding_dim=4)
    some = {name: INPUTS[name] for name in ("item", "seen", "age")}
    assert model.embed(some).shape == (3, 3, 5)
    assert model(some).shape == (3,)
