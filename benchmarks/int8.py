"""What embedding tables of int8 save, and what they cost: trained runs, exported both ways.

    python -m benchmarks.int8 configs/movielens-1m/dcnv2.yaml --work work --record

What `--work` lacks is trained. Each model predicts all test rows with its float32 tables and with
int8 tables as they are exported. Times are of `rank` for 100 candidates, both versions in turn.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from benchmarks.in_turn import median_seconds
from benchmarks.movielens.__main__ import of_seed
from benchmarks.over_seeds import expanded, seeds_parser
from benchmarks.record import record_table
from benchmarks.serving import served
from tfctr import metrics
from tfctr.config import load_run
from tfctr.serving.exporter.int8_tables import int8_tables
from tfctr.serving.model_directory import versions
from tfctr.stages import Run
from tfctr.stages.evaluate import predict_split

NUMBERS: tuple[Literal["float32", "int8"], ...] = ("float32", "int8")  # of tables
REQUESTS = 200
HEADERS = (
    "model",
    "test AUC",
    "int8 less float32",
    "GAUC",
    "int8 less float32",
    "log loss",
    "int8 less float32",
    "SavedModel, MiB",
    "int8",
    "p50 of rank, ms",
    "int8",
)
NOTE = "Means over seeds; the size and the time of the first seed's."


def measured(run: Run) -> dict[str, dict[str, float]]:
    """AUC, GAUC and log loss on test rows, by the numbers of the tables."""
    data = run.open_data()
    rows = data.columns("test", ["label", "user_key"])
    model = run.load_model()
    logits = {"float32": predict_split(model, data, "test")}
    model = run.load_model()  # has no graph yet that reads its tables
    with int8_tables(model):
        logits["int8"] = predict_split(model, data, "test")
    return {
        tables: {
            "auc": metrics.auc(rows["label"], scores),
            "gauc": metrics.gauc(rows["label"], scores, rows["user_key"]),
            "log_loss": metrics.log_loss(rows["label"], scores),
        }
        for tables, scores in logits.items()
    }


def costs(run: Run, folder: Path) -> dict[str, tuple[float, float]]:
    """MiB of the SavedModel, and milliseconds of a request, by the numbers of the tables."""
    data, model = run.open_data(), run.load_model()
    requests = {tables: served(model, data, folder / tables, tables) for tables in NUMBERS}
    medians = median_seconds(requests, dict.fromkeys(requests, REQUESTS), warm_up=5)
    return {tables: (_size(folder / tables), 1000 * s) for tables, s in medians.items()}


def _size(directory: Path) -> float:
    (version,) = versions(directory).values()
    files = version.rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file()) / 2**20


def row(name: str, found: list[dict[str, dict[str, float]]], of: dict[str, Any]) -> list[str]:
    cells = [name]
    for metric in ("auc", "gauc", "log_loss"):
        before, after = (
            statistics.mean(seed[tables][metric] for seed in found) for tables in NUMBERS
        )
        cells += [f"{before:.4f}", f"{after - before:+.5f}"]
    for cost in (0, 1):
        cells += [f"{of[tables][cost]:.2f}" for tables in NUMBERS]
    return cells


def main() -> None:
    parser = seeds_parser(__doc__, "run configs")
    parser.add_argument("--section", default="Embedding tables of int8")
    args = parser.parse_args()
    console, rows = Console(), []
    with tempfile.TemporaryDirectory() as temporary:
        for path in expanded(args.configs):
            runs = [
                Run(of_seed(load_run(path), seed), args.work or Path(temporary) / "work", console)
                for seed in range(1, args.seeds + 1)
            ]
            for run in runs:
                run.train()
            name = load_run(path).name
            rows.append(
                row(name, [measured(run) for run in runs], costs(runs[0], Path(temporary) / name))
            )
            console.print(*rows[-1])
    if args.record:
        record_table(args.section, "benchmarks.int8", HEADERS, rows, f"seeds 1-{args.seeds}", NOTE)


if __name__ == "__main__":
    main()
