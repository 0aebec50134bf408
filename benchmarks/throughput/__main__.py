"""Training throughput of DCNv2: tfctr, Keras alone, FuxiCTR, DeepCTR, and the matrix products.

    python -m benchmarks.throughput --fuxictr-python P --deepctr-python P --repeats 3 --record

Each contender is a process of its own, given the same batches of 4096 rows and two cores; those of
one round run in turn, so that all meet the same noise. tfctr shuffles and gathers its rows as in
any training; the others get ready batches from memory. Nobody regularizes or drops out, all train
every parameter with Adam on the log loss, and the driver checks that they have the same number of
parameters and that the loss falls. Speeds are medians over all segments of a few steps.

The others need environments of their own, with Python 3.11; that of FuxiCTR is in
`benchmarks.fuxictr`:

    python3.11 -m venv deepctr
    deepctr/bin/pip install deepctr==0.9.4 tensorflow==2.21.0 tf-keras==2.21.0

`--fuxictr-python` and `--deepctr-python` name their interpreters, e.g. `fuxictr/bin/python`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.record import Result, record
from benchmarks.throughput.task import BATCH, TASKS, Task, write_rows

ROOT = Path(__file__).parents[2]
LIMIT = "matrix products"
SMALL, LARGE = "50 thousand rows", "5 million rows"


def run(python: str, module: str, task: str, rows: Path, seconds: float) -> dict[str, Any]:
    """What a contender reports, from a process of its own."""
    command = [python, "-m", f"benchmarks.throughput.{module}", task, str(rows), str(seconds)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def check(name: str, task: Task, found: dict[str, Any]) -> None:
    if found["parameters"] != task.parameters:
        raise SystemExit(
            f"{name} has {found['parameters']:,} parameters, where the task has "
            f"{task.parameters:,}: it does not do the same work"
        )
    if found["loss_after"] >= found["loss_before"]:
        raise SystemExit(
            f"{name} does not learn: the loss of the first batch was {found['loss_before']:.4f} "
            f"and is {found['loss_after']:.4f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fuxictr-python", help="Python of FuxiCTR's environment")
    parser.add_argument("--deepctr-python", help="Python of DeepCTR's environment")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6, help="timed, a contender and repeat")
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()

    console = Console()
    contenders = {
        "tfctr": (sys.executable, "tfctr_model"),
        "Keras": (sys.executable, "keras_model"),
        "FuxiCTR": (args.fuxictr_python, "fuxictr_model"),
        "DeepCTR": (args.deepctr_python, "deepctr_model"),
        LIMIT: (sys.executable, "matrix_products"),
    }
    for name, (python, _) in list(contenders.items()):
        if python is None:
            console.print(f"{name} is left out: no --{name.lower()}-python")
            del contenders[name]

    speeds: dict[tuple[str, str], list[float]] = {}
    memory: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        rows = {name: Path(temporary) / f"{name}.npz" for name in TASKS}
        for name, task in TASKS.items():
            write_rows(task, rows[name])
        for _ in range(args.repeats):
            for task_name, task in TASKS.items():
                for name, (python, module) in contenders.items():
                    found = run(python, module, task_name, rows[task_name], args.seconds)
                    if name != LIMIT:
                        check(name, task, found)
                    key = task_name, name
                    speeds.setdefault(key, []).extend(found["speeds"])
                    memory.setdefault(key, []).append(found["peak_memory"])
                    speed = statistics.median(found["speeds"])
                    console.print(f"{task_name}, {name}: {speed:,.0f} examples/s")

    medians = {key: statistics.median(values) for key, values in speeds.items()}
    results: list[Result] = []
    table = Table("task", "contender", "examples/s", "tfctr is", "peak memory (MB)")
    for (task_name, name), speed in medians.items():
        ratio = medians[task_name, "tfctr"] / speed
        peak = statistics.median(memory[task_name, name])
        table.add_row(task_name, name, f"{speed:,.0f}", f"{ratio:.2f} x", f"{peak:,.0f}")
        results.append(Result(f"{task_name}: {name}", speed, "examples/s"))
        if name != "tfctr":
            results.append(Result(f"{task_name}: tfctr over {name}", ratio, "ratio"))
        if name != LIMIT:
            results.append(Result(f"{task_name}: {name}, peak memory", peak, "MB"))
    scaling = medians[LARGE, "tfctr"] / medians[SMALL, "tfctr"]
    results.append(Result(f"tfctr: {LARGE} over {SMALL}", scaling, "ratio"))
    console.print(table)
    console.print(f"tfctr: {LARGE} over {SMALL}: {scaling:.2f}")
    if args.record:
        record(
            "Training throughput",
            "benchmarks.throughput",
            results,
            f"medians of {args.repeats} repeats",
            f"DCNv2, Adam, batches of {BATCH}; 20 fields, MovieLens-1M 8 fields of its sizes.",
        )


if __name__ == "__main__":
    main()
