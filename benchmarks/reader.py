"""What share of a training step the reader takes, from TFRecords, at 8, 20 and 40 fields.

    python -m benchmarks.reader --repeats 5 --record

Generated-world rows of 8 categorical fields (and MLP 256-128-64), and of 20 and 40 (MLP 256-128),
are prepared as any data are. Then DCNv2 (dimension 16, 3 cross layers, batch 4096) is trained with
LazyAdam on batches read from the files, and on the same batches kept in memory: what the second
does not take is the reader's. Both in turn, repeated; medians. A third one gathers from memory
(`training.in_memory`). A reader that takes no share may still take the processor's time: so that
is given too, of the files gone through without training.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console

from beam_pipelines.prepare import prepare
from benchmarks.record import Result, record
from benchmarks.world import world_config, write_world
from tfctr import backbones
from tfctr.data.dataset import Dataset
from tfctr.optimizers import LazyAdam

BATCH = 4096
COLUMNS_BESIDE_FIELDS = 2  # time and label


def train_seconds(model: Any, batches: tf.data.Dataset, steps: int) -> float:
    """Of a step, over an epoch: its start, when a window of rows is read, included."""
    start = time.perf_counter()
    model.fit(batches, steps_per_epoch=steps, verbose=0, shuffle=False)
    return (time.perf_counter() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=600_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()

    results: list[Result] = []
    for fields in (8, 20, 40):
        with tempfile.TemporaryDirectory() as temporary:
            source = Path(temporary) / "rows.parquet"
            write_world(source, args.rows, fields + COLUMNS_BESIDE_FIELDS)
            prepare(world_config(source), f"{temporary}/data")
            data = Dataset.open(f"{temporary}/data")
            hidden = (256, 128, 64) if fields == 8 else (256, 128)
            model = backbones.create("dcn_v2", data.schema, hidden_units=hidden)
            model.build()
            model.compile(LazyAdam(1e-3))
            batch = next(iter(data.train(BATCH)))
            model.fit(*batch, batch_size=BATCH, verbose=0)  # traces the step
            steps = data.num_rows("train") // BATCH
            kept = data.train(BATCH).cache()
            for _ in kept:  # an epoch fills the cache
                pass
            found: dict[str, list[float]] = {"files": [], "memory": [], "none": []}
            cpu = []
            for _ in range(args.repeats):
                for name, batches in {
                    "none": kept,
                    "files": data.train(BATCH),
                    "memory": data.train(BATCH, in_memory=True),
                }.items():
                    found[name].append(train_seconds(model, batches, steps))
                start = time.process_time()
                for _ in data.train(BATCH):
                    pass
                cpu.append((time.process_time() - start) / data.num_rows("train"))
            keras.backend.clear_session()
        step = {name: statistics.median(times) for name, times in found.items()}
        results += [
            Result(f"{fields} fields: a step", step["files"] * 1e3, "ms"),
            Result(
                f"{fields} fields: the reader's share of it", 1 - step["none"] / step["files"], ""
            ),
            Result(
                f"{fields} fields: the same, `in_memory`", 1 - step["none"] / step["memory"], ""
            ),
            Result(
                f"{fields} fields: the reader alone", statistics.median(cpu) * 1e6, "us CPU a row"
            ),
        ]
        for result in results[-4:]:
            Console().print(f"{result.what}: {result.value:.4g} {result.unit}")
    if args.record:
        record(
            "The reader's share of a training step",
            "benchmarks.reader",
            results,
            f"medians of {args.repeats} epochs",
        )


if __name__ == "__main__":
    main()
