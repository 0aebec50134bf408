"""What a Keras user does with a model of clicks: `compile`, `fit`, `predict`."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfctr
from tests.backbones.test_backbones import INPUTS, make
from tfctr.metrics import auc
from tfctr.optimizers import LazyAdam

LABELS = np.array([1.0, 0.0, 1.0], np.float32)


@pytest.fixture(scope="module")
def rows() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features of 400 rows, and labels."""
    rng = np.random.default_rng(2)
    some = rng.integers(0, 3, 400)
    labels = (rng.random(400) < some / 4).astype(np.float32)
    ages = rng.normal(30, 10, 400).astype(np.float32)  # no two rows are alike
    return {k: v[some] for k, v in INPUTS.items()} | {"age": ages}, labels


@pytest.mark.parametrize(
    ("loss", "instead"),
    [
        ("binary_crossentropy", "keras.losses.BinaryCrossentropy(from_logits=True)"),
        ("BinaryCrossentropy", "keras.losses.BinaryCrossentropy(from_logits=True)"),
        ("crossentropy", "keras.losses.BinaryCrossentropy(from_logits=True)"),
        (keras.losses.BinaryCrossentropy(), "keras.losses.BinaryCrossentropy(from_logits=True)"),
        (keras.losses.binary_crossentropy, "keras.losses.BinaryCrossentropy(from_logits=True)"),
        ([keras.losses.BinaryFocalCrossentropy()], "BinaryFocalCrossentropy(from_logits=True)"),
        ("mse", "Leave `loss` out, which is log loss of logits"),
        ({"output": keras.losses.MeanSquaredError()}, "which is log loss of logits"),
    ],
)
def test_a_loss_of_probabilities_is_refused(loss: Any, instead: str) -> None:
    with pytest.raises(ValueError, match="takes probabilities; this model gives logits") as raised:
        make("lr").compile("adam", loss=loss)
    assert instead in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("argument", ["metrics", "weighted_metrics"])
@pytest.mark.parametrize(
    ("metrics", "instead"),
    [
        (["auc"], None),
        (["AUC"], "Write tfctr.metrics.AUC()"),
        ([keras.metrics.AUC()], "Write tfctr.metrics.AUC()"),
        ([tfctr.metrics.AUC(), "accuracy"], "keras.metrics.BinaryAccuracy(threshold=0.0)"),
        ({"output": ["acc"]}, "keras.metrics.BinaryAccuracy(threshold=0.0)"),
        ([[keras.metrics.Precision()]], "keras.metrics.Precision(thresholds=0.0)"),
        (["bce"], "from_logits=True"),
        ([keras.metrics.binary_crossentropy], "BinaryCrossentropy(from_logits=True)"),
        (["mse"], "Compute it from tfctr.predict(model, rows)"),
    ],
)
def test_a_metric_of_probabilities_is_refused(
    metrics: Any, instead: str | None, argument: str
) -> None:
    with pytest.raises(ValueError, match=f"{argument}: found .*this model gives logits") as raised:
        make("lr").compile("adam", **{argument: metrics})
    assert (instead or "tfctr.metrics.AUC()") in str(raised.value)


def test_losses_and_metrics_of_logits_count_every_row_by_its_weight(rows: Any) -> None:
    """Keras' own would take the mean over the batch first."""
    features, labels = rows
    model = make("dcn_v2")
    logits = np.asarray(model(features))
    weights = np.random.default_rng(3).random(len(labels)).astype(np.float32)
    losses = np.logaddexp(0, np.where(labels == 1, -logits, logits))
    expected = float(np.mean(losses * weights))
    for loss in (None, keras.losses.BinaryCrossentropy(from_logits=True)):
        model.compile(
            "adam",
            loss=loss,
            metrics=[keras.metrics.BinaryAccuracy(threshold=0.0), "hinge"],
            weighted_metrics=[keras.metrics.BinaryCrossentropy(from_logits=True)],
        )
        found = model.evaluate(
            features, labels, 128, sample_weight=weights, verbose=0, return_dict=True
        )
        # Keras' mean of the batches' losses counts the last, smaller one by its rows.
        assert found["loss"] == pytest.approx(expected, rel=1e-4)
        accuracy = np.mean((logits > 0) == (labels == 1))
        assert found["binary_accuracy"] == pytest.approx(accuracy, rel=1e-5)
        log_loss = np.average(losses, weights=weights)
        assert found["binary_crossentropy"] == pytest.approx(log_loss, rel=1e-5)


def test_auc_from_logits_is_that_of_the_rows(rows: Any, tmp_path: Path) -> None:
    features, labels = rows
    model = make("dcn_v2")
    model.compile("adam", metrics=[tfctr.metrics.AUC()])
    found = model.evaluate(features, labels, batch_size=128, verbose=0, return_dict=True)
    assert found["auc"] == pytest.approx(auc(labels, np.asarray(model(features))), abs=1e-3)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.evaluate(features, labels, verbose=0, return_dict=True)["auc"] == pytest.approx(
        found["auc"], abs=1e-5
    )


@pytest.mark.parametrize("shift", [0.0, -6.0, 40.0])
def test_auc_is_that_of_rare_clicks_too(shift: float) -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(shift, 1, 20_000).astype(np.float32)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(shift - logits))).astype(np.float32)
    weights = rng.integers(0, 3, 20_000)
    metric = tfctr.metrics.AUC()
    for part in np.array_split(np.arange(20_000), 3):
        metric.update_state(labels[part], logits[part], weights[part])
    repeated = np.repeat(labels, weights), np.repeat(logits, weights)
    expected = 0.5 if shift == 40 else auc(*repeated)  # all in the last bin: ties
    assert float(metric.result()) == pytest.approx(expected, abs=1e-4)


def test_auc_of_one_class_is_undefined() -> None:
    metric = tfctr.metrics.AUC()
    metric.update_state([1.0, 1.0], [0.0, 1.0])
    assert np.isnan(metric.result())


def test_predict_gives_probabilities(rows: Any) -> None:
    features, _ = rows
    model = make("dcn_v2")
    found = tfctr.predict(model, features, batch_size=256)
    assert (found.dtype, found.shape) == (np.float32, (400,))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-np.asarray(model(features)))), rtol=1e-5)
    with pytest.raises(TypeError, match="model: found Sequential; a backbone or a student"):
        tfctr.predict(keras.Sequential(), features)


@pytest.mark.parametrize("name", ["lr", "dcn_v2", "din", "dien", "bst", "finalmlp"])
def test_no_rows_have_no_scores(name: str) -> None:
    model = make(name)
    none = {feature: values[:0] for feature, values in INPUTS.items()}
    for rows in (none, tf.data.Dataset.from_tensor_slices((none, np.zeros(0))).batch(2)):
        assert model.predict(rows, verbose=0).shape == (0,)
        assert tfctr.predict(model, rows).dtype == np.float32


def test_xla_needs_a_dense_optimizer() -> None:
    model = make("lr")
    with pytest.raises(ValueError, match=r"jit_compile: XLA cannot .* of LazyAdam; leave"):
        model.compile(LazyAdam(1e-3), jit_compile=True)
    model.compile("adam", jit_compile=True)
    found = model.predict(INPUTS, verbose=0)
    np.testing.assert_allclose(found, model(INPUTS), atol=1e-6)
