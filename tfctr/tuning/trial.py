"""A trial: a run for each seed, their mean measures, and their models."""

import shutil
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from tfctr.config import RunConfig
from tfctr.data.manifest import read_manifest
from tfctr.stages import Run, Train, build
from tfctr.stages.student import reason
from tfctr.training.earlier_model import VOCABULARIES

MEASURES = (
    "valid_auc",
    "valid_auc_deviation",  # over seeds; None for a single one
    "valid_log_loss",
    "valid_gauc",  # None where it is undefined
    "best_epoch",  # from 1
    "seconds",  # of training, over all seeds
    "parameters",
)


def name_of(number: int, seed: int) -> str:
    """The name of a trial's run, and of its folder."""
    return f"trial-{number:04d}-seed-{seed}"


def train(configs: Iterable[RunConfig], folder: Path, work: Path, console: Console) -> Any:
    """Trains the runs of a trial in folders of their names.

    Args:
        configs: of the runs; if one is refused, the trial fails.
        folder: of the runs' folders.
        work: of the dataset and of the methods' stages, which trials share.
        console: for progress.

    Returns:
        By name: `MEASURES`, means over the runs at their best epochs, and an empty `failed`; or
        only `failed`, the reason.
    """
    import keras
    import tensorflow as tf

    found = []
    try:
        for config in configs:
            keras.utils.clear_session()  # else every trial's model stays in memory
            run = Run(config, work, console)
            earlier = run.earlier.trained if run.earlier else None
            stage = Train(config, folder, run.dataset, run.before, earlier)
            build(stage, console)
            found.append(read_manifest(stage.manifest_path) or {})
    except (ValueError, tf.errors.ResourceExhaustedError) as error:
        return {"failed": reason(error)}
    best = [manifest["epochs"][manifest["best_epoch"] - 1] for manifest in found]
    aucs = [epoch["valid_auc"] for epoch in best]
    gaucs = [epoch["valid_gauc"] for epoch in best if "valid_gauc" in epoch]
    seconds = sum(epoch["seconds"] for manifest in found for epoch in manifest["epochs"])
    return {
        "valid_auc": statistics.mean(aucs),
        "valid_auc_deviation": statistics.stdev(aucs) if len(aucs) > 1 else None,
        "valid_log_loss": statistics.mean(epoch["valid_log_loss"] for epoch in best),
        "valid_gauc": statistics.mean(gaucs) if gaucs else None,
        "best_epoch": statistics.mean(manifest["best_epoch"] for manifest in found),
        "seconds": round(seconds, 3),
        "parameters": found[0]["parameters"],
        "failed": "",
    }


def remove_models(folder: Path, numbers: Iterable[int]) -> None:
    """Deletes all files of trials but the history of their epochs, `train.json`."""
    for number in numbers:
        for path in folder.glob(f"trial-{number:04d}-seed-*/*"):
            if path.name != "train.json":
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def place_model(trained: Path, run_folder: Path) -> None:
    """Copies a trained model to where a run finds it as done."""
    if not (trained / "model.keras").is_file():
        return  # deleted since; `tfctr run` trains it again
    run_folder.mkdir(exist_ok=True)
    (run_folder / "train.json").unlink(missing_ok=True)
    shutil.copytree(trained / VOCABULARIES, run_folder / VOCABULARIES, dirs_exist_ok=True)
    for name in ("model.keras", "train.json"):  # the manifest last: it marks the model as complete
        shutil.copy(trained / name, run_folder / name)
