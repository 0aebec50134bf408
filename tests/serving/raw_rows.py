"""A schema with every kind of feature, rows of raw values for it, and what a model scores them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfctr.backbones import LR
from tfctr.data.vocabulary import Vocabulary
from tfctr.schema import MISSING_INT, PAD_ID, Schema
from tfctr.serving import export
from tfctr.serving.exporter.warmup_requests import example

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
ITEMS = ["a", "b", "c", "d"]  # of `small_version`


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


def small_version(folder: Path, seed: int, items: list[str]) -> Any:
    """Exports a model of one feature into `folder/m`."""
    model = spread_weights(LR(SCHEMA.select(["item"])), seed)
    # The same path each time: a table must not be mistaken for that of the version before.
    export(model, fake_dataset(folder / "v", TOKENS | {"item": items}), folder / "m")
    return model
