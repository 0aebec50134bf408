"""Rollouts against one another, over seeds: next-day AUC and GAUC, and the rows that they read.

    python -m benchmarks.rollouts configs/demo/ecdctr/{ecdctr,compared}.yaml \\
        --section "E-CDCTR in the generated world" --seeds 5 --processes 2 --record

A file that has variants stands for these, `file.yaml#name` for one of them. The first is what the
others are compared with. A seed is that of all trainings, and of the generated world, if the rows
are of one. `--work` keeps what is trained: a second run goes on behind it.

The tables are of these configs, of `configs/demo/ecdctr` or `configs/movielens-1m/ecdctr`:

- E-CDCTR in the generated world, and on MovieLens 1M in two domains:
  `{ecdctr,compared}.yaml`
- E-CDCTR against all rows every day: `{ecdctr,everything}.yaml`
- E-CDCTR with histories: `{ecdctr,histories}.yaml`
- E-CDCTR with an encoder of events, of more seeds: `{ecdctr.yaml,histories.yaml#srp4ctr}`
- E-CDCTR where three impressions in a hundred are ads: `density.yaml#{sparser,sparser-ads-only}`
- E-CDCTR where three impressions in ten are ads: `density.yaml#{denser,denser-ads-only}`
"""

import multiprocessing
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.movielens.__main__ import of_seed as training_of_seed
from benchmarks.over_seeds import expanded, seeds_parser, share_cores
from benchmarks.record import difference_text, interval_text, record_table
from tfctr.config import Training, WorldSource
from tfctr.frameworks.ecdctr.config import DaysConfig, RolloutConfig, load_rollout, with_data
from tfctr.frameworks.ecdctr.report import EvaluatedRollout, mean_difference
from tfctr.frameworks.ecdctr.rollout import Rollout

HEADERS = (
    "rollout",
    "AUC",
    "deviation",
    "{first} over it",
    "of seeds",
    "GAUC",
    "{first} over it",
    "of seeds",
    "GAUC of all days",
    "log loss",
    "AUC, inactive users",
    "AUC, new users",
    "rows read a day",
)
NOTE = (
    "AUC, GAUC and log loss: means over days and seeds, of ads that no model had seen; deviations "
    "are of seeds. In brackets: 95% intervals of resampled blocks of 7 days, for these seeds; "
    "of seeds: those of Student's t over the seeds' means. A difference stands where both leave "
    "zero out. GAUC of all days: of their rows together, for on one day few users have both a "
    "click and none. Inactive users had no row in the two weeks before; theirs is the AUC of all "
    "their rows together."
)


def of_seed(config: RolloutConfig, seed: int) -> RolloutConfig:
    """A rollout with a name of its own for the seed."""

    def seeded(training: Training) -> Training:
        return training.model_copy(update={"seed": seed})

    changed: dict[str, Any] = {
        what: part.model_copy(update={"training": seeded(part.training)})
        for what in ("tiny", "complete", "ads")
        if (part := getattr(config, what))
    }
    name = f"{config.name}-seed-{seed}"
    days = _days_of_seed(config.days, seed)
    methods = tuple(
        with_data(training_of_seed(method, seed), config.days.data, days.data)
        for method in config.frameworks
    )
    changed |= {"name": name, "days": days, "frameworks": methods, "export": None}
    return config.model_copy(update=changed)


def _days_of_seed(days: DaysConfig, seed: int) -> DaysConfig:
    if not isinstance(days.data.source, WorldSource):
        return days
    source = days.data.source.model_copy(update={"seed": seed})
    data = days.data.model_copy(update={"source": source, "name": f"{days.data.name}-seed-{seed}"})
    return days.model_copy(update={"data": data, "name": f"{days.name}-seed-{seed}"})


def roll_out(path: Path, seed: int, work: Path) -> EvaluatedRollout:
    """In a process of its own, on a log that is there."""
    rollout = Rollout(of_seed(load_rollout(path), seed), work, Console(quiet=True))
    missing = rollout.run()
    assert missing is None, f"{path}: {missing} is missing"
    return EvaluatedRollout.read(rollout.folder)


def row(name: str, found: list[EvaluatedRollout], first: list[EvaluatedRollout]) -> list[str]:
    def mean(measure: str) -> str:
        return f"{statistics.mean(evaluated.mean(measure) for evaluated in found):.4f}"

    def over(measure: str) -> list[str]:
        if found is first:
            return ["", ""]
        difference = mean_difference(first, found, measure)
        of_days = difference_text(difference.mean, difference.days)
        return [of_days, interval_text(difference.seeds) if len(found) > 1 else ""]

    def pooled(segment: str) -> str:
        return f"{np.nanmean([evaluated.pooled_auc(segment) for evaluated in found]):.4f}"

    aucs = [evaluated.mean("auc") for evaluated in found]
    return [
        name,
        mean("auc"),
        f"{statistics.stdev(aucs):.4f}" if len(aucs) > 1 else "",
        *over("auc"),
        mean("gauc"),
        *over("gauc"),
        f"{statistics.mean(evaluated.pooled_gauc() for evaluated in found):.4f}",
        mean("log_loss"),
        pooled("inactive_users"),
        pooled("unseen_users"),
        f"{statistics.mean(evaluated.mean('rows_read') for evaluated in found):,.0f}",
    ]


def main() -> None:
    parser = seeds_parser(__doc__, "of rollouts")
    parser.add_argument("--section", required=True, help="of the record")
    args = parser.parse_args()

    from beam_pipelines.days import write_days

    console = Console()
    paths = expanded(args.configs)
    configs = {path: load_rollout(path) for path in paths}
    seeds = range(1, args.seeds + 1)
    share_cores(args.processes)
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        for config in configs.values():  # a log is shared: written once, before
            for seed in seeds:
                seeded = of_seed(config, seed)
                assert seeded.end is not None, f"{config.name}: no end"
                write_days(seeded.days, seeded.end, str(work / seeded.days.name))
        processes = ProcessPoolExecutor(
            args.processes, multiprocessing.get_context("spawn"), max_tasks_per_child=1
        )
        with processes as pool:
            started = {
                path: [pool.submit(roll_out, path, seed, work) for seed in seeds] for path in paths
            }
            found = {}
            for path, futures in started.items():
                found[path] = [future.result() for future in futures]
                aucs = ", ".join(f"{evaluated.mean('auc'):.4f}" for evaluated in found[path])
                console.print(f"{configs[path].name}: AUC of each seed {aucs}")
    first = found[paths[0]]
    table = [row(configs[path].name, found[path], first) for path in paths]
    headers = [header.format(first=configs[paths[0]].name) for header in HEADERS]
    for cells in (headers, *table):
        console.print(" | ".join(cells))
    if args.record:
        record_table(
            args.section, "benchmarks.rollouts", headers, table, f"seeds 1-{args.seeds}", NOTE
        )


if __name__ == "__main__":
    main()
