"""Where the milliseconds of a training step go.

    python -m benchmarks.step --repeats 15 --record

The matrix products of a model are found in its graph, and timed alone: forward, and two of the same
size for the gradients. What a step takes beyond them is parted by what is left out: forward and
backward alone; with Adam on dense weights; with the tables too (equal rows are merged, moments
looked up, rows updated); and `fit`, with its callbacks and its loop. All in turn, so that all meet
the same noise, and `fit` in `mixed_bfloat16` among them. DCNv2 as in `benchmarks.throughput`, with
tables of 50 thousand, 5 million and MovieLens' rows; DIN, and SRP4CTR around it, with histories of
50 and 200 events.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from benchmarks.in_turn import median_seconds
from benchmarks.record import record_table
from benchmarks.throughput.task import BATCH, CROSS_LAYERS, DIM, LEARNING_RATE, TASKS
from tfctr.backbones import create
from tfctr.comparison.cost import matrix_products, transposed
from tfctr.frameworks.srp4ctr.sequence_encoder import SequenceEncoder
from tfctr.frameworks.srp4ctr.student import Srp4ctrStudent
from tfctr.optimizers import LazyAdam
from tfctr.schema import FIRST_TOKEN_ID, Schema

EVENTS = (50, 200)
ROWS_WITH_EVENTS = 512  # a batch of models that read histories
ITEMS, BRANDS, USERS = 20_000, 500, 50_000
STEPS_OF_FIT = 24  # so that what it does once counts little
HEADERS = (
    "model",
    "a step, ms",
    "matrix products",
    "look-ups, activations, loss",
    "Adam, dense",
    "Adam, tables",
    "`fit`",
    "products over a step",
    "a step in bfloat16, ms",
)


def models() -> dict[str, Callable[[], Any]]:
    """What makes each model, by its name."""
    made: dict[str, Callable[[], Any]] = {}
    for name, task in TASKS.items():
        sizes = dict(zip(task.fields, task.vocabularies, strict=True))
        features = [_categorical(field, size) for field, size in sizes.items()]
        made[f"DCNv2, {name}"] = partial(
            create,
            "dcn_v2",
            Schema.model_validate({"features": features}),
            embedding_dim=DIM,
            num_cross_layers=CROSS_LAYERS,
            hidden_units=task.hidden_units,
        )
    for length in EVENTS:
        schema = with_events(length)
        made[f"DIN, {length} events"] = partial(create, "din", schema, embedding_dim=DIM)
        made[f"SRP4CTR-DIN, {length} events"] = partial(srp4ctr, schema)
    return made


def srp4ctr(schema: Schema) -> Srp4ctrStudent:
    """Around DIN."""
    return Srp4ctrStudent(
        schema,
        create("din", schema, embedding_dim=DIM),
        SequenceEncoder(schema.select(OF_ENCODER), 32, 2, num_heads=2, dropout=0.1),
        cross_attention=True,
        num_queries=4,
        num_query_blocks=1,
        frozen="none",
        refreshed=False,
    )


def compiled(create_model: Callable[[], Any], precision: str) -> Any:
    """A built model that computes in this precision."""
    keras.config.set_dtype_policy(precision)
    model = create_model()
    model.build()
    model.compile(LazyAdam(LEARNING_RATE))
    model.optimizer.build(model.trainable_variables)
    return model


OF_ENCODER = ["past_item", "past_brand", "past_click", "item", "brand"]


def with_events(length: int) -> Schema:
    features = [
        _categorical("user", USERS),
        {"name": "past_item", "kind": "history", "shares": "item", "max_length": length},
        {"name": "past_brand", "kind": "history", "shares": "brand", "max_length": length},
        {"name": "past_click", "kind": "history", "column": "click", "max_length": length},
        _categorical("item", ITEMS, "item"),
        _categorical("brand", BRANDS, "item"),
    ]
    sizes = {"past_item": ITEMS, "past_brand": BRANDS, "past_click": 2 + FIRST_TOKEN_ID}
    fitted = {name: {"vocabulary_size": size} for name, size in sizes.items()}
    return Schema.model_validate({"features": features}).fitted(fitted)


def _categorical(name: str, size: int, side: str = "context") -> dict[str, Any]:
    return {"name": name, "kind": "categorical", "side": side, "vocabulary_size": size}


def batch_of(model: Any) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """A batch whose ids are log-uniform in each field, like 1 / rank; histories are full."""
    rng = np.random.default_rng(0)
    has_events = any(feature.is_list for feature in model.schema.inputs)
    rows = ROWS_WITH_EVENTS if has_events else BATCH
    features = {}
    for feature in model.schema.inputs:
        shape = (rows, feature.max_length) if feature.is_list else (rows,)
        rank = np.exp(rng.random(shape) * math.log(feature.num_ids - FIRST_TOKEN_ID)).astype(int)
        features[feature.name] = tf.constant(rank - 1 + FIRST_TOKEN_ID, tf.int64)
    return features, tf.constant(rng.integers(0, 2, rows), tf.float32)


def products_alone(model: Any, features: Mapping[str, tf.Tensor]) -> Callable[[], Any]:
    """The matrix products of a step, on operands that are there.

    Raises:
        NotImplementedError: the graph has products that are not found, as in a loop.
    """
    products = []
    for op in matrix_products(lambda given: model(given, training=True), features):
        if op.type == "Einsum":
            raise NotImplementedError("Einsum is not timed")
        turned = [op.get_attr(name) for name in transposed(op)]
        shapes = [tensor.shape for tensor in (*op.inputs, *op.outputs)]
        operands = [tf.Variable(tf.random.normal(shape)) for shape in shapes]
        products.append((*operands, *turned))

    @tf.function(autograph=False)
    def step() -> list[tf.Tensor]:
        return [
            product
            for a, b, dy, turn_a, turn_b in products
            for product in (
                tf.matmul(a, b, turn_a, turn_b),
                tf.matmul(b, dy, turn_b, True) if turn_a else tf.matmul(dy, b, False, not turn_b),
                tf.matmul(dy, a, True, turn_a) if turn_b else tf.matmul(a, dy, not turn_a, False),
            )
        ]

    return step


def parts(model: Any) -> dict[str, Callable[[], Any]]:
    """What is timed, by name; each holds more than the one before."""
    features, labels = batch_of(model)
    variables = model.trainable_variables

    def gradients() -> list[Any]:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(
                features, labels, model(features, training=True), training=True
            )
        return tape.gradient(loss, [variable.value for variable in variables])

    is_dense = [not isinstance(gradient, tf.IndexedSlices) for gradient in gradients()]
    dense = [variable for variable, is_ in zip(variables, is_dense, strict=True) if is_]
    of_dense = LazyAdam(LEARNING_RATE)
    of_dense.build(dense)

    def with_dense() -> list[Any]:
        found = gradients()
        of_dense.apply([g for g, is_ in zip(found, is_dense, strict=True) if is_], dense)
        return [g.values for g, is_ in zip(found, is_dense, strict=True) if not is_]

    return {
        "products": products_alone(model, features),
        "forward and backward": tf.function(gradients, autograph=False),
        "with dense": tf.function(with_dense, autograph=False),
        "step": tf.function(lambda: model.train_step((features, labels)), autograph=False),
        "fit": fit_of(model),
    }


def fit_of(model: Any) -> Callable[[], Any]:
    """`STEPS_OF_FIT` steps."""
    rows = tf.data.Dataset.from_tensors(batch_of(model)).repeat(STEPS_OF_FIT)
    return lambda: model.fit(rows, verbose=0)


def cells(name: str, create_model: Callable[[], Any], repeats: int) -> list[str]:
    work = parts(compiled(create_model, "float32"))
    lower = fit_of(compiled(create_model, "mixed_bfloat16"))
    times = dict.fromkeys(work, repeats) | dict.fromkeys(("fit", "lower"), max(repeats // 2, 1))
    seconds = median_seconds(work | {"lower": lower}, times, warm_up=2)
    taken = [1000 * seconds[part] for part in work]
    taken[-1] /= STEPS_OF_FIT
    shares = [taken[0], *np.diff(taken)]
    return [
        name,
        f"{taken[-1]:.1f}",
        *(f"{ms:.1f}" for ms in shares),
        f"{taken[0] / taken[-1]:.2f}",
        f"{1000 * seconds['lower'] / STEPS_OF_FIT:.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()
    keras.utils.set_random_seed(1)
    table = []
    Console().print(" | ".join(HEADERS))
    for name, create_model in models().items():
        table.append(cells(name, create_model, args.repeats))
        Console().print(" | ".join(table[-1]))
    if args.record:
        note = (
            f"Milliseconds; a batch is {BATCH:,} rows, {ROWS_WITH_EVENTS} of models with events. "
            "Parts are differences of medians, so a small one may be noise."
        )
        runs = f"medians of {args.repeats} repeats"
        record_table(
            "Where a training step's time goes", "benchmarks.step", HEADERS, table, runs, note
        )


if __name__ == "__main__":
    main()
