"""The training loop: epochs, validation, the best weights, resuming after a kill."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from tfctr.config import Plateau, Training
from tfctr.data.dataset import Dataset
from tfctr.data.manifest import DataError
from tfctr.models.schema_model import SchemaModel
from tfctr.training import distribution
from tfctr.training.checkpoint import TrainingState, load_weights, restore, save, save_weights
from tfctr.training.divergence import Diverged, has_finite_weights
from tfctr.training.objectives import Objective
from tfctr.training.optimizer import make_optimizer, steps_done
from tfctr.training.predict import traced
from tfctr.training.progress import ProgressCallback, open_board, progress_bar, write_scalars
from tfctr.training.unknown_ids import with_unknown_ids


def train(
    model: SchemaModel,
    data: Dataset,
    config: Training,
    folder: Path,
    console: Console,
    objective: Objective,
    first: TrainingState | None = None,
) -> TrainingState:
    """Trains `model` in place and leaves it with the weights of the best epoch.

    It resumes from a checkpoint in `folder`. One is written every `checkpoint_steps` steps and
    after each epoch, and the result is the same as without the interruption. A model created in the
    scope of a `tf.distribute` strategy is trained by all its replicas; then all workers must share
    `folder`, and only the first one writes there.

    Args:
        model: not compiled yet; compiled here.
        data: its train and valid splits are read.
        config: how.
        folder: of the run; holds `checkpoint.npz` and `best.npz` during the training.
        console: for progress.
        objective: the loss, and the metric that the best epoch is chosen by, e.g. `Clicks`.
        first: the end of a training that this one repeats up to its best epoch, on validation rows
            too. The learning rate takes the same course: a schedule still ends after
            `config.epochs`, and a plateau is where the first one had it. Defaults to none.

    Returns:
        The final state. Its `history` has one dict per epoch: `loss`, the objective's metrics (for
        clicks `valid_auc`, `valid_log_loss`, `valid_gauc`), `learning_rate`, `seconds`.

    Raises:
        DataError: the rows do not fit the objective; the training diverged, or a row has no finite
            score. The message names the epoch, and the extreme inputs, if any.
    """
    strategy = model.distribute_strategy
    epochs, prefix = config.epochs, ""
    splits: list[str] = [config.rows]
    if first:
        epochs, prefix = first.best_epoch + 1, "refit-"
        splits.append("valid")
    reader = _Reader(data, config, model.reads, strategy, splits)
    with strategy.scope():
        model.build()
        encoder = getattr(model, "encoder_variables", ())
        objective.compile(
            model, make_optimizer(config.optimizer, reader.steps, config.epochs, encoder)
        )
        model.optimizer.build(model.trainable_variables)
    checkpoint, best = folder / f"{prefix}checkpoint.npz", folder / f"{prefix}best.npz"
    state = restore(model, checkpoint) or TrainingState()
    if state.epoch or state.step:
        console.print(f"resumes at epoch {state.epoch + 1}, step {state.step}")
    writes = distribution.is_chief(strategy)
    curves = folder / f"{prefix}tensorboard"
    board = open_board(curves) if config.tensorboard and writes else None
    while state.epoch < epochs:
        epoch = state.epoch
        if epoch - state.best_epoch > config.patience and state.best_epoch >= 0:
            break
        start, rate = time.perf_counter(), _rate(model)
        rows, steps = reader.open(epoch, state.step)
        with progress_bar(console) as bar, traced(model, reader.steps * config.epochs):
            callback = ProgressCallback(
                state,
                config,
                state.step + steps,
                bar,
                (lambda: save(model, state, checkpoint)) if writes else None,
                board,
            )
            history = model.fit(
                rows,
                epochs=1,
                steps_per_epoch=steps,
                verbose=0,
                shuffle=False,
                callbacks=[callback],
            )
        seconds = time.perf_counter() - start
        when = f"epoch {epoch + 1}{callback.since}"
        try:
            if not has_finite_weights(model):
                raise Diverged("the model's weights")
            measures = objective.measure(model, console)
        except Diverged as error:
            raise error.during(when, data, model.reads) from None
        except DataError as error:
            raise DataError(f"{when}: {error}") from None
        score = distribution.agreed(strategy, measures[objective.chosen_by])
        state.history.append(
            {
                "loss": float(history.history["loss"][0]),
                **measures,
                objective.chosen_by: score,
                "learning_rate": rate,
                "seconds": round(time.perf_counter() - start, 3),
            }
        )
        is_best = state.best_epoch < 0 or objective.is_better(score, state.best_score)
        if is_best:
            state.best_epoch, state.best_score = epoch, score
            if writes:
                save_weights(model, best)
        on_plateau = _fell_after(epoch, first.history) if first else not is_best
        if on_plateau and isinstance(config.optimizer.schedule, Plateau):
            for optimizer in getattr(model.optimizer, "optimizers", [model.optimizer]):
                optimizer.learning_rate = optimizer.learning_rate * config.optimizer.schedule.factor
        state.epoch, state.step = epoch + 1, 0
        if writes:
            save(model, state, checkpoint)
        last = state.history[-1]
        if board:
            write_scalars(board, steps_done(model), last)
        console.print(
            f"epoch {epoch + 1}: loss {last['loss']:.4f}, "
            f"{objective.describe(last)}"
            f"{' (best)' if state.best_epoch == epoch else ''}, "
            f"{steps * config.batch_size / seconds:,.0f} examples/s"
        )
    distribution.wait(strategy)  # for the best weights to be written
    load_weights(model, best)
    objective.finish(model)
    return state


class _Reader:
    """Reads the batches of an epoch, after the steps that a checkpoint has done."""

    def __init__(
        self,
        data: Dataset,
        config: Training,
        names: Sequence[str],
        strategy: Any,
        splits: Sequence[str],
    ) -> None:
        self.data = data
        self.splits = splits
        self.config = config
        self.names = names
        self.strategy = strategy
        self.part = distribution.part(strategy)
        self._first = self._read(0)  # kept, because opening it costs as much as some steps
        self.steps = self._num_steps(self._first)

    def open(self, epoch: int, done: int) -> tuple[Any, int]:
        """The batches after the first `done` ones, and their number."""
        rows = self._read(epoch) if epoch else self._first
        steps = self._num_steps(rows) - done
        rows = rows.skip(done * self.part.replicas) if done else rows
        if self.strategy.num_replicas_in_sync > 1:
            rows = self.strategy.distribute_datasets_from_function(lambda _: rows)
        return rows, steps

    def _read(self, epoch: int) -> Any:
        seed = self.config.seed * 100_003 + epoch
        rows = self.data.train(
            self.config.batch_size,
            seed,
            self.names,
            self.config.in_memory,
            self.config.keep_negatives,
            self.part,
            self.splits,
            self.config.left_out,
        )
        return with_unknown_ids(rows, self.config.oov_rate, seed, self.part)

    def _num_steps(self, rows: Any) -> int:
        steps = int(rows.cardinality()) // self.part.replicas
        return min(steps, self.config.steps_per_epoch or steps)


def _fell_after(epoch: int, history: Sequence[Mapping[str, float]]) -> bool:
    """Whether the learning rate of a training fell after one of its epochs."""
    rates = [of["learning_rate"] for of in history[epoch : epoch + 2]]
    return rates[-1] < rates[0]


def _rate(model: SchemaModel) -> float:
    optimizer = model.optimizer
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        optimizer = optimizer._optimizer_map(None)  # of all variables except an encoder's
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))
