"""The exported SavedModel scores raw rows as the model scores their ids."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import tfctr.optimizers
from beam_pipelines.score import raw_tensor
from beam_pipelines.transforms.shards import Encoder
from tests.backbones.test_backbones import SMALL
from tests.serving.batching import BASIC, assert_merged_is_each
from tests.serving.raw_rows import (
    NUM_ROWS,
    ROWS,
    SCHEMA,
    TOKENS,
    fake_dataset,
    model_inputs,
    model_scores,
    rank_inputs,
    raw_tensors,
    serialized_examples,
    spread_weights,
)
from tfctr import backbones
from tfctr.backbones import DIN, LR, DCNv2, DeepFM
from tfctr.data.conform import conform
from tfctr.frameworks.rok import RIM
from tfctr.schema import MISSING_INT, Schema
from tfctr.serving import export
from tfctr.serving.exporter import constants
from tfctr.serving.exporter.raw_features import read_tokens
from tfctr.serving.model_directory import publish, versions
from tfctr.serving.warmup import read_warmup


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


def test_a_number_is_the_same_input_from_the_log_to_the_graph(model: Any, served: Any) -> None:
    """As `prepare` reads the text and writes it, as a batch of scores sends it, in a request."""
    texts = ["1e400", "inf", "-inf", "nan", "3e38", "-3e38", "1e19", "1e15", "-0.0", ""]
    numbers = [f for f in SCHEMA if f.kind == "numeric"]
    column = pa.array(texts).cast(pa.binary())
    values, bad = conform(numbers[0], column)
    assert bad is None or not bad.any()
    nothing = {"row_id": pa.array(range(10)), "time": pa.array(range(10))}
    table = pa.table(
        {**nothing, "label": pa.array([0.0] * 10), **{f.name: values for f in numbers}}
    )
    prepared = Encoder(SCHEMA.select([f.name for f in numbers]), None, "").columns(table)
    sent = {f.name: raw_tensor(f, values) for f in numbers}
    asked = np.array([float(text or "nan") for text in texts], np.float32)
    others = {name: column * 2 for name, column in ROWS.items()}
    inputs, raw = model_inputs(others), raw_tensors(others)
    signature = served.signatures["serving_default"]
    logits = model(inputs | {f.name: prepared[f.name] for f in numbers}, training=False)
    expected = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    assert np.isfinite(expected).all()
    for given in (sent, dict.fromkeys(sent, asked)):
        found = signature(**raw | {name: tf.constant(v) for name, v in given.items()})["scores"]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_request_may_write_a_token_as_any_format_does(tmp_path: Path) -> None:
    tokens = TOKENS | {"item": ["4", "1", "3.5", "0"]}
    schema = SCHEMA.select(["item", "user"])
    model = spread_weights(LR(schema))
    path = export(model, fake_dataset(tmp_path / "v", tokens), tmp_path / "m")
    assert read_tokens(path / "assets" / "item.txt") == [b"4", b"1", b"3.5", b"0"]
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    items = ["4", "4.0", "1", "True", "true", "1.0", "3.5", "0", "False", "-0.0", "04", "4.00"]
    user = tf.fill([len(items)], tf.constant(7, tf.int64))
    found = served(item=tf.constant(items), user=user)["scores"]
    ids = np.array([3, 3, 4, 4, 4, 4, 5, 6, 6, 6, 1, 1])
    logits = model({"item": ids, "user": np.full(len(ids), 3)}, training=False)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-np.asarray(logits))), atol=1e-6)


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
        pytest.param(DeepFM, ["item", "user", "price"], marks=pytest.mark.slow),
        (LR, ["genres", "rare"]),
        pytest.param(DCNv2, ["history", "item", "age", "tags"], marks=pytest.mark.slow),
        pytest.param(DIN, ["price", "history", "item", "user"], marks=pytest.mark.slow),
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

    message = r"rim(_\d+)? reads side outputs, which a server does not have"
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
