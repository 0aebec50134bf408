"""Histories: what backbones make of them, against plain NumPy and under invariants."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.layers.test_layers import INPUTS, SCHEMA
from tfctr import backbones
from tfctr.layers.augru import AUGRU
from tfctr.layers.behaviour_sequence import BehaviourSequence, count, latest_first
from tfctr.layers.next_event_loss import NextEventLoss
from tfctr.layers.target_attention import TargetAttention
from tfctr.layers.transformer_block import TransformerBlock
from tfctr.optimizers import LazyAdam
from tfctr.schema import Schema

NAMES = ("bst", "dien", "din")
D = 4
LENGTH = 4


def sequence(name: str, max_length: int = LENGTH, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "sequence", "side": "user", "max_length": max_length} | more


def events_schema(max_length: int = LENGTH) -> Schema:
    """Items have a brand; events have an item, stars and, mostly, a brand."""
    return Schema.model_validate(
        {
            "features": [
                {"name": "user", "kind": "categorical", "side": "user", "vocabulary_size": 7},
                sequence("hist_stars", max_length, vocabulary_size=8),
                sequence("hist_item", max_length, shares="item", vocabulary_size=9),
                {"name": "item", "kind": "categorical", "side": "item", "vocabulary_size": 9},
                sequence("hist_brand", max_length, shares="brand", vocabulary_size=6),
                {"name": "brand", "kind": "categorical", "side": "item", "vocabulary_size": 6},
                {"name": "hour", "kind": "numeric", "side": "context", "transform": "none"},
            ]
        }
    )


# The events of rows: 3, the second one of unknown brand; none; 4; 1, and an event without an item.
EVENTS = {
    "user": np.array([3, 4, 5, 6]),
    "hist_stars": np.array([[4, 7, 5, 0], [0, 0, 0, 0], [3, 4, 5, 6], [5, 6, 0, 0]]),
    "hist_item": np.array([[3, 8, 3, 0], [0, 0, 0, 0], [4, 5, 6, 7], [8, 0, 0, 0]]),
    "item": np.array([3, 8, 5, 1]),
    "hist_brand": np.array([[3, 0, 4, 0], [0, 0, 0, 0], [4, 5, 3, 3], [5, 4, 0, 0]]),
    "brand": np.array([3, 5, 4, 0]),
    "hour": np.array([0.5, -1.0, 2.0, 1.0], np.float32),
}
EXISTS = np.array([[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]], bool)


def make(name: str, schema: Schema | None = None, **arguments: Any) -> Any:
    """A small model whose weights are so large that every event shows in the logits."""
    model = backbones.create(
        name, schema or events_schema(), embedding_dim=D, hidden_units=[8, 6], **arguments
    )
    model.build()
    for i, weight in enumerate(model.trainable_variables):
        if "norm" not in weight.path:
            weight.assign(np.random.default_rng(i).normal(scale=0.5, size=weight.shape))
    return model


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def arrays(layer: Any) -> list[np.ndarray]:
    return [np.array(weight) for weight in layer.weights]


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def test_target_attention_against_numpy() -> None:
    layer = TargetAttention((6, 5))
    query, keys = random(4, D), random(4, LENGTH, D)
    found = layer(query[:, None], keys[:, None], EXISTS[:, None])[:, 0]
    (wq, bq), (wk,), (wp,) = map(arrays, (layer.of_query, layer.of_event, layer.of_product))
    (w2, b2), (w3, b3) = arrays(layer.hidden), arrays(layer.score)
    expected = np.zeros((4, D))
    for b, (q, row) in enumerate(zip(query, keys, strict=True)):
        for k in row[EXISTS[b]]:
            hidden = np.maximum(q @ wq + bq + k @ wk + (q * k) @ wp, 0)
            score = np.maximum(hidden @ w2 + b2, 0) @ w3 + b3
            expected[b] += sigmoid(score) * k
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_augru_against_a_loop_over_steps() -> None:
    layer = AUGRU(3)
    inputs = random(4, LENGTH, D)
    weights = np.array([[0.2, 0.5, 0.3, 0], [0, 0, 0, 0], [1, 0, 0, 0.5], [0.9, 0.1, 0, 0]])
    found = layer(inputs, weights.astype(np.float32))
    w, bias = arrays(layer.gates)
    u = layer.recurrent.numpy()
    for b in range(4):
        h = np.zeros(3)
        for i, (x, a) in enumerate(zip(inputs[b], weights[b], strict=True)):
            x_u, x_r, x_c = np.split(x @ w + bias, 3)
            h_u, h_r, h_c = np.split(h @ u, 3)
            update = a * sigmoid(x_u + h_u)
            h = (1 - update) * h + update * np.tanh(x_c + sigmoid(x_r + h_r) * h_c)
            np.testing.assert_allclose(found[b, i], h, atol=1e-5)


def test_transformer_block_against_numpy() -> None:
    layer = TransformerBlock(num_heads=2)
    x = random(3, LENGTH, D)
    exists = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], bool)
    found = layer(x, x, exists)
    wq, bq, wk, bk, wv, bv, wo, bo = arrays(layer.attention)  # [D, head, D / heads]
    (w1, b1), (w2, b2) = arrays(layer.inner), arrays(layer.outer)

    def norm(values: np.ndarray) -> np.ndarray:
        centered = values - values.mean()
        return centered / np.sqrt((centered**2).mean() + 1e-5)

    for b in range(3):
        for i in range(LENGTH):
            attended = bo.copy()
            for head in range(2):
                seen = x[b][exists[b]]
                q = x[b, i] @ wq[:, head] + bq[head]
                keys, values = seen @ wk[:, head] + bk[head], seen @ wv[:, head] + bv[head]
                attended += softmax(keys @ q / np.sqrt(D / 2)) @ values @ wo[head]
            s = norm(x[b, i] + attended)
            inner = s @ w1 + b1
            expected = norm(s + np.where(inner > 0, inner, 0.2 * inner) @ w2 + b2)
            np.testing.assert_allclose(found[b, i], expected, atol=1e-5)
    np.testing.assert_allclose(layer(x[:, :1], x, exists), found[:, :1], atol=1e-6)


def test_heads_must_divide_the_width() -> None:
    x = random(3, LENGTH, D)
    with pytest.raises(ValueError, match=r"`num_heads` should divide the width 4. Received: 3"):
        TransformerBlock(3)(x, x, np.ones((3, LENGTH), bool))


def test_next_event_loss_against_numpy_and_only_in_training() -> None:
    layer = NextEventLoss(0.5)
    states, events = random(4, LENGTH, D), random(4, LENGTH, D + 1)[..., :D]
    np.testing.assert_array_equal(layer(states, events, EXISTS, training=True), states)
    came, did_not = [], []
    for b in range(4):
        other = (b - 2) % 4
        for t in range(LENGTH - 1):
            if EXISTS[b, t + 1]:
                came.append(-np.log(sigmoid(states[b, t] @ events[b, t + 1])))
                if EXISTS[other, t + 1]:
                    did_not.append(-np.log(1 - sigmoid(states[b, t] @ events[other, t + 1])))
    assert (len(came), len(did_not)) == (6, 4)
    (loss,) = layer.losses
    np.testing.assert_allclose(loss, 0.5 * (np.mean(came) + np.mean(did_not)), rtol=1e-5)
    layer(states, events, EXISTS)
    assert layer.losses == []


def test_query_and_keys_put_the_same_features_side_by_side() -> None:
    layer = BehaviourSequence(events_schema(), D)
    assert layer.histories == ("hist_stars", "hist_item", "hist_brand")
    assert layer.candidate == ("item", "brand")
    assert layer.width == 2 * D
    np.testing.assert_array_equal(layer.behaviours.exists(EVENTS), EXISTS)
    candidate, events = random(4, 2 * D), random(4, LENGTH, 3 * D)
    query, keys = layer(candidate, events)
    np.testing.assert_array_equal(query, candidate)
    kernel, bias = arrays(layer.projection)
    np.testing.assert_allclose(keys, events @ kernel + bias, atol=1e-5)

    alike = BehaviourSequence(events_schema().select(["hist_item", "item"]), D)
    events = random(4, LENGTH, D)
    assert alike.projection is None
    np.testing.assert_array_equal(alike(random(4, D), events)[1], events)


def test_latest_first_reverses_events_and_leaves_padding_behind() -> None:
    found = np.array(latest_first(tf.constant(EVENTS["hist_stars"]), count(tf.constant(EXISTS))))
    assert found.tolist() == [[5, 7, 4, 0], [0, 0, 0, 0], [6, 5, 4, 3], [6, 5, 0, 0]]
    gap = tf.constant([[True, False, True, False]])
    assert np.array(latest_first(tf.constant([[4, 0, 6, 0]]), count(gap))).tolist() == [
        [6, 0, 4, 0]
    ]


def test_din_against_numpy() -> None:
    model = make("din")
    table = np.array(model.fields.table)

    def row(feature: str, token: int) -> np.ndarray:
        return table[model.fields.offsets[feature] + token]

    kernel, bias = arrays(model.behaviours.projection)
    (recency,) = arrays(model.recency)
    query, keys = np.zeros((4, 2 * D)), np.zeros((4, LENGTH, 2 * D))
    for b in range(4):
        query[b] = np.concatenate([row(f, EVENTS[f][b]) for f in ("item", "brand")])
        for i in range(LENGTH):
            stars, item, brand = (EVENTS[f"hist_{f}"][b, i] for f in ("stars", "item", "brand"))
            event = [row("hist_stars", stars), row("item", item), row("brand", brand)]
            keys[b, i] = np.concatenate(event) @ kernel + bias
            keys[b, i] += recency[EXISTS[b].sum() - 1 - i] if EXISTS[b, i] else 0
    query, keys = (of[:, None].astype(np.float32) for of in (query, keys))
    interest = model.attention(query, keys, EXISTS[:, None])
    found = np.array(model.embed(EVENTS))
    assert found.shape == (4, 4 + 2, D)  # user, item, brand, hour
    np.testing.assert_allclose(found[:, 4:], np.reshape(interest, (4, 2, D)), atol=1e-5)
    others = ["user", "item", "brand", "hour"]
    np.testing.assert_array_equal(found[:, :4], model.fields(EVENTS, names=others))


def test_din_attends_to_the_events_that_are_most_similar_to_the_candidate() -> None:
    model, query, keys = make("din", top_events=2), random(4, 2 * D), random(4, LENGTH, 2 * D)
    similar = np.zeros_like(EXISTS)
    for b in range(4):
        events = np.flatnonzero(EXISTS[b])
        similar[b, events[np.argsort(-(keys[b, events] @ query[b]))[:2]]] = True
    assert similar.sum(axis=1).tolist() == [2, 0, 2, 2]
    placed = model.recency(keys)[:, None]
    expected = np.reshape(model.attention(query[:, None], placed, similar[:, None]), (4, 2, D))
    np.testing.assert_allclose(model.attend(query, keys, EXISTS), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("bst", {}),
        ("dien", {}),
        ("din", {}),
        ("din", {"top_events": 2}),
        ("din", {"top_events": 9}),
    ],
)
def test_a_users_events_are_embedded_once_for_all_candidates(
    name: str, arguments: dict[str, Any]
) -> None:
    model = make(name, **arguments)
    items = {n: np.array([[1, 3, 5], [4, 2, 0], [5, 5, 3]]) for n in ("item", "brand")}
    user = {n: values[:3] for n, values in EVENTS.items() if n not in items}
    found = model.score(model.encode_user(user), items)
    for candidate in range(3):
        rows = user | {n: ids[:, candidate] for n, ids in items.items()}
        np.testing.assert_allclose(found[:, candidate], model(rows), atol=1e-5)


def test_dien_against_numpy() -> None:
    model = make("dien")
    query, keys = random(4, 2 * D), random(4, LENGTH, 2 * D)
    states = np.array(model.extraction(keys, np.ones((4, LENGTH), np.float32)))
    (meeting,) = arrays(model.meeting)
    weights = np.zeros((4, LENGTH), np.float32)
    for b in range(4):
        if EXISTS[b].any():
            weights[b, EXISTS[b]] = softmax(states[b, EXISTS[b]] @ (query[b] @ meeting))
    expected = np.reshape(model.evolution(states, weights)[:, -1], (4, 2, D))
    np.testing.assert_allclose(model.attend(query, keys, EXISTS), expected, atol=1e-5)


def test_bst_gives_all_places_or_the_candidate() -> None:
    shapes = {}
    for pooling, places in (("flatten", 1 + LENGTH), ("candidate", 1)):
        model = make("bst", pooling=pooling, num_blocks=2)
        found = np.array(model.embed(EVENTS))
        assert found.shape == (4, 4 + 2 * places, D)
        shapes[pooling] = found[:, 4:6]
        absent = found[:, 6:].reshape(4, places - 1, 2 * D)
        assert (absent == 0).all(axis=2).tolist() == (~EXISTS[:, : places - 1]).tolist()
    np.testing.assert_allclose(shapes["candidate"], shapes["flatten"], atol=1e-5)


@pytest.mark.parametrize("arguments", [{"pooling": "mean"}, {"num_blocks": 0}])
def test_bst_refuses_what_it_cannot_do(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` should be"):
        backbones.create("bst", SCHEMA, **arguments)


@pytest.mark.parametrize("name", ["dien", "din"])
def test_a_row_without_events_has_a_history_of_zeros(name: str) -> None:
    history = np.array(make(name).embed(EVENTS))[:, 4:]
    assert (history == 0).all(axis=(1, 2)).tolist() == [False, True, False, False]


@pytest.mark.parametrize("name", NAMES)
def test_rows_without_events_have_finite_logits_and_gradients(name: str) -> None:
    model = make(name)
    none = EVENTS | {f"hist_{f}": np.zeros((4, LENGTH), int) for f in ("stars", "item", "brand")}
    with tf.GradientTape() as tape:
        logits = model(none, training=True)
        loss = tf.reduce_sum(logits) + sum(model.losses)
    gradients = tape.gradient(loss, [w.value for w in model.trainable_variables])
    assert np.isfinite(logits).all()
    for gradient in gradients:
        if gradient is not None:  # nothing looked at the events
            assert np.isfinite(tf.convert_to_tensor(gradient)).all()


@pytest.mark.parametrize(
    ("name", "arguments"), [("din", {}), ("dien", {}), ("bst", {"pooling": "candidate"})]
)
def test_longer_padding_changes_nothing(name: str, arguments: dict[str, Any]) -> None:
    model = make(name, **arguments)
    longer = make(name, events_schema(LENGTH + 3), **arguments)
    for weight, long in zip(model.weights, longer.weights, strict=True):
        value = np.array(long)
        value[: len(np.atleast_1d(weight))] = weight  # more positions, which nothing reads
        long.assign(value)
    padded = {
        name: np.pad(values, ((0, 0), (0, 3))) if name.startswith("hist_") else values
        for name, values in EVENTS.items()
    }
    np.testing.assert_allclose(longer(padded), model(EVENTS), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_what_lies_where_no_event_is_changes_nothing(name: str) -> None:
    model = make(name)
    stars = np.where(EXISTS, EVENTS["hist_stars"], 6)  # attributes of no event
    np.testing.assert_allclose(model(EVENTS | {"hist_stars": stars}), model(EVENTS), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_permuting_rows_permutes_logits(name: str) -> None:
    model = make(name)
    order = [2, 0, 3, 1]
    permuted = model({key: values[order] for key, values in EVENTS.items()})
    np.testing.assert_allclose(permuted, np.array(model(EVENTS))[order], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments", "matters"),
    [
        ("bst", {}, True),
        ("dien", {}, True),
        ("din", {}, True),
        ("din", {"positions": False}, False),
    ],
)
def test_the_order_of_events_matters(name: str, arguments: dict[str, Any], matters: bool) -> None:
    model = make(name, **arguments)
    swapped = EVENTS | {
        key: EVENTS[key][:, [1, 0, 2, 3]] for key in ("hist_stars", "hist_item", "hist_brand")
    }
    moved = np.abs(np.array(model.embed(swapped)) - np.array(model.embed(EVENTS))).max(axis=(1, 2))
    assert (moved > 1e-5).tolist() == [matters, False, matters, matters]


@pytest.mark.parametrize("name", NAMES)
def test_some_fields_come_without_the_history(name: str) -> None:
    model = make(name)
    every = np.array(model.embed(EVENTS))
    items = model.embed({key: EVENTS[key] for key in ("item", "brand")}, names=["brand", "item"])
    np.testing.assert_array_equal(items, every[:, 1:3])
    users = ["user", "hist_stars", "hist_item", "hist_brand", "hour"]
    found = model.embed({key: EVENTS[key] for key in users}, names=users)
    np.testing.assert_array_equal(found, every[:, [0, 3]])
    assert model.embed(EVENTS, names=["hist_item"]).shape == (4, 0, D)
    without_user = [key for key in EVENTS if key != "user"]
    np.testing.assert_allclose(model.embed(EVENTS, names=without_user), every[:, 1:], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_represent_takes_further_fields(name: str) -> None:
    model = backbones.create(name, SCHEMA, embedding_dim=D, hidden_units=[8, 6])
    fields = np.array(model.embed(INPUTS))
    more = np.concatenate([fields, random(3, 2, D)], axis=1)
    assert model.represent(more).shape == (3, 6)


@pytest.mark.parametrize("name", NAMES)
def test_lower_precision_trains_and_scores(name: str, set_precision: Callable[[str], None]) -> None:
    set_precision("mixed_bfloat16")
    model = make(name)
    assert model.embed(EVENTS).dtype == "bfloat16"
    model.compile(optimizer=LazyAdam(0.01), run_eagerly=True)
    history = model.fit(EVENTS, np.array([1.0, 0.0, 1.0, 0.0]), verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert np.isfinite(model.predict(EVENTS, verbose=0)).all()


@pytest.mark.slow
def test_the_loss_of_dien_counts_next_events_in_training_only() -> None:
    labels = np.array([1.0, 0.0, 1.0, 0.0], np.float32)
    losses = {}
    for weight in (0.0, 1.0):
        model = make("dien", auxiliary_weight=weight)
        model.compile(optimizer=keras.optimizers.SGD(0.0))
        trained = model.fit(EVENTS, labels, verbose=0).history["loss"][0]
        losses[weight] = trained - model.evaluate(EVENTS, labels, verbose=0)
    assert abs(losses[0.0]) < 1e-5
    assert losses[1.0] > 0.1


@pytest.mark.parametrize(
    ("features", "found"),
    [
        (["user", "item", "brand"], "found sequences: none"),
        (["hist_item", "brand"], r"found sequences: hist_item \(side user, shares nothing\)"),
        (["hist_stars", "item"], r"hist_stars \(side user, shares nothing\); categorical.*: item"),
        (["hist_item", "user"], "categorical features of side item: none"),
    ],
)
def test_a_schema_without_a_history_of_items_is_refused(features: list[str], found: str) -> None:
    with pytest.raises(ValueError, match=f"shares a categorical feature of side item.*{found}"):
        backbones.create("din", events_schema().select(features))


def test_a_history_of_lists_alone_is_refused() -> None:
    features = [f.model_dump() for f in SCHEMA if f.name in ("item", "tags")]
    tags = sequence("seen_tags", shares="tags", vocabulary_size=5)
    with pytest.raises(ValueError, match=r"seen_tags \(side user, shares tags\)"):
        backbones.create("din", Schema.model_validate({"features": [*features, tags]}))


def test_histories_of_two_lengths_are_refused() -> None:
    features = [f.model_dump() for f in SCHEMA]
    longer = sequence("bought", 7, shares="item", vocabulary_size=9)
    with pytest.raises(ValueError, match=r"one max_length.*found seen: 4, bought: 7"):
        backbones.create("din", Schema.model_validate({"features": [*features, longer]}))
