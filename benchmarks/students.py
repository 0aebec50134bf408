"""Students, their teachers and ablations against the same backbones without a method, over seeds.

    python -m benchmarks.students configs/demo/srp4ctr/{backbones,dcnv2}.yaml \\
        --section "SRP4CTR in the generated world" --seeds 2 --processes 2 --record

A student is compared with the plain run of its backbone on the same data config; with `--against`,
every row with that run, whose test rows must be the same. Differences are those of
`tfctr.metrics.paired_difference`: both models on the test rows of the same resampled users, and
seeds of each. A seed is that of the student and of what is trained before it, its teacher too.
A file that has variants stands for these, `file.yaml#name` for one of them, and `file.yaml#` for
the file without them; files that are no run configs are passed over. `--work` keeps what is
trained: a second run goes on behind it. With `--trees` each student of the method `statistics` has
two rows more: LightGBM on what it reads (`benchmarks.trees`), and the mean of both models' logits.
With `--fuxictr-python` each DIN and DCNv2 without a method has FuxiCTR's (`benchmarks.fuxictr`).
With `--segment` the AUC of a segment of the test rows is compared too, e.g. `unseen_items`.

The tables are of these configs, in a shell with `m=configs/movielens-1m d=configs/demo`:

- ROK on MovieLens 1M: `$m/rok/{dcnv2,backbones}.yaml $m/rok/rim.yaml#`
- RIM and ROK, second form, on MovieLens 1M: `$m/rok/second-form/dcnv2.yaml#{,plain,clicks,given}
  $m/statistics/dcnv2.yaml# --against $m/rok/second-form/dcnv2.yaml#plain`
- ROK's ablations on MovieLens 1M: `$m/rok/backbones.yaml#plain-dcnv2 $m/rok/dcnv2.yaml
  $m/rok/ablations.yaml#{instance,feature,tuned,clicks,no-imitation,random}`
- ROK in the generated world: `$d/rok/{dcnv2,backbones,rim}.yaml`
- CTRL and ClickPrompt on MovieLens 1M: `$m/ctrl/{dcnv2,backbones}.yaml $m/clickprompt/dcnv2.yaml#
  $m/clickprompt/backbones.yaml`
- CTRL and ClickPrompt in the world of titles: `$d/titles/{compared,clickprompt-dcnv2}.yaml`
- ClickPrompt's ablations, language model served:
  `$d/titles/compared.yaml#{plain-dcnv2,clickprompt-dcnv2-language}
  $d/titles/ablations.yaml#no-pretraining`
- ClickPrompt on MovieLens 100K, with `k=configs/movielens-100k`:
  `$k/dcnv2.yaml# $k/dcnv2.yaml#{clickprompt,language,distilled} --against $k/dcnv2.yaml#`; served
  without its language model, of more seeds: `$k/dcnv2.yaml# $k/dcnv2.yaml#clickprompt`
- Cold movies: `$m/cold.yaml --against $m/cold.yaml#attributes --segment unseen_items`, after the
  command at the top of that file
- SRP4CTR in the generated world: `$d/srp4ctr/{backbones,dcnv2}.yaml`
- SRP4CTR's ablations in the generated world:
  `$d/srp4ctr/{backbones.yaml#plain-dcnv2,dcnv2.yaml,ablations.yaml}`
- DIN and SRP4CTR on MovieLens 1M:
  `$m/backbones.yaml#din $m/srp4ctr/din.yaml $m/srp4ctr/dcnv2.yaml#{,plain}
  --against $m/backbones.yaml#din`
- SRP4CTR with DCNv2 on MovieLens 1M: `$m/srp4ctr/dcnv2.yaml#{,plain}`
- A compact optimizer state on MovieLens 1M: `$m/{dcnv2,compact}.yaml --against $m/dcnv2.yaml`
- Training in bfloat16 on MovieLens 1M: `$m/{dcnv2,bfloat16}.yaml --against $m/dcnv2.yaml`
- Statistics on MovieLens 1M: `$m/statistics/dcnv2.yaml# $m/backbones.yaml#din
  $m/srp4ctr/dcnv2.yaml#plain --against $m/statistics/dcnv2.yaml#`
- Statistics' ablations on MovieLens 1M: `$m/statistics/{dcnv2.yaml#,ablations.yaml}
  --against $m/statistics/dcnv2.yaml#`
- Statistics and trees on MovieLens 1M:
  `$m/statistics/dcnv2.yaml# --against $m/statistics/dcnv2.yaml# --trees`
- Statistics and trees under ReLLa's protocol: `$m/rella/dcnv2.yaml --against $m/rella/dcnv2.yaml
  --trees`
- Statistics in the generated world: `$d/statistics/dcnv2.yaml#{,stack} $d/srp4ctr/dcnv2.yaml
  $d/srp4ctr/backbones.yaml#{plain-din,plain-dcnv2} --against $d/srp4ctr/dcnv2.yaml --trees`
- The stack on MovieLens 1M:
  `$m/stack.yaml#{statistics,} --against $m/stack.yaml#statistics --trees`
- Distilled students on MovieLens 1M: `$m/statistics/dcnv2.yaml#{,distilled,plain,plain-distilled}
  --against $m/statistics/dcnv2.yaml#`
- Distilled students in the generated world: `$d/srp4ctr/backbones.yaml#plain-dcnv2
  $d/statistics/dcnv2.yaml#{distilled,} --against $d/srp4ctr/backbones.yaml#plain-dcnv2`
- Small students on MovieLens 1M: `$m/statistics/dcnv2.yaml#{,half,small,small-distilled}
  --against $m/statistics/dcnv2.yaml#`
"""

import statistics
import tempfile
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.fuxictr import BACKBONES as FUXICTR_BACKBONES
from benchmarks.fuxictr import FuxiCTR
from benchmarks.movielens.__main__ import (
    measured,
    of_seed,
    run_process,
    train_process,
    train_seed,
)
from benchmarks.over_seeds import expanded, seeds_parser, share_cores
from benchmarks.record import difference_text, record_table
from benchmarks.trees import NOTE as TREES_NOTE
from benchmarks.trees import references
from tfctr import metrics
from tfctr.comparison import ScoredRows
from tfctr.config import RunConfig, load_run
from tfctr.stages import Run, build, in_order

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


def row(
    name: str,
    backbone: str,
    found: Sequence[dict[str, Any]],
    over: dict[str, metrics.Difference] | None,
    segment: str | None = None,
    over_on_segment: dict[str, metrics.Difference] | None = None,
) -> list[str]:
    """The cells of a model, from what was measured of each seed and what it is over its baseline,
    on all rows and on those of a segment."""

    def mean(key: str) -> str:
        return f"{statistics.mean(seed[key] for seed in found):.4f}"

    def difference(name: str, over: dict[str, metrics.Difference] | None = over) -> str:
        if over is None or name not in over:
            return ""
        return difference_text(over[name].mean, (over[name].low, over[name].high))

    of_segment = [mean(f"auc_{segment}"), difference("auc", over_on_segment)] if segment else []
    return [
        name,
        backbone,
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
        *of_segment,
    ]


def main() -> None:
    parser = seeds_parser(__doc__, "run configs")
    parser.add_argument("--section", required=True, help="of the record")
    parser.add_argument("--against", type=Path, help="the run config to compare every row with")
    parser.add_argument("--trees", action="store_true", help="LightGBM on what students read")
    parser.add_argument("--fuxictr-python", help="an interpreter that has FuxiCTR")
    parser.add_argument("--segment", help="of the test rows, whose AUC is compared too")
    args = parser.parse_args()
    if args.trees and find_spec("lightgbm") is None:
        parser.error("--trees: needs LightGBM; pip install 'tfctr[benchmarks]'")

    console = Console()
    against = [args.against] if args.against else []
    paths = list(dict.fromkeys([*expanded(args.configs), *against]))
    configs = {path: load_run(path) for path in paths}
    for path, config in configs.items() if args.trees else ():
        if (method := config.method("statistics")) and not method.stored:
            parser.error(f"--trees: {path}: trees read stored numbers; write stored: true")
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

        with ThreadPoolExecutor(args.processes) as pool:
            for level in _shared(configs, seeds, work):  # each part once, before its students
                _all(
                    pool.submit(train_process, path, seed, work, what) for path, seed, what in level
                )
            _all(pool.submit(train, path, seed) for path in paths for seed in seeds)
            _all(
                pool.submit(run_process, "benchmarks.trees", path, seed, work)
                for path, config in configs.items()
                for seed in seeds
                if args.trees and config.method("statistics")
            )
            _all(
                pool.submit(build, _fuxictr(config, seed, work, args.fuxictr_python), console)
                for config in configs.values()
                for seed in seeds
                if args.fuxictr_python and _has_peer(config)
            )
        plain = {
            _rows_and_backbone(config): path
            for path, config in configs.items()
            if not config.frameworks
        }
        table = []
        for path, config in configs.items():
            baseline = args.against or plain.get(_rows_and_backbone(config))
            for name, backbone, folders in _models(config, seeds, work, args):
                over = on_segment = None
                if baseline is not None and (baseline != path or name != config.name):
                    ours = ScoredRows.read(folders)
                    theirs = ScoredRows.read(_folders(configs[baseline], seeds, work))
                    over = ours.over(theirs)
                    if args.segment:
                        theirs = theirs.of_segment(args.segment)
                        on_segment = ours.of_segment(args.segment).over(theirs)
                found = [measured(folder) for folder in folders]
                table.append(row(name, backbone, found, over, args.segment, on_segment))
    baseline_name = configs[args.against].name if args.against else "its backbone"
    more = (f"AUC, {args.segment.replace('_', ' ')}", "over {baseline}") if args.segment else ()
    headers = [header.format(baseline=baseline_name) for header in (*HEADERS, *more)]
    for cells in (headers, *table):
        console.print(" | ".join(cells))
    if args.record:
        note = f"{NOTE} {TREES_NOTE}" if args.trees else NOTE
        record_table(
            args.section, "benchmarks.students", headers, table, f"seeds 1-{args.seeds}", note
        )


def _folders(config: RunConfig, seeds: Iterable[int], work: Path) -> list[Path]:
    return [Run(of_seed(config, seed), work).folder for seed in seeds]


def _models(
    config: RunConfig, seeds: Iterable[int], work: Path, args: Namespace
) -> Iterator[tuple[str, str, list[Path]]]:
    """The name, the backbone and the folders, one a seed, of each model that a config has a row
    for."""
    name, backbone = config.name, config.model.backbone
    yield name, backbone, _folders(config, seeds, work)
    if args.trees and config.method("statistics"):
        of_seeds = [references(of_seed(config, seed), work) for seed in seeds]
        alone, both = ([stage.folder for stage in stages] for stages in zip(*of_seeds, strict=True))
        yield f"trees on the numbers of {name}", "LightGBM", alone
        yield f"mean of both: {name}", f"{backbone}, LightGBM", both
    if args.fuxictr_python and _has_peer(config):
        stages = [_fuxictr(config, seed, work, args.fuxictr_python) for seed in seeds]
        peer = f"FuxiCTR's {FUXICTR_BACKBONES[backbone]}"
        yield peer, backbone, [stage.folder for stage in stages]


def _has_peer(config: RunConfig) -> bool:
    return not config.frameworks and config.model.backbone in FUXICTR_BACKBONES


def _fuxictr(config: RunConfig, seed: int, work: Path, python: str) -> FuxiCTR:
    return FuxiCTR(of_seed(config, seed), work, python)


def _rows_and_backbone(config: RunConfig) -> tuple[str, str]:
    return config.data.name, config.model.backbone


def _shared(
    configs: Mapping[Path, RunConfig], seeds: Iterable[int], work: Path
) -> list[list[tuple[Path, int, str]]]:
    """The trainings before the students', each once, level by level: what a later level reads is of
    an earlier one."""
    found: dict[Path, tuple[int, tuple[Path, int, str]]] = {}
    for path, config in configs.items():
        for seed in seeds:
            stages = in_order(Run(of_seed(config, seed), work).trained)[:-1]
            for level, stage in enumerate(stages):
                if not stage.is_data:
                    what = f"{stage.folder.name}/{stage.name}"
                    found.setdefault(stage.manifest_path, (level, (path, seed, what)))
    levels = sorted({level for level, _ in found.values()})
    return [[made for at, made in found.values() if at == level] for level in levels]


def _all(futures: Iterable[Any]) -> list[Any]:
    return [future.result() for future in list(futures)]


if __name__ == "__main__":
    main()
