"""What `prepare` costs where one key has half of the rows, and where a table is joined by key.

    python -m benchmarks.skew --rows 1000000 --table 2000000 --repeats 3 --record

A log with histories, and a table of items joined to it, on two worker processes: the table held in
each worker's memory, or joined by its keys as tables above `LARGE_TABLE` are. Users and items are
drawn evenly, or half of the rows are one user's, or one item's. Every run is in a process of its
own; memory is the largest worker's.
"""

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from beam_pipelines.prepare import prepare
from benchmarks.processes import processes
from benchmarks.record import Result, record
from benchmarks.world import ROW_GROUP
from tfctr.config import DataConfig
from tfctr.data import joined_tables

NUM_USERS = 20_000
LOGS = ("even", "a user has half of the rows", "an item has half of the rows")
WORKERS = processes(2)


def write_log(path: Path, num_rows: int, num_items: int, what: str) -> None:
    rng = np.random.default_rng(1)
    users = rng.integers(0, NUM_USERS, num_rows)
    items = rng.integers(0, num_items, num_rows)
    half = rng.random(num_rows) < 0.5
    if what == LOGS[1]:
        users[half] = 7
    elif what == LOGS[2]:
        items[half] = 7
    log = {
        "click": rng.integers(0, 2, num_rows),
        "time": np.sort(rng.integers(0, 10**9, num_rows)),
        "user": pa.array(np.char.add("user ", users.astype(str))),
        "item": pa.array(np.char.add("item ", items.astype(str))),
    }
    pq.write_table(pa.table(log), path, row_group_size=ROW_GROUP)


def write_items(path: Path, num_items: int) -> None:
    rng = np.random.default_rng(2)
    table = {
        "item": pa.array(np.char.add("item ", np.arange(num_items).astype(str))),
        "category": pa.array(np.char.add("category ", rng.integers(0, 100, num_items).astype(str))),
        "price": rng.lognormal(size=num_items),
    }
    pq.write_table(pa.table(table), path, row_group_size=ROW_GROUP)


def config(log: Path) -> DataConfig:
    return DataConfig(
        name="skew",
        source={
            "format": "parquet",
            "events": str(log),
            "items": {"path": str(log.parent / "items.parquet"), "key": "item"},
        },
        label={"column": "click"},
        time={"column": "time"},
        user="user_id",
        split={"by": "global_time", "valid": 0.1, "test": 0.1},
        features=[
            {"name": "user_id", "kind": "categorical", "side": "user", "column": "user"},
            {"name": "past", "kind": "history", "shares": "category", "max_length": 20},
            {"name": "category", "kind": "categorical", "side": "item"},
            {"name": "price", "kind": "numeric", "side": "item"},
        ],
    )


def run(log: Path, by_key: bool, output: str) -> tuple[float, float]:
    """Seconds, and MiB of the largest worker."""
    if by_key:
        joined_tables.LARGE_TABLE = -1
    start = time.perf_counter()
    prepare(config(log), output, WORKERS)
    seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--table", type=int, default=2_000_000, help="rows of the items' table")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()
    ways = [("in memory", False), ("joined by key", True)]
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_items(Path(folder) / "items.parquet", args.table)
        for i, what in enumerate(LOGS):
            write_log(Path(folder) / f"log-{i}.parquet", args.rows, args.table, what)
        context = multiprocessing.get_context("spawn")
        for _ in range(args.repeats):
            for i, what in enumerate(LOGS):
                for way, by_key in ways:
                    with context.Pool(1) as pool:
                        log = Path(folder) / f"log-{i}.parquet"
                        found = pool.apply(run, (log, by_key, f"{folder}/out"))
                    taken.setdefault((what, way), []).append(found)
    results = []
    even = {way: statistics.median(s for s, _ in taken[LOGS[0], way]) for way, _ in ways}
    for (what, way), found in taken.items():
        seconds = statistics.median(second for second, _ in found)
        results.append(Result(f"{what}; table {way}", seconds, "s"))
        if what == LOGS[0]:
            memory = statistics.median(size for _, size in found)
            results.append(Result("largest worker", memory, "MiB"))
        else:
            results.append(Result("over even", seconds / even[way], "ratio"))
    console = Console()
    for result in results:
        console.print(f"{result.what}: {result.value:,.2f} {result.unit}")
    if args.record:
        record(
            "A key with half of the rows", "benchmarks.skew", results, f"medians of {args.repeats}"
        )


if __name__ == "__main__":
    main()
