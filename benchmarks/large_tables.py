"""A train step and its memory with tables of as many rows as a large business has.

    python -m benchmarks.large_tables --millions 5 50 100 --optimizers compact_state --record

DCNv2 of 20 fields of 16 numbers, batches of 4096; one field has nearly all rows, of which each row
of a batch asks for another one (ids are log-uniform, like 1 / rank). Each table in a process of its
own, all in turn. Memory is that of the process at its peak, less what it had before the model was
made, over what the weights and the optimizer's state take. Steps are timed in huge pages too,
where Linux gives them to who asks for them (`madvise` in
`/sys/kernel/mm/transparent_hugepage/enabled`).
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Sequence
from multiprocessing import get_context
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.memory import forget_peak, memory_mb
from benchmarks.record import Result, record

FIELDS, DIM, BATCH = 20, 16, 4096
SMALL = 2_500  # rows of each further field
TIMES = 3  # that a process times its steps
OPTIMIZERS = {"LazyAdam": {}, "compact_state": {"compact_state": True}}
HUGE_PAGES = "glibc.malloc.hugetlb=1"


def measured(rows: int, optimizer: str, steps: int) -> tuple[float, float, float]:
    """Milliseconds a step, bytes of state over bytes of one copy of all weights, and the peak of
    memory over the state."""
    import tensorflow as tf

    from tfctr.backbones import create
    from tfctr.optimizers import LazyAdam
    from tfctr.schema import Schema

    sizes = [rows - (FIELDS - 1) * SMALL, *[SMALL] * (FIELDS - 1)]
    features = [
        {"name": f"f{i}", "kind": "categorical", "side": "context", "vocabulary_size": size}
        for i, size in enumerate(sizes)
    ]
    schema = Schema.model_validate({"features": features})
    rng = np.random.default_rng(0)

    def batch() -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        drawn = [np.exp(rng.random(BATCH) * math.log(size)).astype("int32") - 1 for size in sizes]
        clicks = rng.integers(0, 2, BATCH).astype("float32")
        return {f"f{i}": tf.constant(ids) for i, ids in enumerate(drawn)}, tf.constant(clicks)

    batches = [batch() for _ in range(steps)]
    forget_peak(os.getpid())
    before = memory_mb(os.getpid())
    model = create("dcn_v2", schema, embedding_dim=DIM, num_cross_layers=3, hidden_units=[256, 128])
    model.build()
    model.compile(LazyAdam(1e-3, **OPTIMIZERS[optimizer]))

    def train() -> float:
        start = time.perf_counter()
        for features, clicks in batches:
            model.train_on_batch(features, clicks)
        return 1000 * (time.perf_counter() - start) / len(batches)

    train()  # traced, and the state in memory
    taken = statistics.median(train() for _ in range(TIMES))
    peak = memory_mb(os.getpid(), peak=True) - before
    weights = _mib(model.weights)
    state = weights + _mib(model.optimizer.variables)
    return taken, state / weights, peak / state


def _mib(variables: Sequence[Any]) -> float:
    import tensorflow as tf

    return sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in variables) / 2**20


def in_process(given: tuple[int, str, int], tunables: str) -> tuple[float, float, float]:
    """`measured` in a process of its own with these settings of glibc."""
    os.environ["GLIBC_TUNABLES"] = tunables
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=int, nargs="+", default=[5, 50])
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=[*OPTIMIZERS])
    parser.add_argument("--steps", type=int, default=10, help="timed together")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()
    found: dict[tuple[str, int], list[tuple[float, ...]]] = {}
    for _ in range(args.repeats):
        for optimizer in args.optimizers:
            for millions in args.millions:
                given = (millions * 1_000_000, optimizer, args.steps)
                one = (*in_process(given, ""), in_process(given, HUGE_PAGES)[0])
                found.setdefault((optimizer, millions), []).append(one)
    results = []
    for (optimizer, millions), repeats in found.items():
        first = found[optimizer, args.millions[0]]
        taken, state, peak, _ = (statistics.median(values) for values in zip(*repeats, strict=True))
        over = statistics.median(a[0] / b[0] for a, b in zip(repeats, first, strict=True))
        huge = statistics.median(in_huge_pages / taken for taken, _, _, in_huge_pages in repeats)
        of_rows = f"{optimizer}, {millions} million rows"
        results += [
            Result(f"{of_rows}: a step", taken, "ms"),
            Result(f"{of_rows}: over {args.millions[0]} million", over, "ratio"),
            Result(f"{of_rows}: in huge pages over without", huge, "ratio"),
            Result(f"{of_rows}: weights and state over weights", state, "ratio"),
            Result(f"{of_rows}: peak of memory over both", peak, "ratio"),
        ]
    for result in results:
        Console().print(f"{result.what}: {result.value:,.2f} {result.unit}")
    if args.record:
        runs = f"medians of {args.repeats} repeats"
        record("Tables of a business's size", "benchmarks.large_tables", results, runs)


if __name__ == "__main__":
    main()
