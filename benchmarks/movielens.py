"""Test AUC and log loss on MovieLens 1M under the papers' protocol, over seeds.

    python -m benchmarks.movielens configs/movielens-1m/dcnv2.yaml --seeds 3 --record

Each seed trains the config's model from scratch; the epoch is chosen by validation AUC.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.record import Result, record
from tfctr.config import load_run
from tfctr.pipeline import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path, help="run configs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="where datasets are kept between runs")
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()

    console = Console()
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        for path in args.configs:
            base = load_run(path)
            found: list[dict[str, dict[str, float]]] = []
            for seed in range(1, args.seeds + 1):
                training = base.training.model_copy(update={"seed": seed})
                name = f"{base.name}-seed-{seed}"
                config = base.model_copy(update={"name": name, "training": training})
                run = Run(config, work, console)
                run.prepare()
                run.train()
                found.append(json.loads(run.evaluate().read_text()))
                console.print(f"{name}: test AUC {found[-1]['test']['auc']:.4f}")
            for what in ("auc", "log_loss", "gauc"):
                values = [metrics["test"][what] for metrics in found]
                results.append(
                    Result(f"{path.stem}: test {what}, mean", statistics.mean(values), "")
                )
                if len(values) > 1:
                    results.append(
                        Result(f"{path.stem}: test {what}, deviation", statistics.stdev(values), "")
                    )
            best = statistics.mean(metrics["valid"]["auc"] for metrics in found)
            results.append(Result(f"{path.stem}: valid auc, mean", best, ""))
    for result in results:
        console.print(f"{result.what}: {result.value:.4f}")
    if args.record:
        record("MovieLens 1M", "benchmarks.movielens", results, f"seeds 1-{args.seeds}")


if __name__ == "__main__":
    main()
