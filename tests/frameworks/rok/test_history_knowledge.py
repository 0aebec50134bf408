"""The knowledge base of the second form and its student, against plain NumPy."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.backbones.test_sequence_backbones import EVENTS, events_schema
from tests.frameworks.test_stacking import WHOLE, assert_served
from tests.serving.raw_rows import spread_weights
from tfctr import backbones
from tfctr.frameworks.rok import FieldStudent, HistoryKnowledge, Imitation
from tfctr.frameworks.rok.given_hint import GivenHint
from tfctr.optimizers import LazyAdam

SCHEMA = events_schema()
KNOWN = ["item", "brand", "hour", "hist_item", "hist_stars"]
PLAIN = ["user", "item", "brand", "hour"]
SIZE, WIDTH, SUMS, FADING = 5, 3, 2, 2.0
ROWS = len(EVENTS["user"])


def knowledge(**changes: Any) -> Any:
    given: dict[str, Any] = {"embedding_dim": 3, "hidden_units": [6, 4], "dropout": 0.0} | changes
    return HistoryKnowledge(
        SCHEMA.select(KNOWN),
        "hist_item",
        "hist_stars",
        SIZE,
        state_dim=WIDTH,
        sums=SUMS,
        fading=FADING,
        **given,
    )


def student(**changes: Any) -> Any:
    backbone = backbones.create(
        "dcn_v2", SCHEMA.select(PLAIN), embedding_dim=4, hidden_units=[8], num_cross_layers=1
    )
    schema = SCHEMA.select([*PLAIN, *KNOWN])
    return spread_weights(FieldStudent(schema, backbone, knowledge(**changes), num_fields=2))


def by_a_loop(model: Any, row: int) -> np.ndarray:
    """The hint of a row, from its events one by one."""
    inputs = {name: values[row] for name, values in EVENTS.items()}
    items, grades = inputs["hist_item"], inputs["hist_stars"]
    q, w = (np.array(layer.table) for layer in (model.events, model.weights_of_grades))
    last = max((n + 1 for n in range(len(items)) if items[n] or grades[n]), default=0)
    sums, weights, number = np.zeros((SUMS, WIDTH)), np.zeros(SUMS), np.zeros(SUMS)
    for n in range(len(items)):
        if items[n] < 3 or grades[n] < 3:
            continue
        for c, fade in enumerate((1.0, np.exp(-(last - n - 1) / FADING))):
            sums[c] += w[grades[n], c] * fade * q[items[n]]
            weights[c] += w[grades[n], c] * fade
            number[c] += fade
    fields = {
        name: np.array(model.fields(_one(inputs), names=[name]))[0, 0]
        for name in ("item", "brand", "hour")
    }
    item = np.concatenate([fields["item"], fields["brand"]])
    u = sums / np.sqrt(1 + number)[:, None]
    p = (item @ np.array(model.to_vectors.kernel)).reshape(SUMS, WIDTH)
    of_user = np.concatenate(
        [u.ravel(), weights / (number + 2.5), [np.log1p(number[0])], fields["hour"]]
    )
    layer = of_user @ np.array(model.user_layer.kernel) + np.array(model.user_layer.bias)
    layer = layer + np.concatenate([item, (p * u).ravel()]) @ np.array(model.item_layer.kernel)
    x = np.maximum(layer, 0)
    kernel, bias = (np.array(weight) for weight in model.hidden.weights)
    x = np.maximum(x @ kernel + bias, 0)
    kernel, bias = (np.array(weight) for weight in model.output_layer.weights)
    return x @ kernel + bias


def _one(inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value)[None] for name, value in inputs.items()}


def known_inputs(names: list[str]) -> dict[str, np.ndarray]:
    return {name: EVENTS[name] for name in names}


def test_hints_are_those_of_a_loop_over_events() -> None:
    model = spread_weights(knowledge())
    expected = [by_a_loop(model, row) for row in range(ROWS)]
    np.testing.assert_allclose(model(known_inputs(KNOWN)), expected, atol=1e-5)


def test_a_student_reads_fields_made_of_the_hint() -> None:
    model = student()
    inputs = known_inputs([*dict.fromkeys([*PLAIN, *KNOWN])])
    hints = np.stack([by_a_loop(model.knowledge, row) for row in range(ROWS)])
    made = hints @ np.array(model.to_fields.kernel) + np.array(model.to_fields.bias)
    own = np.array(model.backbone.embed(inputs))
    fields = np.concatenate([own, made.reshape(ROWS, 2, 4)], axis=1)
    np.testing.assert_allclose(model.embed(inputs), fields, atol=1e-5)
    logits = model.backbone.predict_logits(model.backbone.represent(fields.astype("float32")))
    np.testing.assert_allclose(model(inputs), logits, atol=1e-4)


@pytest.mark.parametrize("features", [KNOWN, [name for name in KNOWN if name != "hour"]])
def test_a_user_is_encoded_once_with_or_without_other_features(features: list[str]) -> None:
    model = HistoryKnowledge(
        SCHEMA.select(features), "hist_item", "hist_stars", SIZE, 3, WIDTH, SUMS, FADING, [6], 0.0
    )
    spread_weights(model)
    inputs = known_inputs(features)
    user = model.encode_user({n: v for n, v in inputs.items() if n not in ("item", "brand")})
    rows = user | {name: inputs[name] for name in ("item", "brand")}
    np.testing.assert_allclose(model.of_candidates(rows), model(inputs), atol=1e-6)


def test_every_signature_has_the_scores_of_rows(tmp_path: Path) -> None:
    model = student()
    assert_served(model, model, {name: WHOLE[name] for name in model.reads}, tmp_path)


def test_only_the_fields_learn_and_a_file_keeps_both(tmp_path: Path) -> None:
    model = student(dropout=0.5)
    inputs = {name: EVENTS[name] for name in model.reads}
    before = [np.array(weight) for weight in model.knowledge.weights]
    kernel = np.array(model.to_fields.kernel)
    model.compile(LazyAdam(0.1), run_eagerly=True)
    model.fit(inputs, np.array([1.0, 0, 1, 0]), verbose=0)
    for weight, old in zip(model.knowledge.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert (np.array(model.to_fields.kernel) != kernel).all()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(inputs), model(inputs))
    assert len(again.trainable_variables) == len(model.trainable_variables)


def test_a_knowledge_base_learns_what_similar_items_were_graded() -> None:
    """A hint `Σ s(i, j) d_j` of low rank, which no feature of a row tells alone."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(2)
    schema = SCHEMA.select(["item", "hist_item", "hist_stars"])
    n, length = 5000, SCHEMA["hist_item"].max_length
    vectors, values = rng.normal(size=(9, 2)), rng.normal(size=8)
    items = rng.integers(3, 9, n)
    events, stars = rng.integers(3, 9, (n, length)), rng.integers(3, 8, (n, length))
    similar = np.einsum("nf,nlf->nl", vectors[items], vectors[events])
    hint = (similar * values[stars]).sum(1, keepdims=True).astype("float32")
    base = HistoryKnowledge(schema, "hist_item", "hist_stars", 1, 8, 8, 2, 1e9, [32], dropout=0.0)
    model = Imitation(
        base, hint.mean(0), hint.std(0), 1.0, contrastive=0, clicks=0, mask_rate=0, temperature=1
    )
    model.compile(LazyAdam(0.01))
    inputs = {"item": items, "hist_item": events, "hist_stars": stars, "hint": hint}
    train, rest = (
        {k: v[part] for k, v in inputs.items()} for part in (slice(4000), slice(4000, n))
    )
    model.fit(train, np.zeros(4000), batch_size=200, epochs=16, verbose=0)
    assert 1 - model.predict(rest, verbose=0).mean() > 0.9


def test_given_hints_are_standardised() -> None:
    given = GivenHint(2)
    given.build()
    given.set_scale([1.0, 2.0], [2.0, 0.5])
    found = given({"hint": np.array([[3.0, 2.0], [1.0, 3e38]], "float32")})
    np.testing.assert_allclose(found, [[1, 0], [0, 1e3]])
