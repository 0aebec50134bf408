"""What stages have in common: a manifest that says when one is done, and training as a stage."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from tfctr.config import Training
from tfctr.data.manifest import read_manifest, write_manifest


def is_done(manifest_path: Path, key: str, artefact: Path) -> bool:
    """Whether a stage left its artefact, made from what `key` is the digest of."""
    manifest = read_manifest(manifest_path)
    return manifest is not None and manifest.get("key") == key and artefact.exists()


@contextmanager
def alone(folder: Path, console: Console) -> Iterator[None]:
    """Lets one process at a time make what is in a folder; the others wait till it ends or dies.

    Without this, one would take what the other is writing for what a killed one left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"waits for another process that is at work in {folder}", soft_wrap=True)
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def train_stage(
    make: Callable[[], Any],
    data: Any,
    config: Training,
    path: Path,
    key: str,
    about: dict[str, Any],
    console: Console,
    save: Callable[[Any, str], None],
    objective: Callable[[Any], Any] | None = None,
) -> Path:
    """Trains a model and puts what `save` writes of it at `path`, and `train.json` beside it."""
    import keras

    from tfctr import distribution
    from tfctr.training import Clicks, clean_up, train

    folder = path.parent
    strategy = distribution.open_strategy(config.strategy)
    is_one_of_many = distribution.part(strategy).workers > 1  # all at work in this folder
    with nullcontext() if is_one_of_many else alone(folder, console):
        if not is_one_of_many and is_done(folder / "train.json", key, path):
            return path  # another process has made it meanwhile
        keras.utils.set_random_seed(config.seed)
        with strategy.scope(), _precision(config.precision):
            model = make()
            model.build()
        writes = distribution.is_chief(strategy)
        checkpoint_key, manifest_path = folder / "checkpoint.key", folder / "train.json"
        if writes:
            folder.mkdir(parents=True, exist_ok=True)
            if not checkpoint_key.is_file() or checkpoint_key.read_text() != key:
                clean_up(folder)  # of another config
            checkpoint_key.write_text(key)
            manifest_path.unlink(missing_ok=True)
        distribution.wait(strategy)
        purpose = objective(model) if objective else Clicks(data, config, model.reads)
        progressed = train(model, data, config, folder, console, purpose)
        if writes:
            temporary = path.with_suffix(f".part{path.suffix}")
            save(model, str(temporary))
            if path.is_dir():
                shutil.rmtree(path)
            temporary.rename(path)
            write_manifest(
                {
                    "key": key,
                    **about,
                    "training": config.model_dump(mode="json"),
                    "rows": {split: data.num_rows(split) for split in (config.rows, "valid")},
                    "parameters": model.count_params(),
                    "best_epoch": progressed.best_epoch + 1,
                    f"best_{purpose.chosen_by}": progressed.best_score,
                    "epochs": progressed.history,
                    "versions": versions(),
                },
                str(manifest_path),
            )
        distribution.wait(strategy)  # all have read the best weights
        if writes:
            clean_up(folder)
            checkpoint_key.unlink()
        return path


@contextmanager
def _precision(policy: str) -> Iterator[None]:
    """Layers made meanwhile compute in this precision."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def versions() -> dict[str, str]:
    import keras
    import tensorflow as tf

    import tfctr

    return {"tfctr": tfctr.__version__, "tensorflow": tf.__version__, "keras": keras.__version__}
