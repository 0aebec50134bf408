"""How long a train step takes as the embedding table grows, by optimizer.

    python -m benchmarks.sparse_step --steps 5 --repeats 5 --record

20 fields of 16 numbers in one table, an MLP of 256 and 128, batches of 4096. A field's ids are
log-uniform (like 1 / rank): a batch holds some 22 thousand distinct rows of 50 thousand, 46
thousand of 5 million. Every repeat times every setting for a few steps, in turn, so that all meet
the same noise; a value is the median.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from benchmarks.record import Result, record
from tfctr.optimizers import LazyAdagrad, LazyAdam

FIELDS, DIM, BATCH = 20, 16, 4096
SMALL, LARGE = 50_000, 5_000_000

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "LazyAdam": lambda: LazyAdam(1e-3),
    "LazyAdam, embedding_l2": lambda: LazyAdam(1e-3, embedding_l2=1e-4),
    "LazyAdam, compact_state": lambda: LazyAdam(1e-3, compact_state=True),
    "LazyAdagrad": lambda: LazyAdagrad(1e-2),
    "Keras Adam": lambda: keras.optimizers.Adam(1e-3),
}


class Lookup(keras.layers.Layer):
    """Rows `[B, F, D]` for ids `[B, F]`, read without the rest of the table."""

    def __init__(self, rows: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows = rows

    def build(self, input_shape: Any) -> None:
        self.table = self.add_weight(shape=(self.rows, DIM), initializer="zeros", name="table")
        self.table.by_rows = True

    def call(self, ids: Any) -> Any:
        return self.table.value.sparse_read(ids)


def make_model(rows: int, optimizer: Any) -> keras.Model:
    ids = keras.Input((FIELDS,), dtype="int32")
    hidden = keras.layers.Flatten()(Lookup(rows)(ids))
    for units in (256, 128):
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
    model = keras.Model(ids, keras.layers.Dense(1, activation="sigmoid")(hidden))
    model.compile(optimizer=optimizer, loss="binary_crossentropy", jit_compile=False)
    return model


def make_batches(rows: int, count: int) -> list[tuple[tf.Tensor, tf.Tensor]]:
    rng = np.random.default_rng(0)
    per_field = rows // FIELDS
    rank = np.exp(rng.random((count, BATCH, FIELDS)) * math.log(per_field)).astype("int32") - 1
    ids = rank + np.arange(FIELDS, dtype="int32") * per_field
    clicks = rng.integers(0, 2, (count, BATCH, 1)).astype("float32")
    return [(tf.constant(x), tf.constant(y)) for x, y in zip(ids, clicks, strict=True)]


def seconds_per_step(model: keras.Model, batches: list[tuple[tf.Tensor, tf.Tensor]]) -> float:
    start = time.perf_counter()
    for ids, clicks in batches:
        model.train_on_batch(ids, clicks)
    return (time.perf_counter() - start) / len(batches)


def measure(steps: int, repeats: int) -> dict[tuple[str, int], float]:
    """Median milliseconds a step of every (optimizer, rows)."""
    batches = {rows: make_batches(rows, steps) for rows in (SMALL, LARGE)}
    models = {
        (name, rows): make_model(rows, make())
        for name, make in OPTIMIZERS.items()
        for rows in (SMALL, LARGE)
    }
    for (_, rows), model in models.items():
        seconds_per_step(model, batches[rows][:2])  # traced, and slots in memory
    times: dict[tuple[str, int], list[float]] = {setting: [] for setting in models}
    for _ in range(repeats):
        for setting, model in models.items():
            times[setting].append(1000 * seconds_per_step(model, batches[setting[1]]))
    return {setting: statistics.median(values) for setting, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10, help="steps timed together")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()

    medians = measure(args.steps, args.repeats)
    results: list[Result] = []
    table = Table("optimizer", f"{SMALL:,} rows (ms)", f"{LARGE:,} rows (ms)", "ratio")
    for name in OPTIMIZERS:
        small, large = medians[name, SMALL], medians[name, LARGE]
        table.add_row(name, f"{small:.1f}", f"{large:.1f}", f"{large / small:.2f}")
        results.append(Result(f"step, {name}, {SMALL:,} rows", small, "ms"))
        results.append(Result(f"step, {name}, {LARGE:,} rows", large, "ms"))
        results.append(Result(f"{name}, large over small", large / small, "ratio"))
    Console().print(table)
    if args.record:
        record(
            "A train step as the table grows",
            "benchmarks.sparse_step",
            results,
            f"medians of {args.repeats} repeats",
            "A batch holds twice as many distinct rows of the large table as of the small one.",
        )


if __name__ == "__main__":
    main()
