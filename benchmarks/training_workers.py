"""Two training workers over one, each with one core, at the same global batch.

    python -m benchmarks.training_workers --rows 500000 --repeats 3 --record

DCNv2 on 20 columns of the generated world, batches of 4096, through the stages of a run; examples a
second are those that the second epoch prints, after the first one has traced. Both in turn. They
learn the same (`tests/training/test_distribution.py`).
"""

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.record import Result, record
from benchmarks.world import world_config, write_world

MODULE = "benchmarks.training_workers"
COLUMNS = 20
DIMS = (16, 64)


def worker(work: str, core: str, strategy: str, dim: str) -> None:
    """Trains, on one core."""
    os.sched_setaffinity(0, {int(core)})
    from tfctr.config import RunConfig
    from tfctr.stages import Run

    data = world_config(Path(work) / "rows.parquet")
    data = data.model_copy(
        update={"split": data.split.model_copy(update={"valid": 0.01, "test": 0})}
    )
    config = RunConfig.model_validate(
        {
            "name": "run",
            "data": data.model_dump(),
            "model": {"backbone": "dcn_v2", "embedding_dim": int(dim), "hidden_units": [256, 128]},
            "training": {
                "batch_size": 4096,
                "epochs": 2,
                "patience": 2,
                "in_memory": True,  # a single file of rows is not shared out
                "strategy": strategy,
            },
        }
    )
    Run(config, Path(work), Console(width=200)).train()


def speed(work: Path, workers: int, dim: int) -> float:
    """Examples a second of the second epoch."""
    shutil.rmtree(work / "run", ignore_errors=True)
    addresses = []
    for _ in range(workers):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            addresses.append(f"localhost:{free.getsockname()[1]}")
    strategy = "multi_worker" if workers > 1 else "one_device"
    processes = []
    for i in range(workers):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}}
        cluster = {"TF_CONFIG": json.dumps(task)} if workers > 1 else {}
        command = [sys.executable, "-m", MODULE, "--worker", str(work), str(i), strategy, str(dim)]
        processes.append(
            subprocess.Popen(
                command, env=os.environ | cluster, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
    for process in processes:
        printed, errors = (text.decode() for text in process.communicate())
        if process.returncode:
            raise SystemExit(f"a worker failed:\n{errors[-4000:]}")
        if process is processes[0]:
            found = re.search(r"^epoch 2: .* ([\d,]+) examples/s", printed, re.MULTILINE)
            assert found, printed
    return float(found[1].replace(",", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        write_world(work / "rows.parquet", args.rows, COLUMNS)
        for dim in DIMS:
            found: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(args.repeats):
                for workers, speeds in found.items():
                    speeds.append(speed(work, workers, dim))
            medians = {workers: statistics.median(speeds) for workers, speeds in found.items()}
            results += [
                *(
                    Result(f"dimension {dim}: {workers} workers", median, "examples/s")
                    for workers, median in medians.items()
                ),
                Result(f"dimension {dim}: 2 workers over 1", medians[2] / medians[1], "ratio"),
            ]
    for result in results:
        Console().print(f"{result.what}: {result.value:,.2f} {result.unit}")
    if args.record:
        runs = f"medians of {args.repeats} repeats"
        record("Training workers", MODULE, results, runs, f"{args.rows:,} rows.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:])
    else:
        main()
