"""ROK's Keras models: the losses against plain NumPy, the student around any backbone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.backbones.test_backbones import SMALL
from tests.conftest import few_quick
from tests.serving.raw_rows import (
    NUM_ROWS,
    ROWS,
    SCHEMA,
    fake_dataset,
    model_inputs,
    model_scores,
    rank_inputs,
    spread_weights,
)
from tfctr import backbones
from tfctr.frameworks.rok import Imitation, KnowledgeBase, RokStudent
from tfctr.frameworks.rok.imitation import contrastive_loss
from tfctr.frameworks.rok.student import USES
from tfctr.optimizers import LazyAdam
from tfctr.schema import Schema, Sequence
from tfctr.serving import export

KNOWN = [f.name for f in SCHEMA.inputs if not isinstance(f, Sequence)]
EVENTS_OF_ONE = SCHEMA.select([f.name for f in SCHEMA if f.name != "seen"])  # for DIN and the like


def knowledge_base(schema: Schema = SCHEMA, dropout: float = 0.0) -> KnowledgeBase:
    names = [name for name in KNOWN if name in [f.name for f in schema]]
    return KnowledgeBase(
        schema.select(names), 4, 3, embedding_dim=5, hidden_units=[8], dropout=dropout
    )


def imitating(knowledge: Any, mean: Any, std: Any, **weights: float) -> Imitation:
    given = {"imitation": 1.0, "contrastive": 0.1, "clicks": 0.0} | weights
    return Imitation(knowledge, mean, std, **({"mask_rate": 0.2, "temperature": 0.2} | given))


def student(name: str, use: list[str], schema: Schema = SCHEMA) -> Any:
    backbone = backbones.create(name, schema, **SMALL[name])
    return spread_weights(RokStudent(backbone, knowledge_base(schema), use, tuned=False))


def test_a_knowledge_base_is_a_tower_over_a_table_of_its_own() -> None:
    model = spread_weights(knowledge_base())
    inputs = {name: model_inputs(ROWS)[name] for name in KNOWN}
    fields = np.array(model.decompose(inputs))
    assert fields.shape == (NUM_ROWS, len(KNOWN), 5)
    (hidden, hidden_bias), (kernel, bias) = (
        [np.array(w) for w in layer.weights] for layer in (model.hidden, model.output_layer)
    )
    x = np.maximum(fields.reshape(NUM_ROWS, -1) @ hidden + hidden_bias, 0) @ kernel + bias
    np.testing.assert_allclose(model(inputs), x.reshape(NUM_ROWS, 4, 3), atol=1e-4)


def test_imitation_loss_is_the_mean_square_of_standardised_hints() -> None:
    knowledge = spread_weights(knowledge_base())
    inputs = {name: model_inputs(ROWS)[name] for name in KNOWN}
    rng = np.random.default_rng(1)
    hint = rng.normal(size=(NUM_ROWS, 12)).astype(np.float32)
    mean, std = rng.normal(size=12), rng.uniform(0.5, 2, 12)
    model = imitating(knowledge, mean, std, imitation=2.0, contrastive=0.0)
    model.compile(keras.optimizers.SGD(0.0))
    rows = inputs | {"hint": hint}
    said = np.array(knowledge(inputs)).reshape(NUM_ROWS, -1)
    squares = (said - (hint - mean) / std) ** 2
    loss = model.fit(rows, np.zeros(NUM_ROWS), verbose=0).history["loss"][0]
    assert loss == pytest.approx(2 * squares.mean(), rel=1e-5)
    np.testing.assert_allclose(model.predict(rows, verbose=0), squares.mean(axis=1), rtol=1e-4)
    rows["hint"][0, 0] = 3e38  # the square of an extreme hint stays finite
    squares[0, 0] = (said[0, 0] - 1e3) ** 2
    np.testing.assert_allclose(model.predict(rows, verbose=0), squares.mean(axis=1), rtol=1e-4)


def test_clicks_are_learned_beside_hints_or_alone() -> None:
    knowledge = spread_weights(knowledge_base())
    inputs = {name: model_inputs(ROWS)[name] for name in KNOWN}
    rows = inputs | {"hint": np.ones((NUM_ROWS, 12), np.float32)}
    clicks = np.arange(NUM_ROWS) % 2.0
    said = np.array(knowledge(inputs)).reshape(NUM_ROWS, -1)
    imitation = ((said - 1) ** 2).mean()
    for weight in (0.0, 1.0):
        model = imitating(
            knowledge, np.zeros(12), np.ones(12), imitation=weight, contrastive=0.0, clicks=3.0
        )
        model.build()
        kernel = np.linspace(-1, 1, 12, dtype=np.float32)[:, None]
        model.head.set_weights([kernel, np.array([0.5], np.float32)])
        logits = said @ kernel[:, 0] + 0.5
        log_loss = np.mean(np.log1p(np.exp(-np.where(clicks == 1, logits, -logits))))
        model.compile(keras.optimizers.SGD(0.0))
        loss = model.fit(rows, clicks, verbose=0, batch_size=NUM_ROWS).history["loss"][0]
        assert loss == pytest.approx(weight * imitation + 3 * log_loss, rel=1e-4)
        found = model.predict(rows, verbose=0)
        np.testing.assert_allclose(
            found, ((said - 1) ** 2).mean(axis=1) if weight else logits, rtol=1e-3, atol=1e-4
        )


def test_imitation_in_lower_precision(set_precision: Callable[[str], None]) -> None:
    set_precision("mixed_bfloat16")
    knowledge = spread_weights(knowledge_base())
    rows = {name: model_inputs(ROWS)[name] for name in KNOWN}
    rows["hint"] = np.random.default_rng(1).normal(size=(NUM_ROWS, 12)).astype(np.float32)
    model = imitating(knowledge, np.zeros(12), np.ones(12), clicks=1.0)
    model.compile(LazyAdam(0.01))
    loss = model.fit(rows, np.arange(NUM_ROWS) % 2.0, verbose=0).history["loss"][0]
    assert np.isfinite(loss)
    squares = (np.array(knowledge(rows), np.float32).reshape(NUM_ROWS, 12) - rows["hint"]) ** 2
    np.testing.assert_allclose(model.predict(rows, verbose=0), squares.mean(axis=1), rtol=0.05)


def test_contrastive_loss_against_a_loop() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, 6, 5)).astype(np.float32)
    cosine = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) / 0.3 for b in second] for a in first]
    total = 0.0
    for i in range(6):
        row, column = np.exp(cosine[i]), np.exp([cosine[j][i] for j in range(6)])
        total -= np.log(row[i] / row.sum()) + np.log(column[i] / column.sum())
    found = contrastive_loss(keras.ops.array(first), keras.ops.array(second), 0.3)
    assert float(found) == pytest.approx(total / 12, rel=1e-5)


def test_the_second_view_hides_the_share_of_fields_that_it_should() -> None:
    knowledge = spread_weights(knowledge_base())
    inputs = {name: model_inputs(ROWS)[name] for name in KNOWN}
    many = {name: np.repeat(values, 400, axis=0) for name, values in inputs.items()}
    many["hint"] = np.zeros((400 * NUM_ROWS, 12), np.float32)
    seen = {}
    reconstruct = knowledge.reconstruct

    def watched(fields: Any, training: bool = False) -> Any:
        seen[len(seen)] = np.array(fields)
        return reconstruct(fields, training=training)

    model = imitating(knowledge, np.zeros(12), np.ones(12), mask_rate=0.3)
    model.build()
    model.hidden_fields.assign(np.full(model.hidden_fields.shape, 7.0))
    knowledge.reconstruct = watched
    model(many, training=True)
    hidden = (seen[1] == 7.0).all(axis=2)
    assert hidden.mean() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_array_equal(seen[1][~hidden], seen[0][~hidden])


def test_imitation_learns_what_a_row_tells() -> None:
    """A hint that follows from two fields, whatever the others, is learned but for its noise."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(3)
    schema = SCHEMA.select(["item", "user", "device"])
    n = 6000
    ids = {f.name: rng.integers(0, f.num_ids, n) for f in schema.inputs}
    truth = rng.normal(size=(7, 7, 6))[ids["item"], ids["user"]]
    noise = rng.normal(scale=0.5, size=truth.shape)
    hint = (truth + noise).astype(np.float32)
    knowledge = KnowledgeBase(schema, 2, 3, 16, [64], dropout=0.0)
    model = imitating(knowledge, hint.mean(axis=0), hint.std(axis=0))
    model.compile(LazyAdam(0.01))
    rows = ids | {"hint": hint}
    train, rest = ({k: v[part] for k, v in rows.items()} for part in (slice(5000), slice(5000, n)))
    model.fit(train, np.zeros(5000), batch_size=100, epochs=15, verbose=0)
    explained = 1 - model.predict(rest, verbose=0).mean()
    assert explained == pytest.approx(1 / (1 + 0.25), abs=0.07)


@pytest.mark.parametrize("use", [["instance"], ["feature"], ["instance", "feature"]])
def test_student_against_numpy(use: list[str]) -> None:
    model = student("deepfm", use)
    inputs = model_inputs(ROWS)
    e = np.array(model.backbone.embed(inputs))
    known = np.array(model.knowledge.decompose(inputs))
    names = [f.name for f in SCHEMA.inputs]
    if "feature" in use:
        kernel = np.array(model.to_field.kernel)
        for i, name in enumerate(KNOWN):
            e[:, names.index(name)] += known[:, i] @ kernel[i]
    q = model.backbone.represent(e)
    logits = np.array(model.backbone.predict_logits(q))
    if "instance" in use:
        said = np.array(model.knowledge(inputs)).reshape(NUM_ROWS, -1)
        logits = logits + said @ np.array(model.of_knowledge.kernel)[:, 0]
    np.testing.assert_allclose(model(inputs), logits, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    few_quick(["din", "dcn_v2", "lr", "finalmlp"], "din"),
)
def test_any_backbone_ranks_as_it_scores(name: str, tmp_path: Path) -> None:
    schema = EVENTS_OF_ONE if name == "din" else SCHEMA
    model = student(name, ["instance", "feature"], schema)
    served = tf.saved_model.load(str(export(model, fake_dataset(tmp_path / "v"), tmp_path / "m")))
    inputs, rows = rank_inputs(schema, 2, 3)
    scores = served.signatures["rank"](**inputs)["scores"]
    np.testing.assert_allclose(scores, model_scores(model, rows).reshape(2, 3), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALL.keys() - {"rim"}))
def test_every_backbone_can_carry_it(name: str, tmp_path: Path) -> None:
    schema = EVENTS_OF_ONE if name in ("bst", "dien", "din") else SCHEMA
    model = student(name, ["instance", "feature"], schema)
    model.compile(LazyAdam(0.01))
    rows = {k: v for k, v in model_inputs(ROWS).items() if k in model.reads}
    model.fit(rows, np.array([1.0, 0, 1, 0, 1]), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(rows), model(rows))


def test_only_the_student_learns_where_the_knowledge_base_is_frozen() -> None:
    rows, clicks = model_inputs(ROWS), np.array([1.0, 0, 1, 0, 1])
    for tuned in (False, True):
        knowledge = spread_weights(knowledge_base())
        before = [np.array(w) for w in knowledge.weights]
        model = RokStudent(backbones.create("lr", SCHEMA), knowledge, USES, tuned)
        model.compile(LazyAdam(0.1), run_eagerly=True)
        model.fit(rows, clicks, epochs=3, verbose=0)
        changed = [(np.array(w) != b).any() for w, b in zip(knowledge.weights, before, strict=True)]
        assert all(changed) if tuned else not any(changed)


def test_a_file_keeps_what_is_trained_and_how(tmp_path: Path) -> None:
    rows, clicks = model_inputs(ROWS), np.array([1.0, 0, 1, 0, 1])
    for tuned in (False, True):
        model = student("deepfm", ["instance", "feature"])
        model = RokStudent(model.backbone, model.knowledge, USES, tuned)
        model.compile(LazyAdam(0.01), run_eagerly=True)
        model.fit(rows, clicks, verbose=0)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert again.get_config() == model.get_config()
        assert len(again.trainable_variables) == len(model.trainable_variables)
        np.testing.assert_array_equal(again(rows), model(rows))


def test_what_does_not_fit_together_is_named() -> None:
    lr = backbones.create("lr", SCHEMA.select(["item", "user"]))
    with pytest.raises(ValueError, match=r"the knowledge base reads genres, device, .* does not"):
        RokStudent(lr, knowledge_base(), USES, tuned=False)
    with pytest.raises(ValueError, match=r"use: found \['all'\]; allowed: instance, feature"):
        RokStudent(backbones.create("lr", SCHEMA), knowledge_base(), ["all"], tuned=False)
    with pytest.raises(ValueError, match=r"use: found \[\]; allowed"):
        RokStudent(backbones.create("lr", SCHEMA), knowledge_base(), [], tuned=False)
