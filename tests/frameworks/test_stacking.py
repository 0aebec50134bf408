"""Methods around one another: any order that makes sense is one student, trained, kept, served."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests.backbones.test_sequence_backbones import EVENTS, events_schema
from tests.conftest import few_quick
from tests.serving.raw_rows import fake_dataset
from tfctr import backbones
from tfctr.frameworks.cold_items import ColdItemsStudent
from tfctr.frameworks.ecdctr import EcdctrServed, EcdctrStudent
from tfctr.frameworks.rok import FieldStudent, HistoryKnowledge, KnowledgeBase, RokStudent
from tfctr.frameworks.srp4ctr import SequenceEncoder, Srp4ctrStudent
from tfctr.frameworks.statistics import StatisticsStudent, UserStatistics
from tfctr.frameworks.vectors import VectorsStudent
from tfctr.models.click_model import ClickModel
from tfctr.models.student import Student
from tfctr.optimizers import LazyAdam
from tfctr.serving import export

RNG = np.random.default_rng(5)
SCHEMA = events_schema()
ITEM = ("item", "brand")
OF_STATISTICS = ("user", "item", "hist_item", "hist_stars")
SNAPSHOTS, DIM = 2, 3
KEPT = "norm|noise|scale|spread|knots"  # weights that are not just any numbers
# Every event has a brand: a list that is sent as a sequence has no holes.
WHOLE = EVENTS | {
    "hist_brand": np.array([[3, 5, 4, 0], [0, 0, 0, 0], [4, 5, 3, 3], [5, 0, 0, 0]]),
    "hist_stars": np.array([[4, 7, 5, 0], [0, 0, 0, 0], [3, 4, 5, 6], [5, 0, 0, 0]]),
}


def rok(model: ClickModel) -> Student:
    knowledge = KnowledgeBase(
        SCHEMA.select(["user", "item", "brand", "hour"]),
        num_vectors=3,
        vector_dim=2,
        embedding_dim=5,
        hidden_units=[6],
        dropout=0.1,
    )
    return RokStudent(model, knowledge, ["instance", "feature"], tuned=False)


def srp4ctr(model: ClickModel) -> Student:
    read = SCHEMA.select(["hist_stars", "hist_item", "hist_brand", "item", "brand"])
    encoder = SequenceEncoder(read, 8, num_layers=1, num_heads=2, dropout=0.0)
    return Srp4ctrStudent(
        SCHEMA,
        model,
        encoder,
        cross_attention=True,
        num_queries=2,
        num_query_blocks=1,
        frozen="none",
        refreshed=False,
    )


def statistics(model: ClickModel) -> Student:
    schema = SCHEMA.select(
        [feature.name for feature in (*SCHEMA,) if feature.name in (*model.reads, *OF_STATISTICS)]
    )
    numbers = UserStatistics(
        schema["hist_item"].num_ids,
        schema["hist_stars"].num_ids,
        attribute_sizes=[3],
        neighbours=2,
        factors=2,
        num_knots=3,
        fading=9.0,
        attribute_fadings=[4.0],
    )
    return StatisticsStudent(schema, model, numbers, *OF_STATISTICS, num_fields=2)


def rok_neighbours(model: ClickModel) -> Student:
    read = ("item", "brand", "hour", "hist_item", "hist_stars")
    knowledge = HistoryKnowledge(
        SCHEMA.select(read), "hist_item", "hist_stars", 5, 3, 4, 2, 3.0, [6], dropout=0.1
    )
    names = [feature.name for feature in SCHEMA if feature.name in (*model.reads, *read)]
    return FieldStudent(SCHEMA.select(names), model, knowledge, num_fields=2)


def cold_items(model: ClickModel) -> Student:
    return ColdItemsStudent(model, "item", 2, ["brand"], [5], 0.1, 0.2, "regression", 0.1, 0.1)


def ecdctr(model: ClickModel) -> Student:
    return EcdctrStudent(model, "user", "item", SNAPSHOTS, DIM)


def vectors(model: ClickModel) -> Student:
    names = [feature.name for feature in SCHEMA if feature.name in (*model.reads, "user", "brand")]
    return VectorsStudent(SCHEMA.select(names), model, ["brand", "user"], [3, 2], [1, 2])


METHODS: dict[str, Callable[[ClickModel], Student]] = {
    "rok": rok,
    "srp4ctr": srp4ctr,
    "ecdctr": ecdctr,
    "statistics": statistics,
    "rok_neighbours": rok_neighbours,
    "cold_items": cold_items,
    "vectors": vectors,
}
STACKS = [
    "rok srp4ctr",
    "srp4ctr rok",
    "rok ecdctr",
    "ecdctr rok",
    "srp4ctr ecdctr",
    "ecdctr srp4ctr",
    "srp4ctr rok ecdctr",
    "statistics rok",
    "srp4ctr statistics",
    "statistics srp4ctr",
    "rok rok_neighbours",
    "rok_neighbours statistics",
    "cold_items rok",
    "srp4ctr cold_items",
    "rok vectors",
    "vectors statistics",
]
BACKBONES = ["dcn_v2", "deepfm", "din"]


def stacked(backbone: str, stack: str) -> Any:
    """A student with weights so large that each part shows in the logits."""
    plain = SCHEMA if backbone == "din" else SCHEMA.select(["user", "item", "brand", "hour"])
    model: Any = backbones.create(backbone, plain, embedding_dim=4, hidden_units=[8, 6])
    for name in stack.split():
        model = METHODS[name](model)
    model.build()
    for i, weight in enumerate(model.weights):
        if (
            not re.search("norm|noise|scale|spread|knots", weight.path)
            and weight.dtype == "float32"
        ):
            weight.assign(np.random.default_rng(i).normal(scale=0.3, size=weight.shape))
    return model


def inputs(model: Any) -> dict[str, np.ndarray]:
    rows = len(EVENTS["user"])
    found = dict(EVENTS)
    for side in ("user", "item"):
        exist = (RNG.random((rows, SNAPSHOTS)) < 0.7).astype("int64")
        vectors = RNG.normal(size=(rows, SNAPSHOTS, DIM)) * exist[:, :, None]
        found[f"{side}_snapshots"] = vectors.reshape(rows, -1).astype("float32")
        found[f"{side}_snapshots_exist"] = exist
    return {name: found[name] for name in model.reads}


def scores_of_candidates(model: Any, features: dict[str, np.ndarray]) -> np.ndarray:
    """`[B, N]`: the first user with each row's candidate, by `encode_user` and `score`."""
    items = {n: features[n][None] for n in model.reads_of_item if n in features}
    once = {n: v[:1] for n, v in features.items() if n not in items}
    return np.array(model.score(model.encode_user(once), items))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("stack", STACKS)
def test_a_user_that_is_encoded_once_has_the_scores_of_rows(backbone: str, stack: str) -> None:
    model = stacked(backbone, stack)
    features = inputs(model)
    of_item = set(model.reads_of_item)
    rows = {n: v if n in of_item else np.repeat(v[:1], 4, axis=0) for n, v in features.items()}
    np.testing.assert_allclose(scores_of_candidates(model, features)[0], model(rows), atol=1e-5)


@pytest.mark.parametrize("backbone", few_quick(BACKBONES, "dcn_v2"))
@pytest.mark.parametrize("stack", few_quick(STACKS, "rok srp4ctr", "srp4ctr rok ecdctr"))
def test_a_stack_trains_every_part_and_is_kept(backbone: str, stack: str, tmp_path: Path) -> None:
    model = stacked(backbone, stack)
    features = {name: tf.constant(values) for name, values in inputs(model).items()}
    before = [np.array(weight) for weight in model.trainable_variables]
    model.compile(LazyAdam(0.01), run_eagerly=True)
    model.train_on_batch(features, np.array([1.0, 0, 1, 0], "float32"))
    moved = [
        not np.array_equal(w, old) for w, old in zip(model.trainable_variables, before, strict=True)
    ]
    still = [w.path for w, m in zip(model.trainable_variables, moved, strict=True) if not m]
    # A key's bias is the same in all logits of a softmax, so it has no gradient; and no id here is
    # without a vector.
    assert all(re.search("key|bias|without", path) for path in still), still
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(features), model(features), atol=1e-6)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_student_trains_in_lower_precision(
    method: str, precision: str, set_precision: Callable[[str], None]
) -> None:
    exact = stacked("dcn_v2", method)
    set_precision(precision)
    model = stacked("dcn_v2", method)
    features = {name: tf.constant(values) for name, values in inputs(model).items()}
    logits = model(features)
    assert logits.dtype == "float32"
    np.testing.assert_allclose(logits, exact(features), atol=0.1)
    model.compile(LazyAdam(0.01), run_eagerly=True)
    assert np.isfinite(model.train_on_batch(features, np.array([1.0, 0, 1, 0], "float32")))


@pytest.mark.parametrize("stack", [stack for stack in STACKS if "statistics" in stack])
def test_in_training_a_row_reads_the_tables_of_other_users(stack: str) -> None:
    """Whatever is around the statistics, the row's own label is not in what it reads."""
    model = stacked("dcn_v2", stack)
    features = inputs(model)
    inner = model
    while not isinstance(inner, StatisticsStudent):
        inner = inner.backbone
    statistics = inner.statistics
    before = [ops.convert_to_numpy(model(features, training=t)) for t in (True, False)]
    of_all = np.zeros((3, statistics.num_items), "float32")
    of_all[2] = 1.0
    statistics.means.assign_add(of_all.ravel())
    after = [ops.convert_to_numpy(model(features, training=t)) for t in (True, False)]
    np.testing.assert_array_equal(after[0], before[0])
    assert (after[1] != before[1]).any()


@pytest.mark.parametrize("stack", STACKS)
def test_further_fields_leave_those_of_the_backbone_as_they_are(stack: str) -> None:
    model = stacked("dcn_v2", stack)
    for weight in model.weights:
        if "to_field" in weight.path:  # what ROK adds to the vectors of the backbone's own fields
            weight.assign(np.zeros(weight.shape))
        if "is_new" in weight.path:  # whose embedding is made
            weight.assign(np.zeros(weight.shape, bool))
    features = inputs(model)
    plain = model.innermost()
    embeddings = ops.convert_to_numpy(model.embed(features))
    assert model.field_names == plain.field_names
    own = ops.convert_to_numpy(plain.embed(features))
    np.testing.assert_allclose(embeddings[:, : own.shape[1], : own.shape[2]], own, atol=1e-6)


@pytest.mark.parametrize(
    ("backbone", "stack"),
    [
        pytest.param("dcn_v2", "srp4ctr rok", marks=pytest.mark.slow),
        ("din", "rok srp4ctr"),
        pytest.param("din", "vectors statistics", marks=pytest.mark.slow),
    ],
)
def test_a_stack_is_served_by_all_signatures(backbone: str, stack: str, tmp_path: Path) -> None:
    model = stacked(backbone, stack)
    assert_served(model, model, inputs(model) | WHOLE, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("stack", [stack for stack in STACKS if "ecdctr" in stack])
def test_a_stack_with_snapshots_is_served(backbone: str, stack: str, tmp_path: Path) -> None:
    model = stacked(backbone, stack)
    tables = {}
    for side in ("user", "item"):
        ids = SCHEMA[side].num_ids
        exist = (RNG.random((ids, SNAPSHOTS)) < 0.6).astype("float32")
        vectors = RNG.normal(size=(ids, SNAPSHOTS, DIM)) * exist[:, :, None]
        tables[side] = (vectors.reshape(ids, -1).astype("float32"), exist)
    features = dict(WHOLE)
    for side, (vectors, exist) in tables.items():
        features[f"{side}_snapshots"] = vectors[EVENTS[side]]
        features[f"{side}_snapshots_exist"] = exist[EVENTS[side]]
    assert_served(EcdctrServed(model, tables), model, features, tmp_path)


def assert_served(served: Any, student: Any, features: dict[str, np.ndarray], folder: Path) -> None:
    """Every signature of the export has the scores of the student."""
    tokens = {
        f.name: [f"{f.name}{i}" for i in range(3, f.num_ids)]
        for f in SCHEMA.inputs
        if f.kind != "numeric" and getattr(f, "shares", None) is None
    }
    data = fake_dataset(folder / "vocabularies", tokens)
    data.schema = SCHEMA
    path = export(served, data, folder / "m")
    signatures = tf.saved_model.load(str(path)).signatures
    raw = {
        name: raw_values(name, WHOLE[name])
        for name in [f.name for f in served.served_schema.inputs]
    }
    expected = 1 / (1 + np.exp(-np.array(student(features))))
    found = signatures["serving_default"](**{n: tf.constant(v) for n, v in raw.items()})["scores"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    user = {n: tf.constant(v[:1]) for n, v in raw.items() if n not in ITEM}
    items = {n: tf.constant(v[None]) for n, v in raw.items() if n in ITEM}
    ranked = signatures["rank"](**user, **items)["scores"]
    alone = {n: v if n in ITEM else np.repeat(v[:1], 4, axis=0) for n, v in raw.items()}
    of_rows = signatures["serving_default"](**{n: tf.constant(v) for n, v in alone.items()})
    np.testing.assert_allclose(ranked[0], of_rows["scores"], atol=1e-5)
    assert ("score" in signatures) == served.folds
    if served.folds:
        kept = signatures["encode_user"](**user)
        np.testing.assert_allclose(
            signatures["score"](**kept, **items)["scores"], ranked, atol=1e-6
        )


def raw_values(name: str, ids: np.ndarray) -> np.ndarray:
    """What a client sends where a model sees these ids: tokens, "" for none."""
    feature = SCHEMA[name]
    if feature.kind == "numeric":
        return ids
    owner = getattr(feature, "shares", None) or name
    known = {0: "", 1: "?"} | {i: f"{owner}{i}" for i in range(3, feature.num_ids)}
    return np.vectorize(known.__getitem__, otypes=[object])(ids).astype(bytes)
