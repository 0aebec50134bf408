"""Shows the progress of an epoch: a progress bar, and TensorBoard's curves."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tfctr.config import ConfigError, Training
from tfctr.training.checkpoint import TrainingState
from tfctr.training.optimizer import steps_done


class ProgressCallback(keras.callbacks.Callback):
    """After each step: counts it, updates the progress bar, and may write a checkpoint.

    Args:
        state: of the training; its `step` is counted up.
        config: `checkpoint_steps` and `batch_size` are used.
        steps: int. Number of steps of the whole epoch.
        bar: from `progress_bar`.
        save: writes a checkpoint; None in a worker that writes nothing.
        board: from `open_board`, or None.

    Attributes:
        since: text, e.g. ", by step 32 of 100", once the loss is not finite; "" until then.
    """

    def __init__(
        self,
        state: TrainingState,
        config: Training,
        steps: int,
        bar: Progress,
        save: Callable[[], None] | None,
        board: Any,
    ) -> None:
        super().__init__()
        self.state = state
        self.config = config
        self.steps = steps
        self.bar = bar
        self.save = save
        self.board = board
        self.task = bar.add_task(
            f"epoch {state.epoch + 1}",
            total=steps,
            completed=state.step,
            rate=0.0,
            loss=0.0,
        )
        self.start, self.first = time.perf_counter(), state.step
        self.since = ""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        state = self.state
        state.step += 1
        if state.step % 16 == 0:
            done = (state.step - self.first) * self.config.batch_size
            rate = done / (time.perf_counter() - self.start)
            loss = float((logs or {}).get("loss", 0.0))  # the mean of the epoch so far
            if not math.isfinite(loss) and not self.since:
                self.since = f", by step {state.step} of {self.steps}"
            self.bar.update(self.task, completed=state.step, rate=rate, loss=loss)
            if self.board:
                scalars = {"loss_so_far": loss, "examples_per_second": rate}
                write_scalars(self.board, steps_done(self.model), scalars)
        # After the last step the epoch is validated, and then a checkpoint is always written.
        if self.save and state.step % self.config.checkpoint_steps == 0 and state.step < self.steps:
            self.save()


def progress_bar(console: Console) -> Progress:
    """A bar with steps, loss and examples per second; hidden if the console is no terminal."""
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


def open_board(folder: Path) -> Any:
    """A writer of TensorBoard's files.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise ConfigError(
            "training.tensorboard: TensorBoard is not installed; `pip install 'tfctr[tensorboard]'`"
        ) from None
    return tf.summary.create_file_writer(str(folder))


def write_scalars(board: Any, step: int, values: dict[str, float]) -> None:
    """Writes the values of a step for TensorBoard."""
    with board.as_default():
        for name, value in values.items():
            tf.summary.scalar(name, value, step=step)
    board.flush()
