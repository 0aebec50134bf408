"""ClickPrompt: what is hidden, what guesses it, and the two ways to go on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from tests.frameworks.ctrl.test_ctrl import PRETRAINING, write_configs
from tests.serving.batching import BASIC, assert_merged_is_each
from tfctr.config import ConfigError, load_run
from tfctr.data import Dataset
from tfctr.data.manifest import read_manifest
from tfctr.data.raw_rows import raw_rows
from tfctr.frameworks.clickprompt import ClickPromptStudent, PromptedMaskedLM, PromptGenerator
from tfctr.frameworks.clickprompt.stages import create_prompted_masked_lm
from tfctr.language.masking import mask_tokens
from tfctr.serving import Client, Server
from tfctr.stages import Run, Stage, build

SPECIAL = {"pad": 0, "start": 2, "end": 3, "mask": 4}
ROW = {
    "row": {
        "template": "User is {user_id}. Age is {age_group}. Title is {title}.",
        "max_tokens": 40,
    }
}


def _hide(tokens: np.ndarray, rate: float = 0.15, seed: int = 1) -> tuple[np.ndarray, ...]:
    candidates = np.arange(100, 110)
    found = mask_tokens(tf.constant(tokens, tf.int32), SPECIAL, candidates, rate, seed)
    return tuple(np.asarray(part) for part in found)


def test_a_share_of_the_words_is_hidden() -> None:
    tokens = np.full((2_000, 42), 50, np.int32)
    tokens[:, 0], tokens[:, -1] = 2, 3
    hidden, places, chosen = _hide(tokens)
    assert chosen.shape == (2_000, 6)
    assert chosen.all()  # 15% of 40 words
    at = np.take_along_axis(hidden, places, axis=1)
    assert not ((places == 0) | (places == 41)).any()
    assert all(len(set(row)) == 6 for row in places)
    assert (at == 4).mean() == pytest.approx(0.8, abs=0.02)
    assert (at == 50).mean() == pytest.approx(0.1, abs=0.02)
    assert ((at >= 100) & (at < 110)).mean() == pytest.approx(0.1, abs=0.02)
    np.testing.assert_allclose(
        np.bincount(places.ravel(), minlength=42)[1:41] / 12_000, 1 / 40, 0.2
    )
    untouched = np.ones_like(tokens, bool)
    np.put_along_axis(untouched, places, False, axis=1)
    np.testing.assert_array_equal(hidden[untouched], tokens[untouched])


def test_short_texts_hide_at_least_one_word() -> None:
    tokens = np.array([[2, 9, 3, 0, 0, 0, 0, 0, 0, 0], [2, 3, 0, 0, 0, 0, 0, 0, 0, 0]])
    _, places, chosen = _hide(tokens, rate=0.3)
    assert chosen.sum(axis=1).tolist() == [1, 0]  # none where there is no word
    assert places[0, 0] == 1


def test_prompts_are_two_dense_layers() -> None:
    layer = PromptGenerator(3, num_layers=2, num_heads=2, width=8, where="layers")
    q = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    found = np.asarray(layer(q))
    assert found.shape == (4, 2, 2, 3, 2, 4)
    u = np.tanh(q @ np.asarray(layer.inner.kernel) + np.asarray(layer.inner.bias))
    expected = u @ np.asarray(layer.outer.kernel) + np.asarray(layer.outer.bias)
    np.testing.assert_allclose(found.reshape(4, -1), expected, atol=1e-5)
    assert PromptGenerator(3, 2, 2, 8, "input")(q).shape == (4, 3, 8)
    with pytest.raises(ValueError, match="Received: 'none'"):
        PromptGenerator(3, 2, 2, 8, "none")


def _run(
    folder: Path,
    training: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    **framework: Any,
) -> Run:
    content = {"name": "clickprompt", "pretraining": PRETRAINING} | framework
    changes = {k: v for k, v in (("training", training), ("model", model)) if v}
    config = load_run(write_configs(folder, content, texts=ROW, **changes))
    run = Run(config, folder / "work", Console(quiet=True))
    run.prepare()
    return run


def _prompted(run: Run) -> Stage:
    return run.before["clickprompt"]["prompted"]


def _masked_lm(run: Run) -> tuple[PromptedMaskedLM, Any]:
    stages, config = run.before["clickprompt"], run.config.method("clickprompt")
    data = Dataset.open(run.data_folder, [stages["texts"].path])
    keras.utils.set_random_seed(1)
    model = create_prompted_masked_lm(config, run.config.model.create(data.schema), stages)
    model.build()
    return model, data


def test_guesses_are_those_of_the_head_over_the_candidates(tmp_path: Path) -> None:
    model, data = _masked_lm(_run(tmp_path))
    assert model.lm_head.is_pretrained
    features, _ = next(iter(data.valid(16, features=model.reads)))
    likelihoods, chosen = model(features)
    tokens = tf.cast(features["row_tokens"], tf.int32)
    hidden, places, same = mask_tokens(tokens, model.special, model.candidates, 0.15, 0)
    np.testing.assert_array_equal(chosen, same)
    prompts = model.generator(model.backbone.represent(model.backbone.embed(features)))
    vectors = model.encoder(hidden, tokens != 0, prefixes=prompts)
    logits = np.asarray(model.lm_head(vectors, places))[:, :, model.candidates]
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    targets = np.take_along_axis(np.asarray(tokens), np.asarray(places), axis=1)
    found = np.asarray(likelihoods)
    for i, j in zip(*np.nonzero(np.asarray(chosen)), strict=True):
        place = int(np.flatnonzero(model.candidates == targets[i, j])[0])
        assert found[i, j] == pytest.approx(np.log(shares[i, j, place]), abs=1e-3)


def test_the_backbone_learns_through_the_prompts(tmp_path: Path) -> None:
    model, data = _masked_lm(_run(tmp_path))
    features, labels = next(iter(data.valid(32, features=model.reads)))
    with tf.GradientTape() as tape:
        loss = model.compute_loss(features, labels, model(features, training=True))
    variables = model.backbone.trainable_variables
    gradients = tape.gradient(loss, [v.value for v in variables])
    moved = [v.path for v, g in zip(variables, gradients, strict=True) if g is not None]
    assert any("fields" in path for path in moved)
    assert not any(path.endswith("head/kernel") for path in moved)
    without, _ = _masked_lm(_run(tmp_path, prompts="none"))
    with tf.GradientTape() as tape:
        loss = without.compute_loss(features, labels, without(features, training=True))
    variables = [v.value for v in without.backbone.trainable_variables]
    assert all(g is None for g in tape.gradient(loss, variables))


@pytest.mark.slow
def test_without_prompts_nothing_of_any_backbone_is_trained(tmp_path: Path) -> None:
    """Some layers of a DCNv2 are made only when others are built."""
    run = _run(tmp_path, prompts="none", model={"backbone": "dcn_v2", "embedding_dim": 4})
    model, _ = _masked_lm(run)
    trained = {id(variable) for variable in model.encoder_variables}
    assert not model.backbone.trainable_variables
    assert not [v.path for v in model.trainable_variables if id(v) not in trained]
    build(_prompted(run), run.console)


@pytest.mark.slow
def test_prompts_help_to_guess_what_the_ids_know(tmp_path: Path) -> None:
    """With half of the words hidden, the user's id says the age that the text does not."""
    training = PRETRAINING | {"epochs": 10, "optimizer": {"learning_rate": 0.01}}
    found = {}
    for prompts in ("layers", "none"):
        run = _run(tmp_path, prompts=prompts, pretraining=training, mask_rate=0.5)
        build(_prompted(run), run.console)
        manifest = read_manifest(_prompted(run).manifest_path)
        assert manifest is not None
        found[prompts] = manifest["best_valid_log_likelihood"]
    assert found["layers"] > found["none"] + 0.05


@pytest.mark.slow
def test_the_student_without_the_language_model_is_the_backbone(tmp_path: Path) -> None:
    run = _run(tmp_path)
    run.train()
    model = run.load_model()
    assert type(model).__name__ == "DeepFM"
    assert run.evaluate().is_file()
    pretrained = keras.models.load_model(_prompted(run).path, compile=False)
    start = run.trained.create_student(run.open_data(), run.console)
    np.testing.assert_array_equal(
        start.fields.get_weights()[0], pretrained.backbone.fields.get_weights()[0]
    )


@pytest.mark.slow
def test_the_student_with_the_language_model(tmp_path: Path) -> None:
    training = {
        "batch_size": 256,
        "epochs": 1,
        "steps_per_epoch": 4,
        "optimizer": {"learning_rate": 0.001, "encoder_rate": 0.05},
    }
    run = _run(tmp_path, training, serves_language_model=True)
    run.train()
    model = run.load_model()
    assert isinstance(model, ClickPromptStudent)
    assert float(model.share) != 0.5  # it is learned
    assert run.evaluate().is_file()
    # A process that has trained nothing finds the classes of what it loads.
    arguments = ["export", str(tmp_path / "run.yaml"), "--work", str(tmp_path / "work")]
    command = [sys.executable, "-c", "from tfctr.cli import app; app()", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    data = run.open_data()
    features, _ = next(iter(data.valid(8, features=model.reads)))
    represented = model.represent(model.embed(features))
    own = np.asarray(model.predict_logits(represented))
    of_text = np.asarray(model.text_logits(represented, features["row_tokens"]))
    share = float(model.share)
    np.testing.assert_allclose(model(features), share * own + (1 - share) * of_text, rtol=1e-4)


def test_both_stages_in_lower_precision(tmp_path: Path) -> None:
    few = {"epochs": 1, "steps_per_epoch": 2, "precision": "mixed_bfloat16"}
    training, before = {"batch_size": 256} | few, PRETRAINING | few
    run = _run(tmp_path, training, serves_language_model=True, pretraining=before)
    run.train()
    model = run.load_model()
    assert {weight.dtype for weight in model.trainable_variables} == {"float32"}
    assert not np.isnan(json.loads(run.evaluate().read_text())["valid"]["log_loss"])


@pytest.mark.slow
def test_the_language_model_is_served_what_it_was_evaluated_on(tmp_path: Path) -> None:
    training = {"batch_size": 256, "epochs": 1, "steps_per_epoch": 4}
    run = _run(tmp_path, training, serves_language_model=True, pretraining=None)
    run.train()
    model, data = run.load_model(), run.open_data()
    version = run.export()
    folder = version.parent
    rows = raw_rows(run.config.data, data, "test", 40).to_pylist()
    tokens = data.columns("test", ["row_tokens"])["row_tokens"][:40]
    names = [feature.name for feature in model.schema.inputs]
    columns = {name: [row[name] for row in rows] for name in names}
    expected = tf.sigmoid(model.predict(data.test(512, features=model.reads), verbose=0)[:40])
    items = [feature.name for feature in model.schema.side("item")]
    with (
        Server({folder.name: folder}, grpc_port=0, rest_port=0) as server,
        Client(f"127.0.0.1:{server.grpc_port}", folder.name) as client,
    ):
        scores = client.predict(columns | {"row_tokens": tokens.tolist()})
        np.testing.assert_allclose(scores, expected, rtol=1e-4)
        user = {name: rows[0][name] for name in names if name not in items}
        asked = {name: columns[name] for name in items} | {"row_tokens": tokens.tolist()}
        ranked = client.rank(user, asked)
        assert ranked[0] == pytest.approx(float(expected[0]), rel=1e-4)
    assert_merged_is_each(version, BASIC)


def test_students_with_and_without_the_language_model_share_what_is_trained_before(
    tmp_path: Path,
) -> None:
    first, second = _run(tmp_path), _run(tmp_path, serves_language_model=True)
    assert _prompted(first).folder == _prompted(second).folder
    assert _prompted(first).key() == _prompted(second).key()
    assert first.trained.key() != second.trained.key()
    third = _run(tmp_path, mask_rate=0.3)
    assert _prompted(third).folder != _prompted(first).folder


def test_without_pretraining_nothing_is_trained_before(tmp_path: Path) -> None:
    run = _run(tmp_path, pretraining=None)
    assert [*run.before["clickprompt"]] == ["texts"]
    run.train()
    assert not list(run.work.glob("texts-clickprompt-*"))


def test_a_student_with_two_models_has_no_bias_of_all_logits(tmp_path: Path) -> None:
    for key, value in (("positive_weight", 2.0), ("keep_negatives", 0.5)):
        training = {"batch_size": 256, key: value}
        load_run(write_configs(tmp_path, {"name": "clickprompt"}, texts=ROW, training=training))
        serves = {"name": "clickprompt", "serves_language_model": True}
        path = write_configs(tmp_path, serves, texts=ROW, training=training)
        with pytest.raises(ConfigError) as error:
            load_run(path)
        assert str(error.value).startswith(f"{path}: training.{key}: found {value}; it shifts")
        assert "\n" not in str(error.value)


def test_a_row_has_one_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a row needs one text, found item, user"):
        load_run(write_configs(tmp_path, {"name": "clickprompt"}))
