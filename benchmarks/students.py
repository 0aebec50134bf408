"""Students, their teachers and ablations against the same backbones without a method, over seeds.

    python -m benchmarks.students configs/demo/rok/*.yaml configs/demo/rok/ablations/*.yaml \\
        --section "ROK in the generated world" --seeds 5 --processes 2 --record

A student is compared with the plain run of its backbone on the same data config: p is of Welch's
two-sided t-test of their test AUCs. A seed is that of the student and of what is trained before it
but for ROK's teacher, which is one. Files that are no run configs are passed over. `--work` keeps
what is trained: a second run goes on behind it.
"""

import statistics
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from scipy.stats import ttest_ind

from benchmarks.movielens.__main__ import train_process, train_seed
from benchmarks.over_seeds import seeds_parser, share_cores
from benchmarks.record import record_table
from tfctr.config import RunConfig, load_run, read_yaml
from tfctr.pipeline import Run

HEADERS = (
    "model",
    "backbone",
    "test AUC",
    "deviation",
    "over its backbone",
    "p",
    "log loss",
    "deviation",
    "AUC, unseen users",
    "AUC, rare items",
    "valid AUC",
)
NOTE = (
    "Means over seeds; p of Welch's t-test against the plain run of the same backbone on the same "
    "data config. Rare items: the least frequent, which together have a tenth of the training rows."
)


def row(
    config: RunConfig, found: list[dict[str, Any]], plain: list[dict[str, Any]] | None
) -> list[str]:
    def mean(key: str, seeds: list[dict[str, Any]] = found) -> float:
        return statistics.mean(seed[key] for seed in seeds)

    def spread(key: str) -> str:
        return f"{statistics.stdev(seed[key] for seed in found):.4f}" if len(found) > 1 else ""

    over, p = "", ""
    if plain is not None and plain is not found:
        over = f"{mean('auc') - mean('auc', plain):+.4f}"
        if len(found) > 1:
            test = ttest_ind(
                *([s["auc"] for s in seeds] for seeds in (found, plain)), equal_var=False
            )
            p = f"{test.pvalue:.3f}"
    return [
        config.name,
        config.model.backbone,
        f"{mean('auc'):.4f}",
        spread("auc"),
        over,
        p,
        f"{mean('log_loss'):.4f}",
        spread("log_loss"),
        f"{mean('auc_unseen_users'):.4f}",
        f"{mean('auc_rare_items'):.4f}",
        f"{mean('valid_auc'):.4f}",
    ]


def main() -> None:
    parser = seeds_parser(__doc__, "run configs")
    parser.add_argument("--section", required=True, help="of the record")
    args = parser.parse_args()

    console = Console()
    paths = [path for path in args.configs if "model" in read_yaml(path)]
    configs = {path: load_run(path) for path in paths}
    seeds = range(1, args.seeds + 1)
    share_cores(args.processes)
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for config in configs.values():
            Run(config, work, console).prepare()

        def train(path: Path, seed: int) -> dict[str, Any]:
            found = train_seed(path, seed, work)
            console.print(f"{configs[path].name}, seed {seed}: test AUC {found['auc']:.4f}")
            return found

        def hints(path: Path) -> None:
            train_process(path, 1, work, "hints")

        def imitate(path: Path, seed: int) -> None:
            train_process(path, seed, work, "knowledge")

        def pretrain(path: Path, seed: int) -> None:
            train_process(path, seed, work, "pretraining")

        # What several students share is made before them, each part once.
        students = [path for path, config in configs.items() if _knowledge(config)]
        teachers = {_knowledge(configs[path]).teacher.name: path for path in students}
        bases = {_knowledge(configs[path]).name: path for path in students}
        before = {path: Run(config, work, console).pretraining for path, config in configs.items()}
        shared = {made.folder: path for path, made in before.items() if made and made.comes_before}
        with ThreadPoolExecutor(args.processes) as pool:
            _all(pool.submit(hints, path) for path in teachers.values())
            _all(pool.submit(imitate, path, seed) for path in bases.values() for seed in seeds)
            _all(pool.submit(pretrain, path, seed) for path in shared.values() for seed in seeds)
            started = {path: [pool.submit(train, path, seed) for seed in seeds] for path in paths}
            found = {path: _all(futures) for path, futures in started.items()}
    plain = {
        _rows_and_backbone(config): found[path]
        for path, config in configs.items()
        if config.framework is None and config.similar is None
    }
    table = [
        row(config, found[path], plain.get(_rows_and_backbone(config)))
        for path, config in configs.items()
    ]
    for cells in (HEADERS, *table):
        console.print(" | ".join(cells))
    if args.record:
        record_table(
            args.section, "benchmarks.students", HEADERS, table, f"seeds 1-{args.seeds}", NOTE
        )


def _rows_and_backbone(config: RunConfig) -> tuple[str, str]:
    return config.data.name, config.model.backbone


def _knowledge(config: RunConfig) -> Any:
    """The config of a knowledge base that is trained before the student."""
    return config.knowledge if config.knowledge and config.knowledge.is_pretrained else None


def _all(futures: Iterable[Any]) -> list[Any]:
    return [future.result() for future in list(futures)]


if __name__ == "__main__":
    main()
