"""The exported SavedModel scores raw rows as the model scores their ids."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.config import model_server_config_pb2

import tfctr.optimizers
from tests.backbones.test_backbones import SMALL
from tests.serving.batching import BASIC, assert_merged_is_each
from tfctr import backbones
from tfctr.backbones import DIN, LR, DCNv2, DeepFM
from tfctr.data.vocabulary import Vocabulary
from tfctr.frameworks.rok import RIM
from tfctr.schema import MISSING_INT, PAD_ID, Schema
from tfctr.serving import constants, export, write_config
from tfctr.serving.model_directory import note_config, publish, tidy, versions
from tfctr.serving.raw_features import read_tokens
from tfctr.serving.tf_serving_config import Hosted, read_models, write_model
from tfctr.serving.warmup import example, read_warmup

TOKENS: dict[str, list[Any]] = {
    "user": [7, -3, 900000000000, 0],
    "genres": ["war", "drama", "a b", "Âge d'or"],
    "item": ["i1", "i2", "i3", " padded "],
    "tags": [5, 6, 0],
    "device": ["phone", "tv"],
    "rare": [],
}
# Sides interleaved on purpose: `rank` has to put the fields back in this order.
SCHEMA = Schema.model_validate(
    {
        "features": [
            {"name": "item", "kind": "categorical", "side": "item", "vocabulary_size": 7},
            {
                "name": "user",
                "kind": "categorical",
                "side": "user",
                "dtype": "int",
                "vocabulary_size": 7,
            },
            {
                "name": "history",
                "kind": "sequence",
                "side": "user",
                "max_length": 3,
                "shares": "item",
                "vocabulary_size": 7,
            },
            {
                "name": "genres",
                "kind": "multi_valued",
                "side": "item",
                "max_length": 2,
                "vocabulary_size": 7,
            },
            {"name": "title", "kind": "text", "side": "item"},
            {"name": "device", "kind": "categorical", "side": "context", "vocabulary_size": 5},
            {"name": "price", "kind": "numeric", "side": "item", "mean": 3.0, "std": 2.0},
            {
                "name": "tags",
                "kind": "multi_valued",
                "side": "item",
                "dtype": "int",
                "max_length": 2,
                "vocabulary_size": 6,
            },
            {
                "name": "age",
                "kind": "numeric",
                "side": "user",
                "transform": "bucketize",
                "boundaries": [18, 30.5, 60],
            },
            {"name": "hour", "kind": "numeric", "side": "context", "transform": "none"},
            {
                "name": "seen",
                "kind": "sequence",
                "side": "user",
                "dtype": "int",
                "max_length": 2,
                "shares": "tags",
                "vocabulary_size": 6,
            },
            {"name": "rare", "kind": "categorical", "side": "item", "vocabulary_size": 3},
        ]
    }
)
# Known and unknown values, missing ones in every kind, lists too long, too short and empty.
ROWS: dict[str, list[Any]] = {
    "item": ["i1", "i9", None, " padded ", "i2"],
    "user": [7, 5, None, 900000000000, 0],
    "history": [["i1", "i2", "i3", "i9", "i1"], ["i2"], [], None, ["i9", None, "i3"]],
    "genres": [["war", "drama", "a b"], ["?"], [], None, ["Âge d'or", None, "war"]],
    "device": ["phone", "tv", None, "fridge", "phone"],
    "price": [1.0, None, -7.5, 0.0, 3.0],
    "tags": [[5, 0], [6], [], None, [0, 77]],
    "age": [17.0, 18.0, None, 60.0, 1e9],
    "hour": [0.0, 23.0, None, 5.5, -1.0],
    "seen": [[5, 6], [0], [], None, [77, 5]],
    "rare": ["x", None, "", "y", "z"],
}
NUM_ROWS = 5


def fake_dataset(folder: Path, tokens: dict[str, list[Any]] = TOKENS) -> Any:
    """What `export` needs of a `tfctr.data.Dataset`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in tokens.items():
        dtype = pa.string() if not values else None
        (folder / f"{name}.txt").write_bytes(Vocabulary(pa.array(values, dtype)).to_bytes())
    return SimpleNamespace(schema=SCHEMA, vocabulary_file=lambda name: folder / f"{name}.txt")


def spread_weights(model: Any, seed: int = 0) -> Any:
    """Weights so large that each id shows in the score."""
    model.build()
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        values = generator.normal(scale=0.4, size=weight.shape)
        weight.assign(np.abs(values) if weight.name == "moving_variance" else values)
    return model


def model_inputs(rows: dict[str, list[Any]], schema: Schema = SCHEMA) -> dict[str, np.ndarray]:
    """What training sees, by way of the vocabularies that `prepare` uses, in plain loops."""
    inputs = {}
    for feature in schema.inputs:
        values = rows[feature.name]
        if feature.kind == "numeric":
            inputs[feature.name] = np.array(
                [np.nan if v is None else v for v in values], np.float32
            )
            continue
        tokens = TOKENS[SCHEMA[feature.name].vocabulary]
        arrow = pa.string() if feature.dtype == "string" else pa.int64()
        vocabulary = Vocabulary(pa.array(tokens, arrow))
        if not feature.is_list:
            values = [None if v == "" else v for v in values]
            inputs[feature.name] = vocabulary.ids(pa.array(values, arrow))
            continue
        ids = np.full((len(values), feature.max_length), PAD_ID)
        for row, items in enumerate(values):
            kept = [item for item in items or [] if item is not None]
            if feature.kind == "sequence":
                kept = kept[-feature.max_length :]
            kept = kept[: feature.max_length]
            ids[row, : len(kept)] = vocabulary.ids(pa.array(kept, arrow))
        inputs[feature.name] = ids
    return inputs


def model_scores(model: Any, rows: dict[str, list[Any]]) -> np.ndarray:
    logits = model(model_inputs(rows, model.schema), training=False)
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def raw_tensors(rows: dict[str, list[Any]], schema: Schema = SCHEMA) -> dict[str, tf.Tensor]:
    """Tensors of a request, missing values as the signatures want them."""
    tensors = {}
    rows = that_fit(rows)
    for feature in schema.inputs:
        values = rows[feature.name]
        if feature.kind == "numeric":
            values = [np.nan if v is None else v for v in values]
            tensors[feature.name] = tf.constant(values, tf.float32)
            continue
        missing: Any = "" if feature.dtype == "string" else MISSING_INT
        if feature.is_list:
            values = [[missing if v is None else v for v in items] for items in values]
            values = [items + [missing] * (feature.max_length - len(items)) for items in values]
        else:
            values = [missing if v is None else v for v in values]
        tensors[feature.name] = tf.constant(
            values, tf.string if feature.dtype == "string" else tf.int64
        )
    return tensors


def that_fit(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Rows as a client may send them: no list longer than `max_length`; there may be gaps."""
    return {
        name: [_that_fits(SCHEMA[name], items or []) for items in values]
        if SCHEMA[name].is_list
        else values
        for name, values in rows.items()
    }


def _that_fits(feature: Any, items: list[Any]) -> list[Any]:
    if len(items) <= feature.max_length:
        return items
    there = [item for item in items if item is not None]
    if feature.kind == "sequence":
        return there[-feature.max_length :]
    return there[: feature.max_length]


def serialized_examples(rows: dict[str, list[Any]]) -> list[bytes]:
    """Examples that leave missing values out."""
    examples = []
    for row in range(NUM_ROWS):
        features = {}
        for feature in SCHEMA.inputs:
            value = rows[feature.name][row]
            values = value if isinstance(value, list) else [value]
            values = [v.encode() if isinstance(v, str) else v for v in values if v is not None]
            if values:
                features[feature.name] = np.array(
                    values, object if isinstance(values[0], bytes) else None
                )
        examples.append(example(features).SerializeToString())
    return examples


@pytest.fixture(scope="module")
def model() -> Any:
    model = spread_weights(DCNv2(SCHEMA, embedding_dim=4, hidden_units=(8,), num_cross_layers=2))
    model.compile(tfctr.optimizers.LazyAdam(1e-2))
    batch = model_inputs(ROWS)
    model.fit(tf.data.Dataset.from_tensors((batch, np.array([0, 1, 0, 1, 1.0]))), verbose=0)
    return model


@pytest.fixture(scope="module")
def exported(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    data = fake_dataset(folder / "vocabularies")
    version = export(model, data, folder / "tiny")
    shutil.rmtree(folder / "vocabularies")  # the SavedModel carries its own
    return version


@pytest.fixture(scope="module")
def served(exported: Path) -> Any:
    return tf.saved_model.load(str(exported))


def test_serving_default_scores_raw_rows_as_the_model_scores_ids(model: Any, served: Any) -> None:
    expected = model_scores(model, ROWS)
    assert np.ptp(expected) > 0.1
    scores = served.signatures["serving_default"](**raw_tensors(ROWS))["scores"]
    assert scores.dtype == tf.float32
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("name", SCHEMA.inputs, ids=lambda feature: feature.name)
def test_each_feature_alone_moves_the_score_as_it_does_in_the_model(
    model: Any, served: Any, name: Any
) -> None:
    rows = {feature.name: [None] * NUM_ROWS for feature in SCHEMA.inputs}
    rows[name.name] = ROWS[name.name]
    scores = served.signatures["serving_default"](**raw_tensors(rows))["scores"]
    np.testing.assert_allclose(scores, model_scores(model, rows), atol=1e-6)


def test_examples_classify_and_regress_agree_with_the_model(model: Any, served: Any) -> None:
    expected = model_scores(model, ROWS)
    examples = tf.constant(serialized_examples(ROWS))
    scores = served.signatures["examples"](examples=examples)["scores"]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    regressed = served.signatures["regress"](inputs=examples)["outputs"]
    np.testing.assert_allclose(regressed, expected, atol=1e-6)
    classified = served.signatures["classify"](inputs=examples)
    np.testing.assert_allclose(
        classified["scores"], np.stack([1 - expected, expected], 1), atol=1e-6
    )
    assert classified["classes"].numpy().tolist() == [[b"0", b"1"]] * NUM_ROWS


def test_missing_values_anywhere_in_a_list_are_left_out(served: Any) -> None:
    rows = raw_tensors(ROWS)
    signature = served.signatures["serving_default"]
    gaps = rows | {
        "history": tf.constant([["", "i3", ""], ["i1", "", "i2"], ["", "", "i1"]]),
        "tags": tf.constant([[MISSING_INT, 5]] * 3, tf.int64),
    }
    whole = rows | {
        "history": tf.constant([["i3", "", ""], ["i1", "i2", ""], ["i1", "", ""]]),
        "tags": tf.constant([[5, MISSING_INT]] * 3, tf.int64),
    }
    gaps, whole = ({name: values[:3] for name, values in of.items()} for of in (gaps, whole))
    np.testing.assert_array_equal(signature(**gaps)["scores"], signature(**whole)["scores"])


def test_lists_of_another_length_are_refused(served: Any) -> None:
    """A server pads those that it merges with a value of their own."""
    for width in (0, 2, 4):
        rows = raw_tensors(ROWS) | {"history": tf.fill([NUM_ROWS, width], "i1")}
        with pytest.raises((TypeError, tf.errors.InvalidArgumentError)):
            served.signatures["serving_default"](**rows)


def test_an_empty_batch_is_scored(served: Any) -> None:
    none = {name: values[:0] for name, values in raw_tensors(ROWS).items()}
    assert served.signatures["serving_default"](**none)["scores"].shape == (0,)


@pytest.mark.parametrize("number", [np.inf, -np.inf, 3e38, -3e38, 1e19])
def test_numbers_that_no_row_had_give_a_score(model: Any, served: Any, number: float) -> None:
    signature, scores = served.signatures["serving_default"], {}
    for name in ("price", "age", "hour"):
        for value in (number, np.nan):
            rows = raw_tensors(ROWS) | {name: tf.fill([NUM_ROWS], tf.constant(value, tf.float32))}
            scores[value] = signature(**rows)["scores"].numpy()
            assert np.isfinite(scores[value]).all()
        if np.isinf(number):  # is no number
            np.testing.assert_array_equal(scores[number], scores[np.nan])


def test_a_token_may_hold_what_parts_columns(tmp_path: Path) -> None:
    tokens = TOKENS | {"item": ["a\tb", "a", "\x01", "b\t4"]}
    schema = SCHEMA.select(["item", "user"])
    model = spread_weights(LR(schema))
    path = export(model, fake_dataset(tmp_path / "v", tokens), tmp_path / "m")
    assert read_tokens(path / "assets" / "item.txt") == [b"a\tb", b"a", b"\x01", b"b\t4"]
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    items = [*tokens["item"], "", "?", "b"]
    found = served(item=tf.constant(items), user=tf.fill([7], tf.constant(7, tf.int64)))["scores"]
    ids = np.array([3, 4, 5, 6, 0, 1, 1])
    logits = model({"item": ids, "user": np.full(7, 3)}, training=False)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-np.asarray(logits))), atol=1e-6)


def rank_inputs(schema: Schema, users: int, candidates: int) -> tuple[dict[str, Any], Any]:
    """Inputs of `rank`, and the same as `users * candidates` rows."""
    rows: dict[str, list[Any]] = {feature.name: [] for feature in schema.inputs}
    for user in range(users):
        for candidate in range(candidates):
            for feature in schema.inputs:
                pick = (user * 3 + candidate) if feature.side == "item" else user
                rows[feature.name].append(ROWS[feature.name][pick % NUM_ROWS])
    tensors = raw_tensors(rows, schema)
    inputs = {}
    for feature in schema.inputs:
        values = tensors[feature.name]
        values = tf.reshape(values, (users, candidates, *values.shape[1:]))
        inputs[feature.name] = values if feature.side == "item" else values[:, 0]
    return inputs, rows


@pytest.mark.parametrize(("users", "candidates"), [(1, 4), (3, 1), (2, 5), (1, 0), (0, 2)])
def test_rank_equals_scoring_every_pair_as_a_row(
    model: Any, served: Any, users: int, candidates: int
) -> None:
    inputs, rows = rank_inputs(SCHEMA, max(users, 1), max(candidates, 1))
    inputs = {
        name: values[:users, :candidates] if SCHEMA[name].side == "item" else values[:users]
        for name, values in inputs.items()
    }
    scores = served.signatures["rank"](**inputs)["scores"]
    assert scores.shape == (users, candidates)
    if users * candidates:
        expected = model_scores(model, rows).reshape(users, candidates)
        np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("backbone", "fields"),
    [
        (DeepFM, ["item", "user", "price"]),
        (LR, ["genres", "rare"]),
        (DCNv2, ["history", "item", "age", "tags"]),
        (DIN, ["price", "history", "item", "user"]),
    ],
)
def test_rank_of_other_backbones_and_selections(
    backbone: Any, fields: list[str], tmp_path: Path
) -> None:
    schema = SCHEMA.select(fields)  # `history` may lose the owner of its vocabulary
    model = spread_weights(backbone(schema), seed=1)
    path = export(model, fake_dataset(tmp_path / "v"), tmp_path / "m")
    inputs, rows = rank_inputs(schema, 2, 3)
    scores = tf.saved_model.load(str(path)).signatures["rank"](**inputs)["scores"]
    np.testing.assert_allclose(scores, model_scores(model, rows).reshape(2, 3), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALL.keys() - {"rim"}))
def test_every_backbone_exports_all_signatures(name: str, tmp_path: Path) -> None:
    schema = SCHEMA
    if name in ("bst", "dien", "din"):  # `seen` is of other events than `history`
        schema = SCHEMA.select([f.name for f in SCHEMA if f.name != "seen"])
    model = spread_weights(backbones.create(name, schema, **SMALL[name]), seed=1)
    served = tf.saved_model.load(str(export(model, fake_dataset(tmp_path / "v"), tmp_path / "m")))
    inputs, rows = rank_inputs(schema, 2, 3)
    scores = served.signatures["rank"](**inputs)["scores"]
    np.testing.assert_allclose(scores, model_scores(model, rows).reshape(2, 3), atol=1e-6)
    expected, examples = model_scores(model, ROWS), tf.constant(serialized_examples(ROWS))
    scores = served.signatures["examples"](examples=examples)["scores"]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert set(served.signatures) == {"serving_default", "examples", "classify", "regress", "rank"}


def test_merged_requests_have_the_scores_of_each(exported: Path) -> None:
    assert_merged_is_each(exported, BASIC)


def test_rank_refuses_items_that_differ_in_candidates(served: Any) -> None:
    four, _ = rank_inputs(SCHEMA, 1, 4)
    two, _ = rank_inputs(SCHEMA, 2, 2)
    refusal = "rows or candidates differ between item, genres"
    with pytest.raises(tf.errors.InvalidArgumentError, match=refusal):
        served.signatures["rank"](**four | {"price": two["price"]})


def test_a_model_that_reads_similar_rows_is_refused(tmp_path: Path) -> None:

    message = r"rim(_\d+)? reads what stands beside training rows, which a server does not have"
    with pytest.raises(ValueError, match=message):
        export(RIM(SCHEMA), fake_dataset(tmp_path / "v"), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_model_without_item_features_has_no_rank(tmp_path: Path) -> None:
    model = spread_weights(LR(SCHEMA.select(["user", "device"])))
    path = export(model, fake_dataset(tmp_path / "v"), tmp_path / "m")
    assert "rank" not in tf.saved_model.load(str(path)).signatures


def test_the_graph_holds_no_python_function_and_no_optimizer_state(
    model: Any, exported: Path
) -> None:
    saved = saved_model_pb2.SavedModel.FromString((exported / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    ops = {node.op for node in graph.node}
    ops |= {node.op for function in graph.library.function for node in function.node_def}
    assert "LookupTableFindV2" in ops
    assert not {op for op in ops if "PyFunc" in op or op == "EagerPyFunc"}
    known = tf.raw_ops.__dict__.keys() | {
        function.signature.name for function in graph.library.function
    }
    assert ops <= known
    variables = tf.train.list_variables(str(exported / "variables" / "variables"))
    shapes = [shape for name, shape in variables if name != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert shapes == [list(weight.shape) for weight in model.weights]


def test_signatures_read_no_small_weight_from_a_variable(
    model: Any, served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any(signature.variables for signature in served.signatures.values())
    monkeypatch.setattr(constants, "LARGEST", 32)
    some = tf.saved_model.load(str(export(model, fake_dataset(tmp_path / "v"), tmp_path / "m")))
    larger = sorted(tuple(w.shape) for w in model.weights if np.prod(w.shape) > 32)
    assert 0 < len(larger) < len(model.weights)
    for name, signature in some.signatures.items():
        assert sorted(tuple(variable.shape) for variable in signature.variables) == larger, name
    scores = [
        of.signatures["serving_default"](**raw_tensors(ROWS))["scores"] for of in (served, some)
    ]
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_saved_model_cli_lists_the_signatures(exported: Path) -> None:
    cli = Path(sys.executable).with_name("saved_model_cli")
    shown = subprocess.run(
        [cli, "show", "--dir", exported, "--all"], capture_output=True, text=True, check=True
    ).stdout
    for name in ("serving_default", "examples", "classify", "regress", "rank"):
        assert f"signature_def['{name}']" in shown
    assert (
        "inputs['history'] tensor_info:\n        dtype: DT_STRING\n        shape: (-1, 3)" in shown
    )
    assert "inputs['seen'] tensor_info:\n        dtype: DT_INT64\n        shape: (-1, 2)" in shown
    assert "title" not in shown


def test_versions_count_up_and_a_failed_export_leaves_nothing(model: Any, tmp_path: Path) -> None:
    data = fake_dataset(tmp_path / "v")
    (tmp_path / "m" / "7").mkdir(parents=True)
    (tmp_path / "m" / "notes").mkdir()
    assert export(model, data, tmp_path / "m").name == "8"
    assert export(model, data, str(tmp_path / "m")).name == "9"

    def fail(folder: Path) -> None:
        assert list(versions(tmp_path / "m")) == [7, 8, 9]
        assert not folder.name.isdigit()
        (folder / "half").write_text("")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        publish(tmp_path / "m", fail)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["7", "8", "9", "notes"]


def test_two_exports_at_once_get_two_versions(tmp_path: Path) -> None:
    def outer(folder: Path) -> None:
        (folder / "x").write_text("outer")
        publish(tmp_path, lambda inner: (inner / "x").write_text("inner"))

    assert publish(tmp_path, outer) == tmp_path / "2"
    assert (tmp_path / "1" / "x").read_text() == "inner"


def test_the_latest_versions_are_kept(tmp_path: Path) -> None:
    for number in ("9", "10", "11", "2"):
        (tmp_path / number).mkdir()
        (tmp_path / number / "saved_model.pb").touch()
    (tmp_path / ".tmp-killed").mkdir()
    (tmp_path / "notes").mkdir()
    tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "11", "2", "9", "notes"]
    tidy(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "11", "notes"]
    tidy(tmp_path, keep=5)
    assert [*versions(tmp_path)] == [10, 11]


def test_a_version_that_a_config_names_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tmp_path / "models" / "m"
    for number in range(1, 7):
        (model / str(number)).mkdir(parents=True)
    beside, elsewhere = model.parent / "models.config", tmp_path / "live" / "models.config"
    write_model(beside, "m", Hosted("/models/m", {"stable": 1}, (1, 2)))
    write_model(beside, "other", Hosted("/models/other", {"stable": 3}, (3,)))
    write_model(elsewhere, "renamed", Hosted("gs://bucket/m", {"stable": 4}, (4,)))
    for config in (beside, elsewhere, elsewhere):
        note_config(model, config)
    tidy(model, keep=1)
    assert [*versions(model)] == [1, 2, 4, 6]
    elsewhere.unlink()
    tidy(model, keep=1)
    assert [*versions(model)] == [1, 2, 6]
    beside.write_text("model_config_list { nonsense")
    tidy(model, keep=1)  # nobody knows what is served
    assert [*versions(model)] == [1, 2, 6]
    assert "no version is deleted" in caplog.text


def test_vocabularies_of_another_dataset_are_refused(model: Any, tmp_path: Path) -> None:
    data = fake_dataset(tmp_path, TOKENS | {"device": ["phone"]})
    with pytest.raises(ValueError, match=r"device.txt: found 1 tokens, but feature 'device'.*2"):
        export(model, data, tmp_path / "m")
    data = fake_dataset(tmp_path, TOKENS | {"device": ["ph\rone", "tv"]})
    with pytest.raises(ValueError, match=r"device.txt, line 1: .*carriage return"):
        export(model, data, tmp_path / "m")


def test_the_lazy_optimizer_pays_its_debt_before_the_weights_are_written(tmp_path: Path) -> None:
    model = spread_weights(LR(SCHEMA.select(["item"])))
    model.compile(tfctr.optimizers.LazyAdam(1e-2))
    called = []
    model._catch_up = lambda: called.append(True)
    export(model, fake_dataset(tmp_path / "v"), tmp_path / "m")
    assert called


def test_the_schema_lies_beside_the_model(exported: Path) -> None:
    text = (exported / "assets.extra" / "schema.json").read_text()
    assert Schema.model_validate(json.loads(text)) == SCHEMA


def test_warm_up_requests_run_on_every_signature(exported: Path, served: Any) -> None:
    sizes: dict[str, set[int]] = {}
    for log in read_warmup(exported):
        kind = log.WhichOneof("log_type")
        request = getattr(log, kind).request
        signature = request.model_spec.signature_name
        assert request.model_spec.name == "tiny"
        if kind == "predict_log":
            inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        else:
            examples = [e.SerializeToString() for e in request.input.example_list.examples]
            inputs = {"inputs": np.array(examples, object)}
        outputs = served.signatures[signature](**{n: tf.constant(v) for n, v in inputs.items()})
        scores = outputs["outputs" if signature == "regress" else "scores"]
        assert np.all(np.isfinite(scores))
        sizes.setdefault(signature, set()).add(
            scores.shape[1] if signature == "rank" else scores.shape[0]
        )
    names = ("serving_default", "examples", "classify", "regress", "rank")
    assert sizes == {name: {1, 100} for name in names}


def test_a_model_in_half_precision_still_answers_float32(tmp_path: Path) -> None:
    schema = SCHEMA.select(["item", "user"])
    model = spread_weights(LR(schema, dtype=keras.DTypePolicy("mixed_bfloat16")))
    path = export(model, fake_dataset(tmp_path / "v"), tmp_path / "m")
    inputs, _ = rank_inputs(schema, 1, 2)
    assert tf.saved_model.load(str(path)).signatures["rank"](**inputs)["scores"].dtype == tf.float32


def test_config_files_parse_as_tf_serving_reads_them(tmp_path: Path) -> None:
    directories = {"tiny": "/models/tiny", "other": Path("/models/other")}
    models, batching, monitoring = write_config(
        directories, tmp_path / "config", max_batch_size=64, threads=2
    )
    config = text_format.Parse(models.read_text(), model_server_config_pb2.ModelServerConfig())
    assert [(c.name, c.base_path, c.model_platform) for c in config.model_config_list.config] == [
        ("tiny", "/models/tiny", "tensorflow"),
        ("other", "/models/other", "tensorflow"),
    ]
    values = text_format.Parse(batching.read_text(), _batching_parameters())
    assert values.max_batch_size.value == 64
    assert values.num_batch_threads.value == 2
    assert values.batch_timeout_micros.value == 1000
    assert values.pad_variable_length_inputs is True
    assert 'path: "/monitoring/prometheus/metrics"' in monitoring.read_text()
    with pytest.raises(ValueError, match="absolute"):
        write_config({"tiny": "saved_models/tiny"}, tmp_path)


def test_one_model_of_the_config_is_changed_and_the_rest_stays(tmp_path: Path) -> None:
    path = write_config({"tiny": "/models/tiny", "other": "/models/other"}, tmp_path)[0]
    path.write_text(
        path.read_text().replace('"/models/other"', '"/models/other" logging_config {}')
    )
    two = Hosted("/models/tiny", {"stable": 3, "canary": 4}, (2, 3, 4))
    write_model(path, "tiny", two)
    config = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())
    tiny, other = config.model_config_list.config
    assert list(tiny.model_version_policy.specific.versions) == [2, 3, 4]
    assert dict(tiny.version_labels) == {"stable": 3, "canary": 4}
    assert not other.HasField("model_version_policy")
    assert other.HasField("logging_config")  # not ours, and kept
    assert read_models(path) == {"tiny": two, "other": Hosted("/models/other")}
    write_model(path, "tiny", Hosted("gs://bucket/tiny"))
    assert read_models(path)["tiny"] == Hosted("gs://bucket/tiny")
    write_model(path, "tiny", None)
    assert [*read_models(path)] == ["other"]
    assert read_models(tmp_path / "none.config") == {}
    path.write_text("model_config_list { nonsense")
    with pytest.raises(ValueError, match=r"models\.config: not a ModelServerConfig"):
        read_models(path)


def _batching_parameters() -> Any:
    """`tensorflow.serving.BatchingParameters`, of which no Python module is published."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    message = file.message_type.add(name="BatchingParameters")
    for number, name in enumerate(
        ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"), 1
    ):
        message.field.add(
            name=name,
            number=number,
            type=field.TYPE_MESSAGE,
            type_name=".google.protobuf.Int64Value",
            label=field.LABEL_OPTIONAL,
        )
    message.field.add(
        name="pad_variable_length_inputs",
        number=7,
        type=field.TYPE_BOOL,
        label=field.LABEL_OPTIONAL,
    )
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("BatchingParameters"))()
