"""Layers against plain NumPy."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfctr.layers.field_embedding import FieldEmbedding
from tfctr.layers.flat_dense import FlatDense
from tfctr.layers.fm import FactorizationMachine
from tfctr.layers.mlp import MLP
from tfctr.layers.row_attention import RowAttention
from tfctr.models.losses import LogLoss
from tfctr.schema import Schema

SCHEMA = Schema.model_validate(
    {
        "features": [
            {"name": "age", "kind": "numeric", "side": "user", "mean": 30.0, "std": 10.0},
            {"name": "user", "kind": "categorical", "side": "user", "vocabulary_size": 7},
            {
                "name": "seen",
                "kind": "sequence",
                "side": "user",
                "max_length": 4,
                "shares": "item",
                "vocabulary_size": 9,
            },
            {
                "name": "price",
                "kind": "numeric",
                "side": "item",
                "transform": "bucketize",
                "boundaries": [1.0, 2.5],
            },
            {"name": "item", "kind": "categorical", "side": "item", "vocabulary_size": 9},
            {
                "name": "tags",
                "kind": "multi_valued",
                "side": "item",
                "max_length": 3,
                "vocabulary_size": 5,
            },
            {"name": "rank", "kind": "numeric", "side": "context", "transform": "none"},
            {"name": "title", "kind": "text", "side": "item"},
        ]
    }
)
INPUTS = {
    "age": np.array([30, 45, np.nan], np.float32),
    "user": np.array([0, 3, 6]),
    "seen": np.array([[3, 8, 3, 0], [0, 0, 0, 0], [4, 5, 6, 7]]),
    "price": np.array([0.5, 2.5, np.nan], np.float32),
    "item": np.array([1, 8, 3]),
    "tags": np.array([[4, 0, 0], [3, 4, 1], [0, 0, 0]]),
    "rank": np.array([2.0, np.nan, -1.0], np.float32),
}
DIM = 5


def by_hand(layer: FieldEmbedding) -> np.ndarray:
    """`[B, F, D]`, a value at a time."""
    table, directions = np.array(layer.table), np.array(layer.directions)
    user, item, price = 0, 7, 16  # first rows, in the order in which the schema names them
    tags = 20
    out = np.zeros((3, 7, DIM))
    for b in range(3):
        age, rank = INPUTS["age"][b], INPUTS["rank"][b]
        out[b, 0] = 0 if np.isnan(age) else (age - 30) / 10 * directions[0]
        out[b, 1] = table[user + INPUTS["user"][b]]
        for place, name, first in ((2, "seen", item), (5, "tags", tags)):
            ids = [i for i in INPUTS[name][b] if i != 0]
            if ids:
                out[b, place] = np.mean([table[first + i] for i in ids], axis=0)
        p = INPUTS["price"][b]
        bucket = 0 if np.isnan(p) else 1 + sum(p >= edge for edge in (1.0, 2.5))
        out[b, 3] = table[price + bucket]
        out[b, 4] = table[item + INPUTS["item"][b]]
        out[b, 6] = 0 if np.isnan(rank) else rank * directions[1]
    return out


def test_every_kind_of_field_is_embedded_as_by_hand() -> None:
    layer = FieldEmbedding(SCHEMA, DIM, stddev=1.0)
    found = layer(INPUTS)
    assert layer.num_rows == 7 + 9 + 4 + 5
    np.testing.assert_allclose(found, by_hand(layer), atol=1e-6)


def test_some_fields_are_the_same_as_in_all() -> None:
    layer = FieldEmbedding(SCHEMA, DIM, stddev=1.0)
    every = np.array(layer(INPUTS))
    names = ["item", "age", "tags"]  # the schema's order counts, not this one
    some = layer({name: INPUTS[name] for name in names}, names=names)
    np.testing.assert_array_equal(some, every[:, [0, 4, 5]])


def test_a_large_table_is_drawn_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfctr.layers.field_embedding.ROWS_AT_ONCE", 400)
    feature = {"name": "user", "kind": "categorical", "side": "user", "vocabulary_size": 1_000}
    schema = Schema.model_validate({"features": [feature]})
    keras.utils.set_random_seed(1)
    tables = []
    for _ in range(2):
        layer = FieldEmbedding(schema, DIM, stddev=0.5)
        layer.build()
        assert layer.table.by_rows
        tables.append(np.array(layer.table))
    assert tables[0].shape == (1_000, DIM)
    assert len(np.unique(np.concatenate(tables), axis=0)) == 2_000  # no row is drawn twice
    np.testing.assert_allclose(tables[0].std(axis=0), 0.5, rtol=0.1)
    np.testing.assert_allclose(tables[0].mean(axis=0), 0.0, atol=0.06)
    keras.utils.set_random_seed(1)
    layer = FieldEmbedding(schema, DIM, stddev=0.5)
    layer.build()
    np.testing.assert_array_equal(layer.table, tables[0])


def test_the_gradient_of_the_table_holds_only_the_batchs_rows() -> None:
    import tensorflow as tf

    layer = FieldEmbedding(SCHEMA, DIM)
    layer(INPUTS)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(INPUTS))
    gradient = tape.gradient(loss, layer.table.value)
    assert isinstance(gradient, tf.IndexedSlices)
    assert gradient.values.shape == (3 * (1 + 4 + 1 + 1 + 3), DIM)


def test_a_schema_that_was_never_fitted_is_refused() -> None:
    bare = Schema.model_validate(
        {"features": [{"name": "user", "kind": "categorical", "side": "user"}]}
    )
    with pytest.raises(ValueError, match="feature 'user' has no vocabulary yet"):
        FieldEmbedding(bare, DIM)


def test_field_embedding_keeps_its_config() -> None:
    layer = FieldEmbedding(SCHEMA, DIM, stddev=0.5)
    again = FieldEmbedding.from_config(layer.get_config())
    assert (again.schema, again.dim, again.stddev) == (SCHEMA, DIM, 0.5)


def test_fm_is_the_sum_over_pairs() -> None:
    x = np.random.default_rng(0).normal(size=(4, 6, DIM)).astype(np.float32)
    pairs = [
        sum(x[b, i] @ x[b, j] for i in range(6) for j in range(i + 1, 6)) for b in range(len(x))
    ]
    np.testing.assert_allclose(FactorizationMachine()(x)[:, 0], pairs, rtol=1e-4, atol=1e-4)


def test_mlp_is_dense_and_relu_in_turn() -> None:
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    layer = MLP((8, 3))
    found = np.array(layer(x))
    weights = [np.array(w) for w in layer.weights]
    hidden = np.maximum(x @ weights[0] + weights[1], 0)
    np.testing.assert_allclose(found, np.maximum(hidden @ weights[2] + weights[3], 0), atol=1e-5)


def test_dropout_drops_in_training_only() -> None:
    keras.utils.set_random_seed(0)
    x = np.ones((64, 6), np.float32)
    layer = MLP((16,), dropout=0.5)
    calm = np.array(layer(x))
    assert np.array_equal(calm, layer(x, training=False))
    assert (np.array(layer(x, training=True)) == 0).sum() > (calm == 0).sum()


def test_log_loss_is_one_value_a_row_and_takes_weights() -> None:
    labels = np.array([1.0, 0.0, 1.0], np.float32)
    logits = np.array([2.0, -1.0, -3.0], np.float32)
    p = 1 / (1 + np.exp(-logits))
    rows = -(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    weights = np.array([0.0, 2.0, 1.0], np.float32)
    loss = LogLoss()
    np.testing.assert_allclose(loss(labels, logits), rows.mean(), rtol=1e-5)
    np.testing.assert_allclose(loss(labels[:, None], logits), rows.mean(), rtol=1e-5)
    np.testing.assert_allclose(
        loss(labels, logits, sample_weight=weights), (rows * weights).mean(), rtol=1e-5
    )


@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 5), (4, 3, 2, 5)])
def test_flat_dense_is_dense(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    layer = FlatDense(6, activation="gelu")
    expected = keras.layers.Dense(6, activation="gelu")
    expected.build(shape)
    layer.build(shape)
    layer.set_weights(expected.get_weights())
    np.testing.assert_allclose(layer(x), expected(x), atol=1e-6)
    unknown = [None] * (len(shape) - 1)
    for leading in (unknown, [None, *shape[1:-1]]):
        spec = tf.TensorSpec([*leading, 5], tf.float32)
        traced = tf.function(layer.call).get_concrete_function(spec)
        assert traced.structured_outputs.shape.as_list()[1:] == [*leading[1:], 6]
        np.testing.assert_allclose(traced(tf.constant(x)), expected(x), atol=1e-6)


def test_a_robust_number_and_a_logarithm_are_scaled_and_clipped() -> None:
    measured = {"mean": 2.0, "std": 4.0, "median": 10.0, "iqr": 1.349}
    features = [
        {"name": name, "kind": "numeric", "side": "item", "transform": name} | measured
        for name in ("robust", "log", "standardize", "none")
    ]
    features.append(features[2] | {"name": "constant", "std": 1e-45})
    layer = FieldEmbedding(Schema.model_validate({"features": features}), 1)
    layer.build()
    layer.directions.assign(np.ones((5, 1)))
    values = np.array([10, 12, -3e38, 3e38, np.inf, np.nan], np.float32)
    found = np.asarray(layer({feature["name"]: values for feature in features}))[:, :, 0].T
    np.testing.assert_allclose(found[0], [0, 2, -10, 10, 0, 0], rtol=1e-6)
    huge = np.log1p(3e38)
    logs = [(np.log1p(x) - 2) / 4 for x in (10, 12)] + [(-huge - 2) / 4, (huge - 2) / 4, 0, 0]
    np.testing.assert_allclose(found[1], logs, rtol=1e-5)
    np.testing.assert_allclose(found[2], [2, 2.5, -1000, 1000, 0, 0])
    np.testing.assert_allclose(found[3], [10, 12, -1e9, 1e9, 0, 0])
    np.testing.assert_allclose(found[4], [8, 10, -1000, 1000, 0, 0])


def test_a_row_without_similar_rows_has_zeros_in_float16(
    set_precision: Callable[[str], None],
) -> None:
    set_precision("mixed_float16")
    layer = RowAttention(num_fields=2)
    generator = np.random.default_rng(1)
    fields, rows = (generator.normal(size=s).astype("float16") for s in ((2, 3, 4), (2, 5, 3, 4)))
    exists = np.array([[True] * 5, [False] * 5])
    layer.build(fields.shape, rows.shape, exists.shape)
    found = np.array(layer(fields, rows, exists))
    assert np.abs(found[0]).max() > 0
    np.testing.assert_array_equal(found[1], 0)
