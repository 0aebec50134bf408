"""A dense layer over events, by Keras and by `FlatDense`: forward, and with gradients.

python -m benchmarks.dense --record
"""

import argparse
import os
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import keras
import tensorflow as tf
from rich.console import Console

from benchmarks.in_turn import median_seconds
from benchmarks.record import Result, record
from tfctr.layers.flat_dense import FlatDense

EVENTS, WIDTH, UNITS = 50, 32, 128
LAYERS = {"Keras": keras.layers.Dense, "FlatDense": FlatDense}


def calls(cls: Any) -> dict[str, Callable[[Any], Any]]:
    """By name; each a function of rows of events."""
    layer = cls(UNITS, activation="gelu")
    layer.build((None, EVENTS, WIDTH))
    spec = [tf.TensorSpec([None, EVENTS, WIDTH])]

    def gradients(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x) ** 2)
        return tape.gradient(loss, [x, *(weight.value for weight in layer.weights)])

    return {
        "forward": tf.function(layer, input_signature=spec),
        "with gradients": tf.function(gradients, input_signature=spec),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20, help="of each, in turn")
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()
    functions = {name: calls(cls) for name, cls in LAYERS.items()}
    results = []
    for rows in (1, 100, 1024):
        x = tf.random.normal([rows, EVENTS, WIDTH])
        for what in ("forward", "with gradients"):
            work = {name: partial(of_layer[what], x) for name, of_layer in functions.items()}
            medians = median_seconds(work, dict.fromkeys(work, args.repeats), warm_up=3)
            for name, seconds in medians.items():
                results.append(Result(f"{rows:,} rows, {what}: {name}", 1000 * seconds, "ms"))
            ratio = medians["Keras"] / medians["FlatDense"]
            results.append(Result(f"{rows:,} rows, {what}: Keras over FlatDense", ratio, "ratio"))
    console = Console()
    for result in results:
        console.print(f"{result.what}: {result.value:.3f} {result.unit}")
    if args.record:
        note = f"{EVENTS} events of {WIDTH} numbers a row to {UNITS}, GELU."
        record("A dense layer over events", "benchmarks.dense", results, "medians", note)


if __name__ == "__main__":
    main()
