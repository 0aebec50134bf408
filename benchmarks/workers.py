"""How `prepare` gains from more workers, by rows a second of the clock, on a machine of its own.

    python -m benchmarks.workers --rows 8000000 --repeats 2 --record

Generated-world Parquet of 10 columns, in 4 files of many row groups, through Beam's own runner with
so many processes, and through Dask with a local cluster of so many workers. All write the same
bytes (`tests/beam_pipelines/test_runners.py`). A part of these rows is prepared as well: what a
further row costs is the difference, and what remains is what a run costs without rows.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import distributed
import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from beam_pipelines.prepare import prepare
from benchmarks.processes import processes
from benchmarks.record import Result, record
from benchmarks.world import ROW_GROUP, world_config, write_world

FILES = 4
PART = 8  # of the rows, a part
HERE, PROCESSES, WORKERS = "this process", "processes", "Dask workers"
DASK = "--runner=apache_beam.runners.dask.dask_runner.DaskRunner"


@contextmanager
def options_of(way: str, number: int) -> Iterator[list[str]]:
    """Beam's options for so many workers, while a cluster of Dask runs."""
    if way == PROCESSES:
        yield processes(number)
    elif way == WORKERS:
        with distributed.LocalCluster(
            n_workers=number, threads_per_worker=1, dashboard_address=None
        ) as cluster:
            yield [DASK, f"--dask_client_address={cluster.scheduler_address}"]
    else:
        yield []


def write_files(folder: Path, rows: int) -> None:
    """A log as users have it: several files, each of several row groups."""
    whole = folder / "rows.parquet"
    write_world(whole, rows, 10)
    with pq.ParquetFile(whole) as log:
        for i, groups in enumerate(np.array_split(np.arange(log.num_row_groups), FILES)):
            with pq.ParquetWriter(folder / f"log-{i}.parquet", log.schema_arrow) as file:
                for group in groups:
                    file.write_table(log.read_row_group(int(group)), row_group_size=ROW_GROUP)
    whole.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()
    cores = os.cpu_count() or 1
    counts = [n for n in (1, 2, 4, 8, 16, 32) if n <= cores]
    ways = [(HERE, 1), *((name, n) for name in (PROCESSES, WORKERS) for n in counts)]
    console = Console()
    sizes = (args.rows // PART, args.rows)
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        configs = []
        for size in sizes:
            folder = Path(temporary) / str(size)
            folder.mkdir()
            write_files(folder, size)
            configs.append(world_config(folder / "log-0.parquet", f"{folder}/log-*.parquet"))
        options = [stack.enter_context(options_of(name, n)) for name, n in ways]
        taken: list[list[list[float]]] = [[[] for _ in ways] for _ in sizes]
        for repeat in range(-1, args.repeats):  # the first one is warm-up
            for config, of_ways in zip(configs, taken, strict=True):
                for times, beam_args in zip(of_ways, options, strict=True):
                    start = time.perf_counter()
                    prepare(config, f"{temporary}/out", beam_args)
                    if repeat >= 0:
                        times.append(time.perf_counter() - start)
                    shutil.rmtree(f"{temporary}/out")
    results = []
    first: dict[str, tuple[float, float]] = {}
    for (name, n), few, all_rows in zip(ways, *taken, strict=True):
        seconds, seconds_of_few = statistics.median(all_rows), statistics.median(few)
        of_row = (seconds - seconds_of_few) / (sizes[1] - sizes[0])
        what = name if name == HERE else f"{n} {name}"
        results.append(Result(what, args.rows / seconds, "rows/s"))
        results.append(Result(f"{what}: without rows", seconds - args.rows * of_row, "s"))
        if name in first:
            of_one, row_of_one = first[name]
            results.append(Result(f"{what} over 1", of_one / seconds, "ratio"))
            results.append(Result(f"{what} over 1: a further row", row_of_one / of_row, "ratio"))
        first.setdefault(name, (seconds, of_row))
    for result in results:
        console.print(f"{result.what}: {result.value:,.2f} {result.unit}")
    if args.record:
        runs = f"medians of {args.repeats}"
        record("Rows a second by workers", "benchmarks.workers", results, runs)


if __name__ == "__main__":
    main()
