"""A trained backbone as a SavedModel for TF Serving, vocabularies inside."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfctr.click_model import ClickModel
from tfctr.schema import TOKEN_KINDS
from tfctr.serving.model_directory import publish
from tfctr.serving.raw_features import RawFeatures, raw_spec
from tfctr.serving.warmup import write_warmup

CLASSES = ("0", "1")  # labels of `classify`, in the order of its scores


def export(model: ClickModel, data: Any, directory: str | Path) -> Path:
    """Writes the next version of a served model, `directory/<version>/`; it appears at once.

    `docs/serving.md` lists its signatures. Beside the SavedModel lie `assets.extra/schema.json`
    and the warm-up requests that TF Serving runs before it serves the version.

    Args:
        model: the trained model.
        data: the `tfctr.data.Dataset` that it was trained on; its vocabularies go into the graph.
        directory: the model's directory, e.g. `saved_models/movielens-dcnv2`; its name is the
            model's name.

    Returns:
        The folder of the new version.

    Raises:
        ValueError: the dataset's vocabularies are not those of the model; it reads similar rows.
    """
    if model.reads_similar_rows:
        raise ValueError(
            f"{model.name} reads similar rows, which a server does not have. Export a student that "
            "it taught (tfctr.frameworks.rok)"
        )
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
    served.weights = [weight.value for weight in model.weights]  # not the optimizer's slots
    functions = signatures(model, raw)

    def write(version: Path) -> None:
        tf.saved_model.save(served, str(version), signatures=functions)
        extra = version / "assets.extra"
        extra.mkdir()
        (extra / "schema.json").write_text(model.served_schema.model_dump_json(indent=2) + "\n")
        write_warmup(extra, directory.name, model.served_schema, vocabularies, list(functions))

    return publish(directory, write)


def signatures(model: ClickModel, raw: RawFeatures) -> dict[str, Any]:
    """The functions that are served, by name; `rank` only where items have features."""
    rows = {f.name: raw_spec(f) for f in model.served_schema.inputs}
    items = _names(model.served_schema.side("item"))
    candidates = {f.name: raw_spec(f, f.side == "item") for f in model.served_schema.inputs}

    def scores(features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return _probability(model(raw.look_up(features), training=False))

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

    def rank(**features: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"scores": _rank(model, raw, features)}

    def concrete(function: Callable[..., Any], specs: Mapping[str, tf.TensorSpec]) -> Any:
        return tf.function(function).get_concrete_function(**specs)

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
    return served


def _rank(model: ClickModel, raw: RawFeatures, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Scores `[B, N]`; user and context are looked up once, and embedded once where they can be."""
    once = _names(model.served_schema.side("user", "context"))
    items = _names(model.served_schema.side("item"))
    shape = tf.shape(features[items[0]])[:2]
    shapes = tf.stack([tf.shape(features[name])[:2] for name in items])
    same = tf.debugging.assert_equal(  # else [1, 4] and [2, 2] would both flatten to 4 rows
        shapes, shape, f"rank: rows or candidates differ between {', '.join(items)}"
    )
    with tf.control_dependencies([same]):
        shape = tf.identity(shape)
    flat = {name: _one_a_row(model.served_schema[name], features[name], shape) for name in items}
    shared = raw.look_up({name: features[name] for name in once})
    if not model.embeds_fields_apart:
        rows = {name: tf.repeat(values, shape[1], axis=0) for name, values in shared.items()}
        return tf.reshape(_probability(model(rows | raw.look_up(flat), training=False)), shape)
    embeddings = model.embed(raw.look_up(flat), names=items)
    if once:
        shared = model.embed(shared, names=once)
        embeddings = tf.concat([tf.repeat(shared, shape[1], axis=0), embeddings], axis=1)
    here = once + items
    order = [here.index(name) for name in _names(model.served_schema.inputs)]
    if order != sorted(order):
        embeddings = tf.gather(embeddings, order, axis=1)
    logits = model.predict_logits(model.represent(embeddings, training=False))
    return tf.reshape(_probability(logits), shape)


def _one_a_row(feature: Any, values: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """`[B, N, ...]` to `[B * N, ...]`."""
    flat = tf.reshape(values, tf.concat([[shape[0] * shape[1]], tf.shape(values)[2:]], axis=0))
    return tf.ensure_shape(flat, raw_spec(feature).shape)


def _names(features: Iterable[Any]) -> list[str]:
    return [feature.name for feature in features]


def _probability(logits: tf.Tensor) -> tf.Tensor:
    return tf.sigmoid(tf.cast(logits, tf.float32))
