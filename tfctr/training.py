"""Training of a backbone: epochs, exact validation AUC, the best weights, resume after a kill."""

import io
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tfctr import metrics
from tfctr.backbones import Backbone
from tfctr.config import Optimizer, Training
from tfctr.data import files
from tfctr.data.dataset import Dataset
from tfctr.data.manifest import DataError
from tfctr.optimizers import LazyAdagrad, LazyAdam

EVALUATION_BATCH = 8192


@dataclass
class Progressed:
    """How far a training is; what a checkpoint holds beside the variables."""

    epoch: int = 0
    step: int = 0  # of the epoch
    best_epoch: int = -1
    best_auc: float = float("-inf")
    history: list[dict[str, float]] = field(default_factory=list)


def make_optimizer(config: Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer that a config names; the lazy ones touch only a batch's rows of a table."""
    rate = config.learning_rate
    if config.name == "lazy_adam":
        return LazyAdam(rate, embedding_l2=config.embedding_l2)
    if config.name == "lazy_adagrad":
        return LazyAdagrad(rate, embedding_l2=config.embedding_l2)
    return keras.optimizers.get({"class_name": config.name, "config": {"learning_rate": rate}})


def train(
    model: Backbone, data: Dataset, config: Training, folder: Path, console: Console
) -> Progressed:
    """Trains `model` in place and leaves it with the weights of the best validation AUC.

    A checkpoint in `folder` is gone on from; one is written every `checkpoint_steps` steps and
    after each epoch, and the result is the same as without the interruption.

    Args:
        model: not compiled yet; compiled here.
        data: its train and valid splits are read.
        config: how.
        folder: of the run; holds `checkpoint.npz` and `best.npz` meanwhile.
        console: for progress.

    Returns:
        The history: one dict an epoch with `loss`, `valid_auc`, `valid_log_loss`, `seconds`.

    Raises:
        DataError: the validation rows are all of one label; the training diverged.
    """
    model.build()
    model.compile(make_optimizer(config.optimizer))
    model.optimizer.build(model.trainable_variables)
    checkpoint, best = folder / "checkpoint.npz", folder / "best.npz"
    progressed = _restore(model, checkpoint) or Progressed()
    if progressed.epoch or progressed.step:
        console.print(f"goes on from epoch {progressed.epoch + 1}, step {progressed.step}")
    names = [feature.name for feature in model.schema.inputs]
    valid = data.valid(EVALUATION_BATCH, features=names)
    valid_labels = data.columns("valid", ["label"])["label"]
    if valid_labels.min() == valid_labels.max():
        raise DataError(
            f"{data.directory}: all {len(valid_labels):,} validation rows have the label "
            f"{valid_labels[0]:g}, so there is no AUC to choose an epoch by; widen split.valid"
        )
    while progressed.epoch < config.epochs:
        epoch = progressed.epoch
        if epoch - progressed.best_epoch > config.patience and progressed.best_epoch >= 0:
            break
        start = time.perf_counter()
        rows = data.train(
            config.batch_size, _epoch_seed(config.seed, epoch), names, config.in_memory
        )
        steps = -(-data.num_rows("train") // config.batch_size)
        with _progress(console) as bar:
            watcher = _Watcher(
                progressed, config, steps, bar, lambda: _save(model, progressed, checkpoint)
            )
            history = model.fit(
                rows.skip(progressed.step) if progressed.step else rows,
                epochs=1,
                verbose=0,
                shuffle=False,
                callbacks=[watcher],
            )
        logits = predict(model, valid, "validation", console)
        if not np.isfinite(logits).all():
            raise DataError(
                f"epoch {epoch + 1}: the model's logits are no longer finite; lower "
                "training.optimizer.learning_rate"
            )
        auc = metrics.auc(valid_labels, logits)
        progressed.history.append(
            {
                "loss": float(history.history["loss"][0]),
                "valid_auc": auc,
                "valid_log_loss": metrics.log_loss(valid_labels, logits),
                "seconds": round(time.perf_counter() - start, 3),
            }
        )
        if auc > progressed.best_auc:
            progressed.best_epoch, progressed.best_auc = epoch, auc
            _write_arrays(best, dict(_arrays(model.variables)))
        progressed.epoch, progressed.step = epoch + 1, 0
        _save(model, progressed, checkpoint)
        last = progressed.history[-1]
        console.print(
            f"epoch {epoch + 1}: loss {last['loss']:.4f}, validation AUC {auc:.4f}"
            f"{' (best)' if progressed.best_epoch == epoch else ''}, "
            f"{data.num_rows('train') / last['seconds']:,.0f} examples/s"
        )
    _assign(model.variables, np.load(best))
    return progressed


def predict(model: Backbone, batches: Any, what: str, console: Console) -> np.ndarray:
    """Logits `[N]` of batches whose number is known, with a progress bar."""
    steps = int(batches.cardinality())
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=steps)
        advance = keras.callbacks.LambdaCallback()
        advance.on_predict_batch_end = lambda batch, logs=None: bar.advance(task)
        return np.asarray(model.predict(batches, verbose=0, callbacks=[advance]))


def clean_up(folder: Path) -> None:
    """Removes the checkpoint of a training whose model is saved."""
    for name in ("checkpoint.npz", "best.npz"):
        (folder / name).unlink(missing_ok=True)


class _Watcher(keras.callbacks.Callback):
    """After each step: the progress bar, and now and then a checkpoint."""

    def __init__(
        self, progressed: Progressed, config: Training, steps: int, bar: Progress, save: Any
    ) -> None:
        super().__init__()
        self.progressed = progressed
        self.config = config
        self.bar = bar
        self.save = save
        self.task = bar.add_task(
            f"epoch {progressed.epoch + 1}",
            total=steps,
            completed=progressed.step,
            rate=0.0,
            loss=0.0,
        )
        self.start, self.first = time.perf_counter(), progressed.step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        state = self.progressed
        state.step += 1
        if state.step % 16 == 0:
            done = (state.step - self.first) * self.config.batch_size
            rate = done / (time.perf_counter() - self.start)
            self.bar.update(
                self.task, completed=state.step, rate=rate, loss=(logs or {}).get("loss", 0.0)
            )
        if state.step % self.config.checkpoint_steps == 0:
            self.save()


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps"),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TextColumn("{task.fields[rate]:,.0f} examples/s"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _epoch_seed(seed: int, epoch: int) -> int:
    return seed * 100_003 + epoch


def _arrays(variables: list[Any]) -> Iterator[tuple[str, np.ndarray]]:
    # By place: paths are not unique among an optimizer's slots.
    for i, variable in enumerate(variables):
        yield str(i), np.asarray(keras.ops.convert_to_numpy(variable))


def _assign(variables: list[Any], arrays: Any) -> None:
    for i, variable in enumerate(variables):
        variable.assign(arrays[str(i)])


def _save(model: Backbone, progressed: Progressed, path: Path) -> None:
    arrays = dict(_arrays([*model.variables, *model.optimizer.variables]))
    state = np.frombuffer(json.dumps(asdict(progressed)).encode(), np.uint8)
    _write_arrays(path, arrays | {"state": state})


def _write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)
    files.write(str(path), content.getbuffer())


def _restore(model: Backbone, path: Path) -> Progressed | None:
    """Takes the variables of a checkpoint, if there is one that fits."""
    if not path.is_file():
        return None
    arrays = np.load(path, allow_pickle=False)
    variables = [*model.variables, *model.optimizer.variables]
    if len(arrays.files) != len(variables) + 1:
        return None
    _assign(variables, arrays)
    return Progressed(**json.loads(arrays["state"].tobytes()))
