"""Students, their teachers and ablations against the same backbones without a method, over seeds.

    python -m benchmarks.students configs/demo/rok/*.yaml configs/demo/rok/ablations/*.yaml \\
        --section "ROK in the generated world" --seeds 5 --processes 2 --record

A student is compared with the plain run of its backbone on the same data config; with `--against`,
every row with that run, whose test rows must be the same. Differences are those of
`tfctr.metrics.paired_difference`: both models on the test rows of the same resampled users, and
seeds of each. A seed is that of the student and of what is trained before it, its teacher too.
Files that are no run configs are passed over. `--work` keeps what is trained: a second run goes on
behind it.
"""

import statistics
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.movielens.__main__ import of_seed, train_process, train_seed
from benchmarks.over_seeds import seeds_parser, share_cores
from benchmarks.record import interval_text, record_table
from tfctr import metrics
from tfctr.config import ConfigError, RunConfig, load_run, read_yaml
from tfctr.pipeline import Run

HEADERS = (
    "model",
    "backbone",
    "test AUC",
    "deviation",
    "over {baseline}",
    "p",
    "GAUC",
    "over {baseline}",
    "log loss",
    "AUC, unseen users",
    "AUC, rare items",
    "valid AUC",
)
NOTE = (
    "Means over seeds. In brackets: 95% intervals of resampled users and seeds, the same users for "
    "both models; p is of AUC, of the same resamples. What is trained before a student has the "
    "student's seed: ROK's teacher and its knowledge base, CTRL's and ClickPrompt's pre-training, "
    "SRP4CTR's encoder. A small encoder of texts that is trained here, or an encoder that similar "
    "rows are found by, is one for all seeds: its own spread is in no deviation and no p. Rare "
    "items: the least frequent, which together have a tenth of the training rows."
)


class Predictions(NamedTuple):
    """What the models of all seeds say of the test rows.

    Attributes:
        labels: `[N]`.
        users: `[N]`, or None where the data has no user.
        logits: `[seeds, N]`.
    """

    labels: np.ndarray
    users: np.ndarray | None
    logits: np.ndarray

    @classmethod
    def read(cls, folders: Iterable[Path]) -> "Predictions":
        """Of runs' folders, one a seed."""
        tables = [pq.read_table(folder / "test.parquet") for folder in folders]
        first = tables[0]
        users = first["user_key"].to_numpy() if "user_key" in first.column_names else None
        logits = np.stack([table["logit"].to_numpy() for table in tables])
        return cls(first["label"].to_numpy(), users, logits)

    def over(self, other: "Predictions") -> dict[str, metrics.Difference]:
        """By how much these are better.

        Raises:
            ConfigError: they are of other rows.
        """
        mine, theirs = ((of.labels, of.users) for of in (self, other))
        if not all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True)):
            raise ConfigError("a row of the table has other test rows than what it is compared to")
        return metrics.paired_difference(self.labels, self.logits, other.logits, self.users)


def row(
    config: RunConfig,
    found: Sequence[dict[str, Any]],
    over: dict[str, metrics.Difference] | None,
) -> list[str]:
    """The cells of a model, from what `train_seed` found and what it is over its baseline."""

    def mean(key: str) -> str:
        return f"{statistics.mean(seed[key] for seed in found):.4f}"

    def difference(name: str) -> str:
        if over is None or name not in over:
            return ""
        return f"{over[name].mean:+.4f} ({interval_text((over[name].low, over[name].high))})"

    return [
        config.name,
        config.model.backbone,
        mean("auc"),
        f"{statistics.stdev(seed['auc'] for seed in found):.4f}" if len(found) > 1 else "",
        difference("auc"),
        f"{over['auc'].p:.3f}" if over else "",
        mean("gauc"),
        difference("gauc"),
        mean("log_loss"),
        mean("auc_unseen_users"),
        mean("auc_rare_items"),
        mean("valid_auc"),
    ]


def main() -> None:
    parser = seeds_parser(__doc__, "run configs")
    parser.add_argument("--section", required=True, help="of the record")
    parser.add_argument("--against", type=Path, help="the run config to compare every row with")
    args = parser.parse_args()

    console = Console()
    given = [*args.configs, args.against] if args.against else args.configs
    paths = [path for path in dict.fromkeys(given) if "model" in read_yaml(path)]
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

        def hints(path: Path, seed: int) -> None:
            train_process(path, seed, work, "hints")

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
            _all(pool.submit(hints, path, seed) for path in teachers.values() for seed in seeds)
            _all(pool.submit(imitate, path, seed) for path in bases.values() for seed in seeds)
            _all(pool.submit(pretrain, path, seed) for path in shared.values() for seed in seeds)
            started = {path: [pool.submit(train, path, seed) for seed in seeds] for path in paths}
            found = {path: _all(futures) for path, futures in started.items()}
        said = {
            path: Predictions.read(Run(of_seed(path, seed), work).folder for seed in seeds)
            for path in paths
        }
    plain = {
        _rows_and_backbone(config): path
        for path, config in configs.items()
        if config.framework is None and config.similar is None
    }
    table = []
    for path, config in configs.items():
        baseline = args.against or plain.get(_rows_and_backbone(config))
        compared = baseline is not None and baseline != path
        over = said[path].over(said[baseline]) if compared else None
        table.append(row(config, found[path], over))
    baseline_name = configs[args.against].name if args.against else "its backbone"
    headers = [header.format(baseline=baseline_name) for header in HEADERS]
    for cells in (headers, *table):
        console.print(" | ".join(cells))
    if args.record:
        record_table(
            args.section, "benchmarks.students", headers, table, f"seeds 1-{args.seeds}", NOTE
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
