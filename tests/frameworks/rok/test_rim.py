"""RIM: attention over similar rows against a plain loop, and what must not matter to it."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.backbones.test_backbones import INPUTS, make
from tests.layers.test_layers import SCHEMA
from tfctr import backbones, metrics
from tfctr.data import Dataset
from tfctr.optimizers import LazyAdam
from tfctr.retrieval.bm25 import Bm25Index, idf
from tfctr.retrieval.similar_rows import CLICKED, LABEL, NO_ROW, NOT_CLICKED, PREFIX

FOUND = ("age", "user", "price", "item", "tags", "rank")  # all fields but the sequence
K = 2


def row_of(b: int, k: int) -> dict[str, np.ndarray]:
    """Row `k` found for row `b`, as a batch of one."""
    values = {name: INPUTS[PREFIX + name][b].reshape(K, -1)[k] for name in FOUND}
    row = {name: v if name == "tags" else v[0] for name, v in values.items()}
    return {name: np.asarray(value)[None] for name, value in row.items()}


def test_sums_of_found_rows_against_a_loop() -> None:
    model = make("rim")
    dim = model.field_dim
    fields = np.array(model.fields(INPUTS))
    kernel, bias = (np.array(w) for w in model.attention.query.weights)
    vectors = np.array(model.label_vectors.weights[0])
    expected = np.zeros((3, len(FOUND) + 1, dim))
    for b in range(3):
        query = fields[b].reshape(-1) @ kernel + bias
        rows, scores = [], []
        for k in range(K):
            label = INPUTS[LABEL][b, k]
            if label == NO_ROW:
                continue
            found = np.array(model.fields(row_of(b, k), names=FOUND))[0]
            scores.append(query @ found.reshape(-1) / np.sqrt(len(FOUND) * dim))
            rows.append(np.concatenate([found, vectors[label][None]]))
        if rows:
            weights = np.exp(scores) / np.exp(scores).sum()
            expected[b] = np.tensordot(weights, rows, axes=1)
    embeddings = np.array(model.embed(INPUTS))
    np.testing.assert_allclose(embeddings[:, : len(SCHEMA.inputs)], fields, atol=1e-6)
    np.testing.assert_allclose(model.aggregate(INPUTS), expected, atol=1e-5)
    assert (expected[2] == 0).all()  # a row without any


def test_the_tower_sees_fields_sums_and_all_inner_products() -> None:
    model = make("rim")
    e = np.array(model.embed(INPUTS))
    pairs = [[v[i] @ v[j] for j in range(len(v)) for i in range(j)] for v in e]
    lower = [[v[i] @ v[j] for i in range(len(v)) for j in range(i)] for v in e]
    found = []
    for products in (pairs, lower):  # which of the two triangles is a matter of keras-rs
        x = np.concatenate([e.reshape(3, -1), products], axis=1)
        found.append(np.concatenate([model.deep(x), e[:, -1]], axis=1))
    got = np.array(model.represent(e))
    assert any(np.allclose(got, expected, atol=1e-4) for expected in found)


def test_neither_the_order_of_found_rows_nor_what_pads_them_matters() -> None:
    model = make("rim")
    before = np.array(model(INPUTS))
    turned, padded = dict(INPUTS), dict(INPUTS)
    for name in (LABEL, *(PREFIX + field for field in FOUND)):
        values = INPUTS[name].reshape(3, K, -1)
        turned[name] = values[:, ::-1].reshape(INPUTS[name].shape)
        junk = np.ones_like(values[:, :1])
        junk = np.full_like(junk, NO_ROW) if name == LABEL else junk
        padded[name] = np.concatenate([values, junk], axis=1).reshape(3, -1)
    np.testing.assert_allclose(model(turned), before, atol=1e-5)
    np.testing.assert_allclose(model(padded), before, atol=1e-5)


def test_without_labels_they_change_nothing() -> None:
    model = backbones.create("rim", SCHEMA, embedding_dim=4, hidden_units=[8], labels=False)
    model.fields.stddev = 0.5
    model.build()
    other = INPUTS | {LABEL: np.where(INPUTS[LABEL] == CLICKED, NOT_CLICKED, INPUTS[LABEL])}
    assert (other[LABEL] != INPUTS[LABEL]).any()
    np.testing.assert_array_equal(model(other), model(INPUTS))
    assert model.num_aggregates == len(FOUND)
    assert np.abs(np.array(make("rim")(other)) - np.array(make("rim")(INPUTS))).max() > 0


@pytest.mark.parametrize("labels", [True, False])
def test_it_learns_what_became_of_the_row_that_fits(labels: bool) -> None:
    """A row's click is that of the one found row with its item; nothing else tells it."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    schema = SCHEMA.select(["user", "item"])
    n, k = 4096, 3
    items = np.stack([rng.permutation(6)[:k] + 3 for _ in range(n)])
    outcomes = rng.integers(NOT_CLICKED, CLICKED + 1, (n, k))
    which = rng.integers(0, k, n)
    rows: dict[str, Any] = {
        "user": rng.integers(3, 7, n),
        "item": items[np.arange(n), which],
        LABEL: outcomes,
        PREFIX + "user": rng.integers(3, 7, (n, k)),
        PREFIX + "item": items,
    }
    clicks = (outcomes[np.arange(n), which] == CLICKED).astype(np.float32)
    model = backbones.create("rim", schema, embedding_dim=8, hidden_units=[16], labels=labels)
    model.compile(LazyAdam(0.02))
    losses = model.fit(rows, clicks, batch_size=256, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.25 if labels else losses[-1] > 0.6, losses


@pytest.mark.slow
def test_a_leaky_pool_would_make_the_score_jump(world_data: Path) -> None:
    """What the search guards against: a row that finds itself finds its click."""
    data = Dataset.open(world_data)
    schema = data.schema.select(["user_id", "item_id", "category", "hour"])
    names = [feature.name for feature in schema.inputs]
    parts = [
        data.columns(split, [*names, "time", "row_id", "label"]) for split in ("train", "valid")
    ]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    num_train, num_rows = len(parts[0]["time"]), len(rows["time"])
    weights = {
        name: idf(np.bincount(rows[name], minlength=schema[name].num_ids), num_rows)
        for name in names
    }
    index = Bm25Index(rows, rows["time"], rows["row_id"], weights)

    def valid_auc(times: np.ndarray) -> float:
        keras.utils.set_random_seed(1)
        found, _ = index.search(rows, times, 1)
        labels = np.where(rows["label"][found] > 0, CLICKED, NOT_CLICKED)
        inputs = {LABEL: np.where(found < 0, NO_ROW, labels)}
        for name in names:
            inputs |= {name: rows[name], PREFIX + name: np.where(found < 0, 0, rows[name][found])}
        model = backbones.create("rim", schema, embedding_dim=4, hidden_units=[16])
        model.compile(LazyAdam(0.005))
        early, late = (slice(num_train), slice(num_train, num_rows))
        train, valid = ({k: v[part] for k, v in inputs.items()} for part in (early, late))
        model.fit(train, rows["label"][early], batch_size=256, epochs=2, verbose=0)
        logits = model.predict(valid, batch_size=4096, verbose=0)
        return metrics.auc(rows["label"][late], logits)

    honest = valid_auc(rows["time"])
    leaky = valid_auc(np.full(num_rows, rows["time"].max() + 1))
    assert honest < 0.75
    assert leaky > 0.95
