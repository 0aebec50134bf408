"""Time and memory of a split's exact metrics as it grows.

    python -m benchmarks.evaluation --millions 1 10 100 --record

Rows of users whose numbers of impressions differ (geometric, 30 in the mean), one click in ten, and
float32 logits: `tfctr.metrics.evaluate` with AUC, GAUC, log loss, calibration, and intervals of 200
resamples of users; and of as many resamples the paired difference of two models. Each size in a
process of its own. Memory is what the process takes at its peak beyond the rows themselves.
"""

import argparse
import os
import time
from multiprocessing import get_context

import numpy as np
from rich.console import Console

from benchmarks.memory import forget_peak, memory_mb
from benchmarks.record import Result, record
from tfctr import metrics

RESAMPLES = 200


def measured(rows: int) -> tuple[float, float, float]:
    """CPU seconds of `evaluate` and of a comparison, and the first one's bytes a row."""
    generator = np.random.default_rng(1)
    impressions = generator.geometric(1 / 30, size=rows // 30 + rows // 300 + 100)
    keys = generator.integers(2**62, size=len(impressions))
    users = np.repeat(keys, impressions)[:rows]
    logits = generator.normal(-2.6, 1.0, size=(2, rows)).astype(np.float32)
    labels = (generator.random(rows, np.float32) < 1 / (1 + np.exp(-logits[0]))).astype(np.int8)
    users = users[generator.permutation(rows)]
    forget_peak(os.getpid())
    before = memory_mb(os.getpid())
    start = time.process_time()
    metrics.evaluate(labels, logits[0], users, resamples=RESAMPLES)
    evaluated = time.process_time() - start
    memory = (memory_mb(os.getpid(), peak=True) - before) * 2**20 / rows
    start = time.process_time()
    metrics.paired_difference(labels, logits[:1], logits[1:], users, resamples=RESAMPLES)
    return evaluated, time.process_time() - start, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()
    results = []
    for millions in args.millions:
        with get_context("spawn").Pool(1) as pool:
            evaluated, compared, memory = pool.apply(measured, (millions * 1_000_000,))
        of_rows = f"{millions} million rows"
        results += [
            Result(f"{of_rows}: metrics and intervals", evaluated, "s"),
            Result(f"{of_rows}: two models compared", compared, "s"),
            Result(f"{of_rows}: memory beyond the rows", memory, "bytes/row"),
        ]
        for result in results[-3:]:
            Console().print(f"{result.what}: {result.value:,.2f} {result.unit}")
    if args.record:
        note = f"{RESAMPLES} resamples of users; CPU seconds of one thread."
        record("Exact metrics", "benchmarks.evaluation", results, "one run each", note)


if __name__ == "__main__":
    main()
