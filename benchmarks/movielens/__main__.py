"""Test AUC and log loss on MovieLens 1M under the papers' protocol, over seeds.

    python -m benchmarks.movielens configs/movielens-1m/{dcnv2,backbones}.yaml \\
        --seeds 5 --processes 2 --record

Each seed trains the config's model from scratch; the epoch is chosen by validation AUC. A file that
has variants stands for these; data configs are passed over. `--work` keeps what is trained: a
second run goes on behind it. `--fuxictr-python` names an interpreter that has FuxiCTR (see
`benchmarks.fuxictr`): its DCNv2 is then trained on the same rows, with the dropout, learning
rate and L2 that `configs/movielens-1m/dcnv2.yaml` found best.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from rich.console import Console

from benchmarks.fuxictr import FuxiCTR
from benchmarks.over_seeds import expanded, seeds_parser, share_cores
from benchmarks.record import record_table
from tfctr.config import Training, load_run
from tfctr.data.manifest import read_manifest
from tfctr.language.config import TextConfig
from tfctr.retrieval.config import RetrievalConfig
from tfctr.stages import Run, build

Model = TypeVar("Model", bound=BaseModel)
FUXICTR = "FuxiCTR DCNv2"
DCNV2 = Path(__file__).parents[2] / "configs" / "movielens-1m" / "dcnv2.yaml"
HEADERS = (
    "model",
    "test AUC",
    "deviation",
    "± of users",
    "test log loss",
    "deviation",
    "GAUC",
    "valid AUC",
    "best epoch",
    "parameters",
)


def of_seed(config: Model, seed: int) -> Model:
    """A config whose trainings have the seed, those of all that it is trained from too, each with a
    name of its own. A training whose own seed is 101 has one that is 100 higher, so that teachers
    of several seeds differ. Texts and similar rows are the same for all seeds."""

    def changed(value: Any) -> Any:
        if isinstance(value, Training):
            return value.model_copy(update={"seed": seed + value.seed - 1})
        if isinstance(value, tuple):
            return tuple(changed(part) for part in value)
        if not isinstance(value, BaseModel) or isinstance(value, TextConfig | RetrievalConfig):
            return value
        changes = {
            key: new
            for key in type(value).model_fields
            if (new := changed(old := getattr(value, key))) is not old and new != old
        }
        if isinstance(getattr(value, "training", None), Training):
            changes |= {"training": changed(value.training)}  # type: ignore[attr-defined]
            if isinstance(getattr(value, "name", None), str):
                changes["name"] = f"{value.name}-seed-{seed}"  # type: ignore[attr-defined]
        return value.model_copy(update=changes) if changes else value

    found: Model = changed(config)
    return found


def train_seed(path: Path, seed: int, work: Path) -> dict[str, Any]:
    """What evaluation found of one seed's model, trained in a process of its own."""
    run = Run(of_seed(load_run(path), seed), work, Console(quiet=True))
    train_process(path, seed, work)
    trained = json.loads((run.folder / "train.json").read_text())
    return measured(run.folder) | {name: trained[name] for name in ("best_epoch", "parameters")}


def measured(folder: Path) -> dict[str, Any]:
    """What evaluation found of the model in a folder."""
    found = json.loads((folder / "metrics.json").read_text())
    test = {name: found["test"][name] for name in ("auc", "log_loss", "gauc")}
    for segment, measures in found["test"]["segments"].items():
        test[f"auc_{segment}"] = measures["auc"]
    return test | {
        "half_interval": half(found["test"]["intervals"]["auc"]),
        "valid_auc": found["valid"]["auc"] if "valid" in found else _chosen_by(folder),
    }


def _chosen_by(folder: Path) -> float:
    """The validation AUC that a refitted model's epochs were chosen by."""
    trained = json.loads((folder / "train.json").read_text())
    found: float = trained["epochs"][trained["best_epoch"] - 1]["valid_auc"]
    return found


def half(interval: Sequence[float]) -> float:
    """Half the width of an interval."""
    return (interval[1] - interval[0]) / 2


def train_process(path: Path, seed: int, work: Path, what: str = "run") -> None:
    """Trains in a process of its own; see `benchmarks.movielens.train`."""
    run_process("benchmarks.movielens.train", path, seed, work, what)


def run_process(module: str, path: Path, seed: int, *more: Any) -> None:
    """Runs a module in a process of its own, on a config and a seed.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", module, str(path), str(seed), *map(str, more)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{path}, seed {seed}: {done.stderr[-2000:]}")


def train_fuxictr(python: str, seed: int, work: Path) -> dict[str, Any]:
    """The same of FuxiCTR's DCNv2."""
    stage = FuxiCTR(of_seed(load_run(DCNV2), seed), work, python)
    build(stage, Console(quiet=True))
    manifest = read_manifest(stage.manifest_path) or {}
    return measured(stage.folder) | {n: manifest[n] for n in ("best_epoch", "parameters")}


def row(name: str, found: list[dict[str, Any]]) -> list[str]:
    values = {key: [seed[key] for seed in found] for key in found[0]}
    mean = {key: statistics.mean(v) for key, v in values.items()}
    spread = {key: statistics.stdev(v) if len(v) > 1 else float("nan") for key, v in values.items()}
    return [
        name,
        f"{mean['auc']:.4f}",
        f"{spread['auc']:.4f}",
        f"{mean['half_interval']:.4f}",
        f"{mean['log_loss']:.4f}",
        f"{spread['log_loss']:.4f}",
        f"{mean['gauc']:.4f}",
        f"{mean['valid_auc']:.4f}",
        f"{mean['best_epoch']:.1f}",
        f"{mean['parameters']:,.0f}",
    ]


def _short(path: Path) -> str:
    """What a config is called in the table: the variant, or the file."""
    return path.name.partition("#")[2] or path.stem


def main() -> None:
    parser = seeds_parser(__doc__, "run configs")
    parser.add_argument("--fuxictr-python", help="an interpreter that has FuxiCTR")
    args = parser.parse_args()

    console = Console()
    paths = {_short(path): path for path in expanded(args.configs)}
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for path in paths.values():
            Run(load_run(path), work, console).prepare()

        def train(path: Path, seed: int) -> dict[str, Any]:
            found = train_seed(path, seed, work)
            console.print(f"{_short(path)}, seed {seed}: test AUC {found['auc']:.4f}")
            return found

        def train_other(seed: int) -> dict[str, Any]:
            found = train_fuxictr(args.fuxictr_python, seed, work)
            console.print(f"{FUXICTR}, seed {seed}: test AUC {found['auc']:.4f}")
            return found

        seeds = range(1, args.seeds + 1)
        share_cores(args.processes)
        with ThreadPoolExecutor(args.processes) as pool:
            started = {
                name: [pool.submit(train, path, s) for s in seeds] for name, path in paths.items()
            }
            if args.fuxictr_python:
                started[FUXICTR] = [pool.submit(train_other, s) for s in seeds]
            found = {name: [seed.result() for seed in futures] for name, futures in started.items()}
    table = [row(name, of_seeds) for name, of_seeds in found.items()]
    table.sort(key=lambda cells: cells[1], reverse=True)
    for cells in (HEADERS, *table):
        console.print(" | ".join(cells))
    if args.record:
        note = (
            "Means and deviations over seeds; tuned on validation rows, `configs/movielens-1m`. "
            "± of users: half the 95% interval of one seed's test AUC, by resampled users; what "
            "two models differ by on the same users varies less."
        )
        record_table(
            "MovieLens 1M", "benchmarks.movielens", HEADERS, table, f"seeds 1-{args.seeds}", note
        )


if __name__ == "__main__":
    main()
