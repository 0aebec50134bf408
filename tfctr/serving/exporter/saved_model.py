"""Exports a trained model as a SavedModel for TF Serving, with its vocabularies."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import numpy as np
import tensorflow as tf

from tfctr.models.click_model import ClickModel
from tfctr.schema import TOKEN_KINDS
from tfctr.serving.exporter.constants import dense_as_constants
from tfctr.serving.exporter.int8_tables import int8_tables
from tfctr.serving.exporter.raw_features import RawFeatures
from tfctr.serving.exporter.version import write_version
from tfctr.serving.raw_values import raw_spec

CLASSES = ("0", "1")  # labels of `classify`, in the order of its scores
MODEL_KEY = "model_key"  # int64 `[B]`, an output of `encode_user`: which weights it used


def export(
    model: ClickModel,
    data: Any,
    directory: str | Path,
    tables: Literal["float32", "int8"] = "float32",
) -> Path:
    """Writes the next version of a served model, `directory/<version>/`, whole or not at all.

    `docs/serving.md` lists its signatures. The folder also has `assets.extra/schema.json` and the
    warm-up requests that TF Serving runs before it serves the version.

    Args:
        model: the trained model.
        data: the `tfctr.data.Dataset` that it was trained on; its vocabularies go into the graph.
        directory: the model's directory, e.g. `saved_models/movielens-dcnv2`; its name is the
            model's name.
        tables: "int8": a row of an embedding table is `D` int8 numbers and a float32 scale, `D + 4`
            bytes in place of `4D`; scores change a little. Defaults to "float32".

    Returns:
        The folder of the new version.

    Raises:
        ValueError: the dataset's vocabularies are not those of the model; the model reads side
            outputs; no such `tables`.
        DataError: the new version does not load, or has other scores; it is deleted.
    """
    if model.reads_side_outputs:
        raise ValueError(
            f"{model.name} reads side outputs, which a server does not have; export a student that "
            "learned from it"
        )
    if tables not in ("float32", "int8"):
        raise ValueError(f"tables: found {tables!r}; allowed: float32, int8")
    directory = Path(directory)
    model.build()
    model._catch_up()
    vocabularies = {
        f.name: Path(data.vocabulary_file(data.schema[f.name].vocabulary))
        for f in model.served_schema.inputs
        if isinstance(f, TOKEN_KINDS)
    }
    raw = RawFeatures(model.served_schema, vocabularies)
    served = tf.Module()
    served.raw = raw
    weights = [weight.value for weight in model.weights]  # not the optimizer's slots
    with int8_tables(model) if tables == "int8" else nullcontext(weights) as served.weights:
        found = signatures(model, raw)
    return write_version(directory, served, found, model.served_schema, vocabularies)


def signatures(model: ClickModel, raw: RawFeatures) -> dict[str, Any]:
    """The served functions by name. There is `rank` if items have features; and its two halves,
    `encode_user` and `score`, if keeping an encoded user saves much (`ClickModel.folds`)."""
    rows = {f.name: raw_spec(f) for f in model.served_schema.inputs}
    items = _names(model.served_schema.side("item"))
    once = _names(model.served_schema.side("user", "context"))
    key = model_key(model) if model.folds else 0
    constants = dense_as_constants(model)
    candidates = {f.name: raw_spec(f, f.side == "item") for f in model.served_schema.inputs}

    # Functions of their own, so that they are traced once for several signatures. No Python here
    # depends on a tensor's value; AutoGraph would double the time of tracing.
    scores_of_ids = tf.function(
        lambda ids: _probability(model(ids, training=False)), autograph=False
    )
    user_of_ids = tf.function(model.encode_user, autograph=False)
    scores_of_candidates = tf.function(
        lambda user, ids: _probability(model.score(user, ids)), autograph=False
    )

    def scores(features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return scores_of_ids(raw.look_up(features))

    def serving_default(**features: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"scores": scores(features)}

    def examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"scores": scores(raw.parse(examples))}

    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        click = scores(raw.parse(inputs))
        classes = tf.tile(tf.constant([CLASSES]), [tf.size(click), 1])
        return {"classes": classes, "scores": tf.stack([1 - click, click], axis=1)}

    def regress(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": scores(raw.parse(inputs))}

    def of_candidates(user: Any, given: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        candidates = _items(model, raw, {name: given[name] for name in items})
        return {"scores": scores_of_candidates(user, candidates)}

    def rank(**features: tf.Tensor) -> dict[str, tf.Tensor]:
        user = raw.look_up({name: features[name] for name in once})
        return of_candidates(user_of_ids(user), features)

    def encode_user(**features: tf.Tensor) -> dict[str, tf.Tensor]:
        looked_up = raw.look_up(features)
        user = user_of_ids(looked_up)
        rows = tf.shape(next(iter(looked_up.values())))[:1]
        return user | {MODEL_KEY: tf.fill(rows, tf.constant(key, tf.int64))}

    def score(**given: tf.Tensor) -> dict[str, tf.Tensor]:
        user = {name: values for name, values in given.items() if name not in items}
        same = tf.debugging.assert_equal(
            user.pop(MODEL_KEY),
            tf.constant(key, tf.int64),
            "score: the user was encoded by another version of the model; encode it again",
        )
        with tf.control_dependencies([same]):
            return of_candidates({k: tf.identity(v) for k, v in user.items()}, given)

    def concrete(function: Callable[..., Any], specs: Mapping[str, tf.TensorSpec]) -> Any:
        with constants:
            return tf.function(function, autograph=False).get_concrete_function(**specs)

    def serialized(name: str) -> dict[str, tf.TensorSpec]:
        return {name: tf.TensorSpec([None], tf.string, name=name)}

    served = {
        "serving_default": concrete(serving_default, rows),
        "examples": concrete(examples, serialized("examples")),
        "classify": concrete(classify, serialized("inputs")),
        "regress": concrete(regress, serialized("inputs")),
    }
    if items:
        served["rank"] = concrete(rank, candidates)
    if items and model.folds:
        served["encode_user"] = concrete(encode_user, {name: rows[name] for name in once})
        user = served["encode_user"].structured_outputs
        kept = {name: tf.TensorSpec(t.shape, t.dtype, name=name) for name, t in user.items()}
        served["score"] = concrete(score, kept | {name: candidates[name] for name in items})
    return served


def model_key(model: ClickModel) -> int:
    """A checksum of all weights: `score` compares it with that of the encoded user."""
    found = 0
    for weight in model.weights:
        found = google_crc32c.extend(found, np.asarray(weight).tobytes())
    return found


def _items(model: ClickModel, raw: RawFeatures, features: Mapping[str, tf.Tensor]) -> Any:
    """Model inputs `[B, N]` or `[B, N, M]` from the candidates' raw features."""
    names = _names(model.served_schema.side("item"))
    shape = tf.shape(features[names[0]])[:2]
    shapes = tf.stack([tf.shape(features[name])[:2] for name in names])
    same = tf.debugging.assert_equal(  # else [1, 4] and [2, 2] would both flatten to 4 rows
        shapes, shape, f"rows or candidates differ between {', '.join(names)}"
    )
    with tf.control_dependencies([same]):
        shape = tf.identity(shape)
    flat = {name: _flatten(model.served_schema[name], features[name], shape) for name in names}
    return {name: _unflatten(values, shape) for name, values in raw.look_up(flat).items()}


def _flatten(feature: Any, values: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """`[B, N, ...]` to `[B * N, ...]`."""
    flat = tf.reshape(values, tf.concat([[shape[0] * shape[1]], tf.shape(values)[2:]], axis=0))
    return tf.ensure_shape(flat, raw_spec(feature).shape)


def _unflatten(values: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """`[B * N, ...]` to `[B, N, ...]`."""
    inner = values.shape[1:]
    values = tf.reshape(values, tf.concat([shape, tf.shape(values)[1:]], axis=0))
    return tf.ensure_shape(values, [None, None, *inner])


def _names(features: Iterable[Any]) -> list[str]:
    return [feature.name for feature in features]


def _probability(logits: tf.Tensor) -> tf.Tensor:
    return tf.sigmoid(tf.cast(logits, tf.float32))
