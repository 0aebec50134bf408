"""CTRL: its similarity, the loss in tiles, gradients in parts, the student that starts there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from rich.console import Console

from tests.conftest import few_quick, world_config
from tests.language.encoders import bert_tensors, write_bert
from tests.serving.batching import BASIC, assert_merged_is_each
from tfctr.config import ConfigError, load_run
from tfctr.data import Dataset
from tfctr.data.manifest import DataError
from tfctr.frameworks.ctrl import Alignment
from tfctr.frameworks.ctrl.config import Ctrl
from tfctr.frameworks.ctrl.similarity import contrastive_loss, max_similarity, tiled_gradients
from tfctr.frameworks.ctrl.stages import create_alignment
from tfctr.language.text import joined_keys
from tfctr.language.text_tower import distinct_texts, encode_in_parts, gradients_in_parts
from tfctr.stages import Run, build, prepare

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(5, 3, 4)).astype("float32")  # [B, M, d]
TEXTS = RNG.normal(size=(5, 3, 4)).astype("float32")


def _similarity(a: np.ndarray, b: np.ndarray) -> float:
    return float(sum(max(float(x @ y) for y in b) for x in a))


def test_max_similarity_is_a_double_loop() -> None:
    expected = [[_similarity(a, b) for b in TEXTS] for a in ROWS[:2]]
    np.testing.assert_allclose(max_similarity(ROWS[:2], TEXTS), expected, rtol=1e-5)
    back = [[_similarity(b, a) for a in ROWS[:2]] for b in TEXTS]
    assert not np.allclose(np.transpose(back), expected)  # it is not symmetric


def test_one_subspace_is_the_inner_product() -> None:
    found = max_similarity(ROWS[:, :1], TEXTS[:, :1])
    np.testing.assert_allclose(found, ROWS[:, 0] @ TEXTS[:, 0].T, rtol=1e-5)


def _loss(of: np.ndarray, to: np.ndarray, keys: np.ndarray, temperature: float) -> float:
    losses = []
    for i in range(len(of)):
        scores = [_similarity(of[i], b) / temperature for b in to]
        others = [s for j, s in enumerate(scores) if j == i or keys[j] != keys[i]]
        losses.append(np.log(np.sum(np.exp(others))) - scores[i])
    return float(np.mean(losses))


@pytest.mark.parametrize("tile", [1, 2, 5, 64])
def test_the_loss_and_its_gradients_in_tiles(tile: int) -> None:
    keys = np.array([7, 8, 7, 9, 8])
    loss, of_rows, of_texts = tiled_gradients(
        tf.constant(ROWS), tf.constant(TEXTS), tf.constant(keys), 0.7, tile
    )
    expected = (_loss(ROWS, TEXTS, keys, 0.7) + _loss(TEXTS, ROWS, keys, 0.7)) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    for found, place in ((of_rows, (1, 2, 3)), (of_texts, (4, 0, 1))):
        moved = {"rows": ROWS.copy(), "texts": TEXTS.copy()}
        name, step = ("rows" if found is of_rows else "texts"), 1e-2
        sides = []
        for sign in (1, -1):
            moved[name] = {"rows": ROWS, "texts": TEXTS}[name].copy()
            moved[name][place] += sign * step
            a, b = moved["rows"], moved["texts"]
            sides.append((_loss(a, b, keys, 0.7) + _loss(b, a, keys, 0.7)) / 2)
        slope = (sides[0] - sides[1]) / (2 * step)
        assert float(found[place]) == pytest.approx(slope, abs=2e-4)


def test_rows_with_one_text_are_no_negatives() -> None:
    own = tf.range(5)
    same = np.ones((5, 5), bool)
    losses = contrastive_loss(ROWS, TEXTS, own, same, 0.7)
    np.testing.assert_allclose(losses, np.zeros(5), atol=1e-5)


def test_a_text_is_encoded_once() -> None:
    tokens = np.array([[2, 8, 9, 3, 0], [2, 7, 3, 0, 0], [2, 8, 9, 3, 0], [2, 7, 3, 0, 0]])
    found, places = distinct_texts(tf.constant(tokens), tf.constant([5, -1, 5, -1], tf.int64), 0)
    np.testing.assert_array_equal(found, tokens[1::-1])  # the shortest first
    np.testing.assert_array_equal(tf.gather(found, places), tokens)


@pytest.mark.parametrize("part", [1, 2, 3, 7])
def test_gradients_in_parts_are_those_of_all_at_once(part: int) -> None:
    table = tf.Variable(RNG.normal(size=(20, 3)).astype("float32"))
    unused = tf.Variable([1.0])
    seen = []

    def encode(tokens: Any) -> Any:
        seen.append(tokens.shape)
        real = tf.cast(tokens != 0, tf.float32)[:, :, None]
        return tf.tanh(tf.reduce_sum(tf.gather(table, tokens) * real, axis=1))

    tokens = tf.constant([[4, 0, 0], [5, 6, 0], [7, 4, 0], [9, 8, 4], [4, 4, 4]])
    upstream = tf.constant(RNG.normal(size=(5, 3)).astype("float32"))
    with tf.GradientTape() as tape:
        vectors = encode(tokens)
    expected = tf.convert_to_tensor(tape.gradient(vectors, table, upstream))
    np.testing.assert_allclose(encode_in_parts(encode, tokens, part), vectors, rtol=1e-5)
    found = gradients_in_parts(encode, [table, unused], tokens, upstream, part)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    np.testing.assert_allclose(found[1], [0.0])


def test_parts_and_tiles_are_worked_on_one_by_one() -> None:
    """Several at a time, as TensorFlow would, take the memory of several."""

    def encode(tokens: Any) -> Any:
        return tf.cast(tokens, tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.int32)])
    def in_parts(tokens: Any) -> Any:
        vectors = encode_in_parts(encode, tokens, 2)
        vectors.set_shape((None, 3))
        rows, texts = vectors[:, None], vectors[:, None] + 1
        tiles = tiled_gradients(rows, texts, tokens[:, 0], 1.0, 2)
        return tiles, gradients_in_parts(encode, [], tokens, vectors, 2)

    graph = in_parts.get_concrete_function().graph.as_graph_def()
    loops = [node for node in graph.node if node.op in ("While", "StatelessWhile")]
    assert [node.attr["parallel_iterations"].i for node in loops] == [1, 1, 1]


# The whole way, on a small world.

TEMPLATES = {
    "user": {"template": "A user, age is {age_group}.", "max_tokens": 12},
    "item": {"template": "Title is {title}, genre is {category}.", "max_tokens": 40},
}


def write_configs(folder: Path, framework: dict[str, Any], **changes: Any) -> Path:
    """The path of a run's config, its data, text and encoder beside it."""
    write_bert(folder / "encoder", bert_tensors())
    source = {"format": "world", "users": 60, "items": 50, "events": 3_000, "seed": 3}
    contents = {
        "data": world_config(source=source).model_dump(mode="json", exclude_none=True),
        "text": {
            "name": "texts",
            "data": "data.yaml",
            "encoder": {"folder": "encoder"},
            "texts": changes.pop("texts", TEMPLATES),
        },
        "run": {
            "name": "student",
            "frameworks": [framework | {"text": "text.yaml"}],
            "model": {"backbone": "deepfm", "embedding_dim": 4, "hidden_units": [16]},
            "training": {"batch_size": 256, "epochs": 2},
            "export": {"directory": str(folder / "saved_models")},
        }
        | changes,
    }
    for name, content in contents.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder / "run.yaml"


PRETRAINING = {
    "batch_size": 128,
    "epochs": 2,
    "in_memory": True,
    "optimizer": {"name": "lazy_adam", "learning_rate": 0.01, "encoder_rate": 0.1},
}


def _run(folder: Path, **framework: Any) -> Run:
    content = {"name": "ctrl", "pretraining": PRETRAINING, "rows_at_a_time": 32} | framework
    config = load_run(write_configs(folder, content))
    run = Run(config, folder / "work", Console(quiet=True))
    run.prepare()
    return run


def _ctrl(run: Run) -> Ctrl:
    config = run.config.method("ctrl")
    assert isinstance(config, Ctrl)
    return config


def _alignment(run: Run) -> tuple[Alignment, Any]:
    stages = run.before["ctrl"]
    data = Dataset.open(run.data_folder, [stages["texts"].path])
    keras.utils.set_random_seed(1)
    backbone = run.config.model.create(data.schema)
    model = create_alignment(_ctrl(run), backbone, data, stages)
    model.build()
    return model, data


ONE_STAGE = {"clicks": 0.5, "pretraining": None}


@pytest.mark.parametrize("framework", few_quick([{}, ONE_STAGE], {}))
def test_a_step_is_that_of_the_whole_batch_at_once(
    tmp_path: Path, framework: dict[str, Any]
) -> None:
    run = _run(tmp_path, **framework)
    model, data = _alignment(run)
    model.compile(keras.optimizers.SGD(0.1))
    features, labels = next(iter(data.valid(100, features=model.reads)))
    before = [np.array(v) for v in model.trainable_variables]
    keys = [joined_keys(np.asarray(features[f"{text}_text_key"])) for text in TEMPLATES]
    same = np.all([k[:, None] == k[None] for k in keys], axis=0)
    with tf.GradientTape() as tape:
        rows, texts = Alignment.call(model, features, training=True)
        losses = [
            contrastive_loss(a, b, tf.range(100), same, model.temperature)
            for a, b in ((rows, texts), (texts, rows))
        ]
        loss = sum(tf.reduce_mean(of_rows) for of_rows in losses) / 2
        if framework:
            logits = model(features, training=True)
            cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
            loss += 0.5 * tf.reduce_mean(cross_entropy)
    variables = [v.value for v in model.trainable_variables]
    gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
    logs = model.train_step((features, labels))
    assert float(logs["loss"]) == pytest.approx(float(loss), rel=1e-4)
    for old, variable, gradient in zip(before, model.trainable_variables, gradients, strict=True):
        expected = old - 0.1 * np.asarray(tf.convert_to_tensor(gradient))
        # A cosine's gradient is as large as the rows are small at their start.
        np.testing.assert_allclose(variable, expected, rtol=1e-3, atol=2e-5, err_msg=variable.path)
    assert any(np.abs(gradient).max() > 1e-4 for gradient in gradients[-30:])


def test_a_step_in_lower_precision_is_nearly_the_same(
    tmp_path: Path, set_precision: Callable[[str], None]
) -> None:
    run = _run(tmp_path)
    exact, data = _alignment(run)
    features, labels = next(iter(data.valid(100, features=exact.reads)))
    set_precision("mixed_bfloat16")
    lower, _ = _alignment(run)
    lower.set_weights(exact.get_weights())
    before = exact.get_weights()
    moved = []
    for model in (exact, lower):
        model.compile(keras.optimizers.SGD(0.1))
        assert float(model.train_step((features, labels))["loss"]) > 0
        steps = [new - old for new, old in zip(model.get_weights(), before, strict=True)]
        moved.append(np.concatenate([step.ravel() for step in steps]))
    assert np.corrcoef(*moved)[0, 1] > 0.99


def test_an_encoder_that_is_not_trained_is_run_once(tmp_path: Path) -> None:
    run = _run(tmp_path, trained_layers=0)
    model, data = _alignment(run)
    assert not any("tokens" in name for name in model.reads)
    trained, _ = _alignment(_run_again(run, trained_layers=None))
    trained.set_weights(model.get_weights())
    features, _ = next(iter(data.valid(200, features=trained.reads)))
    for found, expected in zip(model.matched(features), trained.matched(features), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not model.encoder_variables
    assert len(trained.encoder_variables) > 30


def _run_again(run: Run, **framework: Any) -> Run:
    changed = _ctrl(run).model_copy(update=framework)
    return Run(run.config.model_copy(update={"frameworks": (changed,)}), run.work, run.console)


@pytest.mark.slow
def test_the_student_starts_where_the_alignment_ended(tmp_path: Path) -> None:
    run = _run(tmp_path)
    aligned = run.before["ctrl"]["aligned"]
    path = build(aligned, run.console)
    assert path == aligned.folder / "pretrained.keras"
    pretrained = keras.models.load_model(path)
    student = run.trained.create_student(run.open_data(), run.console)
    assert type(student).__name__ == "DeepFM"
    head = {id(weight) for weight in student.head.weights}
    for own, theirs in zip(student.weights, pretrained.weights, strict=True):
        if id(own) not in head:
            np.testing.assert_array_equal(own, theirs)
    assert not np.allclose(student.head.kernel, pretrained.head.kernel)


@pytest.mark.slow
def test_an_aligned_student_is_served_as_its_backbone(tmp_path: Path) -> None:
    run = _run(tmp_path)
    path = build(run.before["ctrl"]["aligned"], run.console)
    when = path.stat().st_mtime_ns
    run.train()
    assert path.stat().st_mtime_ns == when  # a stage that is done is skipped
    metrics = run.evaluate()
    assert metrics.is_file()
    version = run.export()
    assert_merged_is_each(version, BASIC)
    graph = tf.saved_model.load(str(version))
    plain = Run(
        run.config.model_copy(update={"frameworks": (), "name": "plain"}), run.work, run.console
    )
    plain.train()
    backbone = tf.saved_model.load(str(plain.export()))
    for name, signature in backbone.signatures.items():
        own = graph.signatures[name]
        assert own.structured_input_signature == signature.structured_input_signature
        kinds = [sorted(op.type for op in f.graph.get_operations()) for f in (own, signature)]
        assert kinds[0] == kinds[1]  # the same graph


@pytest.mark.slow
def test_alignment_and_clicks_in_one_stage(tmp_path: Path) -> None:
    run = _run(tmp_path, **ONE_STAGE)
    model = keras.models.load_model(run.train())
    assert type(model).__name__ == "DeepFM"
    assert not list(run.work.glob("texts-ctrl-*"))  # nothing is trained before
    plain = Run(
        run.config.model_copy(update={"frameworks": (), "name": "plain"}), run.work, run.console
    )
    other = keras.models.load_model(plain.train())
    assert [w.shape for w in model.weights] == [w.shape for w in other.weights]
    assert not np.allclose(model.weights[0], other.weights[0])  # the texts had a say
    # What is kept is what was measured.
    found = json.loads(run.evaluate().read_text())["valid"]["auc"]
    trained = json.loads((run.folder / "train.json").read_text())
    assert found == pytest.approx(trained["best_valid_auc"])
    assert run.export().is_dir()


@pytest.mark.parametrize("framework", [{"clicks": 0.5}, {"pretraining": None}])
def test_one_stage_or_two(tmp_path: Path, framework: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"found clicks: .* and pretraining: "):
        load_run(write_configs(tmp_path, {"name": "ctrl"} | framework))


@pytest.mark.slow
def test_a_killed_alignment_is_gone_on_with(tmp_path: Path) -> None:
    run = _run(tmp_path)
    first = keras.models.load_model(build(run.before["ctrl"]["aligned"], run.console))
    again = Run(run.config, run.work, run.console).before["ctrl"]["aligned"]
    again.manifest_path.unlink()
    second = keras.models.load_model(build(again, run.console))
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_text_longer_than_the_encoder_reads(tmp_path: Path) -> None:
    write = {"item": TEMPLATES["item"] | {"max_tokens": 65}}
    config = load_run(write_configs(tmp_path, {"name": "ctrl"}, texts=write))
    run = Run(config, tmp_path / "work", Console(quiet=True))
    with pytest.raises(ConfigError, match="found 65; the encoder reads at most 64 tokens"):
        run.train()


def test_texts_that_are_not_there(tmp_path: Path) -> None:
    config = load_run(write_configs(tmp_path, {"name": "ctrl"} | ONE_STAGE))
    run = Run(config, tmp_path / "work", Console(quiet=True))
    prepare(config.data, run.data_folder, console=Console(quiet=True))
    with pytest.raises(DataError, match="texts: not there as configured; run `tfctr prepare`"):
        run.open_data()


def test_clicks_that_are_learned_while_it_aligns_all_weigh_the_same(tmp_path: Path) -> None:
    for key, value in (("positive_weight", 2.0), ("keep_negatives", 0.5)):
        training = {"batch_size": 256, key: value}
        load_run(write_configs(tmp_path, {"name": "ctrl"}, training=training))
        path = write_configs(tmp_path, {"name": "ctrl"} | ONE_STAGE, training=training)
        with pytest.raises(ConfigError) as error:
            load_run(path)
        assert str(error.value) == (
            f"{path}: training.{key}: found {value}; training the alignment and the clicks in one "
            "stage (frameworks.ctrl.clicks) allows only 1"
        )


@pytest.mark.parametrize("is_file", [True, False])
def test_a_mistake_in_a_text_is_named_by_its_own_key(tmp_path: Path, is_file: bool) -> None:
    path = write_configs(tmp_path, {"name": "ctrl"})
    text = yaml.safe_load((tmp_path / "text.yaml").read_text()) | {"separator": ""}
    (tmp_path / "text.yaml").write_text(yaml.safe_dump(text))
    where = f"{path.parent / 'text.yaml'}: separator"
    if not is_file:
        content = yaml.safe_load(path.read_text())
        content["frameworks"][0]["text"] = text
        path.write_text(yaml.safe_dump(content))
        where = f"{path}: frameworks[0].text.separator"
    with pytest.raises(ConfigError) as error:
        load_run(path)
    assert str(error.value) == f"{where}: found ''; string should have at least 1 character"
