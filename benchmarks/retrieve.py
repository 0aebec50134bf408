"""How long the search for similar rows takes, and how that grows with the pool.

    python -m benchmarks.retrieve configs/movielens-1m/rok/similar.yaml --processes 2 --record

The whole job on all rows of the config's dataset: the pool is the first 15, 30 and 60% of the rows,
and all that are earlier. Wall-clock seconds, so on a machine with nothing else to do.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console

from beam_pipelines.retrieve import retrieve
from benchmarks.processes import processes
from benchmarks.record import Result, record
from tfctr.config import load
from tfctr.retrieval.config import RetrievalConfig
from tfctr.stages import prepare

POOLS = (0.15, 0.3, 0.6, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="a retrieval config")
    parser.add_argument("--processes", type=int, default=2, help="of Beam's runner")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()
    config = load(args.config, RetrievalConfig)
    beam_args = processes(args.processes)
    console = Console()
    taken: dict[float, list[float]] = {pool: [] for pool in POOLS}
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "data"
        manifest = prepare(config.data, data, console=console)
        rows = sum(split["rows"] for split in manifest["splits"].values())
        for _ in range(args.repeats):
            for pool, seconds in taken.items():
                start = time.perf_counter()
                asked = config.model_copy(update={"pool": pool})
                retrieve(asked, str(data), f"{temporary}/similar", beam_args)
                seconds.append(time.perf_counter() - start)
                console.print(f"pool {pool:g}: {seconds[-1]:.0f} s")
    results = []
    for pool, seconds in taken.items():
        what = f"pool of the first {pool:.0%}" if pool < 1 else "all earlier rows"
        median = statistics.median(seconds)
        results.append(Result(f"{what}: {rows:,} rows searched for", median, "s"))
        results.append(Result(f"{what}: speed", rows / median, "rows/s"))
    if args.record:
        record(
            "Similar rows",
            "benchmarks.retrieve",
            results,
            f"medians of {args.repeats} repeats",
            f"BM25, K = {config.k}, {len(config.fields)} fields, {args.processes} processes.",
        )


if __name__ == "__main__":
    main()
