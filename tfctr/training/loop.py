"""Training: epochs, a measure of the validation rows, the best weights, resume after a kill."""

import io
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tfctr import metrics
from tfctr.config import ConfigError, Cosine, Exponential, Linear, Optimizer, Plateau, Training
from tfctr.data import files
from tfctr.data.dataset import Dataset
from tfctr.data.manifest import DataError
from tfctr.metrics.report import TITLES
from tfctr.models.click_model import ClickModel
from tfctr.models.losses import LogLoss
from tfctr.models.schema_model import SchemaModel
from tfctr.optimizers import LazyAdagrad, LazyAdam
from tfctr.training import distribution

EVALUATION_BATCH = 8192
FEW_STEPS = 16  # whose computing takes no longer than to trace a graph of one
DIVERGED = "the model's logits are no longer finite; lower training.optimizer.learning_rate"


@dataclass
class TrainingState:
    """How far a training is; what a checkpoint holds beside the variables."""

    epoch: int = 0
    step: int = 0  # of the epoch
    best_epoch: int = -1
    best_score: float = float("nan")  # of the best epoch, once there is one
    history: list[dict[str, float]] = field(default_factory=list)


def make_optimizer(
    config: Optimizer,
    steps_per_epoch: int = 1,
    epochs: int = 1,
    encoder: Sequence[Any] = (),
) -> keras.optimizers.Optimizer:
    """The optimizer that a config names; the lazy ones touch only a batch's rows of a table.

    Args:
        config: which, and its numbers.
        steps_per_epoch: int. What the schedule's epochs are counted in.
        epochs: int. At the end of which a schedule is through.
        encoder: an encoder's variables. They have a learning rate of their own
            (`encoder_rate`), and no `embedding_l2`.
    """
    if encoder:
        of_encoder = {id(variable) for variable in encoder}
        rate = config.learning_rate * config.encoder_rate
        slow = config.model_copy(update={"learning_rate": rate, "embedding_l2": 0.0})
        others = make_optimizer(config, steps_per_epoch, epochs)
        second = make_optimizer(slow, steps_per_epoch, epochs)
        return keras.optimizers.MultiOptimizer(
            lambda variable: second if id(variable) in of_encoder else others
        )
    settings = {
        "learning_rate": _learning_rate(config, steps_per_epoch, epochs),
        "clipvalue": config.clipvalue,
        "clipnorm": config.clipnorm,
        "global_clipnorm": config.global_clipnorm,
    }
    if config.name == "lazy_adam":
        return LazyAdam(embedding_l2=config.embedding_l2, **settings)
    if config.name == "lazy_adagrad":
        return LazyAdagrad(embedding_l2=config.embedding_l2, **settings)
    kind = {"adam": keras.optimizers.Adam, "adagrad": keras.optimizers.Adagrad}[config.name]
    return kind(**settings)


def _learning_rate(config: Optimizer, steps_per_epoch: int, epochs: int) -> Any:
    rate, schedule, steps = config.learning_rate, config.schedule, steps_per_epoch * epochs
    schedules = keras.optimizers.schedules
    if isinstance(schedule, Cosine):
        warmup = round(schedule.warmup_epochs * steps_per_epoch)
        return schedules.CosineDecay(
            0.0 if warmup else rate,
            max(steps - warmup, 1),
            alpha=schedule.final,
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    if isinstance(schedule, Linear):
        return schedules.PolynomialDecay(rate, steps, rate * schedule.final)
    if isinstance(schedule, Exponential):
        return schedules.ExponentialDecay(rate, steps_per_epoch, schedule.decay)
    return rate


class Objective:
    """What a training is for: its loss, and the measure that its best epoch is chosen by.

    As it stands, the model has a loss of its own.
    """

    chosen_by: str  # of the measures
    less_is_better: bool = False  # of that one
    title: str  # of that one, for people
    digits: int = 4  # of it that people see

    def compile(self, model: Any, optimizer: Any) -> None:
        model.compile(optimizer)

    def measure(self, model: Any, console: Console) -> dict[str, float]:
        """Measures of the validation rows, by name."""
        raise NotImplementedError

    def is_better(self, score: float, than: float) -> bool:
        """Whether a value of the chosen measure is better than another."""
        return score < than if self.less_is_better else score > than

    def describe(self, measures: Mapping[str, float]) -> str:
        """The measures that people see after an epoch, the chosen one first."""
        return f"{self.title} {measures[self.chosen_by]:.{self.digits}f}"

    def finish(self, model: Any) -> None:
        """What is still to be done to the best weights."""


class LastEpoch(Objective):
    """Log loss; all epochs are gone through, and the last one's weights are kept.

    Clicks that weighed more (`positive_weight`) and negatives left out (`keep_negatives`) shift the
    logits that a model learns by a constant. It is taken out of the bias at the end, so that
    predictions are calibrated to the rows as they were (He et al., 2014, section 6.3).

    Raises:
        DataError: from `measure`, the training diverged.
    """

    chosen_by = "steps"
    title = "steps"
    digits = 0

    def __init__(self, config: Training) -> None:
        self.loss = LogLoss(config.positive_weight)
        self.shift = math.log(config.keep_negatives) - math.log(config.positive_weight)

    def compile(self, model: ClickModel, optimizer: Any) -> None:
        model.compile(optimizer, loss=self.loss)

    def measure(self, model: ClickModel, console: Console) -> dict[str, float]:
        if not all(np.isfinite(weights).all() for weights in model.head.get_weights()):
            raise DataError(DIVERGED)
        return {"steps": float(model.optimizer.iterations)}

    def finish(self, model: ClickModel) -> None:
        if self.shift:
            model.head.bias.assign_add([self.shift])


class Clicks(LastEpoch):
    """Log loss; the best epoch is that of the best validation measure, `training.chosen_by`.

    All are exact and measured after every epoch: `valid_auc`, `valid_log_loss` and, where a user
    has both a click and none, `valid_gauc`.

    Raises:
        ConfigError: GAUC is to choose, and the data has no user.
        DataError: the validation rows are all of one label, or those of every user are, and GAUC is
            to choose; from `measure`, the training diverged.
    """

    digits = 4

    def __init__(self, data: Dataset, config: Training, reads: Sequence[str]) -> None:
        super().__init__(config)
        self.chosen_by = f"valid_{config.chosen_by}"
        self.less_is_better = config.chosen_by == "log_loss"
        self.title = f"validation {TITLES[config.chosen_by]}"
        has_users = data.manifest["config"]["user"] is not None
        if config.chosen_by == "gauc" and not has_users:
            raise ConfigError("training.chosen_by: 'gauc' needs the key 'user' in data")
        self.batches = data.valid(EVALUATION_BATCH, features=reads)
        columns = data.columns("valid", ["label", *(["user_key"] if has_users else [])])
        self.labels = labels = columns["label"]
        self.users = columns.get("user_key")
        if labels.min() == labels.max():
            raise DataError(
                f"{data.directory}: all {len(labels):,} validation rows have the label "
                f"{labels[0]:g}, so there is no AUC to choose an epoch by; widen split.valid"
            )
        # Whatever the scores: it is undefined where no user has both labels.
        if self.users is not None and math.isnan(metrics.gauc(labels, labels, self.users)):
            self.users = None
            if config.chosen_by == "gauc":
                raise DataError(
                    f"{data.directory}: no user has validation rows of both labels, so there is no "
                    "GAUC to choose an epoch by; widen split.valid, or give training.chosen_by: auc"
                )

    def measure(self, model: ClickModel, console: Console) -> dict[str, float]:
        logits = predict(model, self.batches, "validation", console) + self.shift
        if not np.isfinite(logits).all():
            raise DataError(DIVERGED)
        measures = {
            "valid_auc": metrics.auc(self.labels, logits),
            "valid_log_loss": metrics.log_loss(self.labels, logits),
        }
        if self.users is not None:
            measures["valid_gauc"] = metrics.gauc(self.labels, logits, self.users)
        return measures

    def describe(self, measures: Mapping[str, float]) -> str:
        other = "auc" if self.less_is_better else "log_loss"
        return f"{super().describe(measures)}, {TITLES[other]} {measures[f'valid_{other}']:.4f}"


def train(
    model: SchemaModel,
    data: Dataset,
    config: Training,
    folder: Path,
    console: Console,
    objective: Objective,
) -> TrainingState:
    """Trains `model` in place and leaves it with the weights of the best epoch.

    A checkpoint in `folder` is gone on from; one is written every `checkpoint_steps` steps and
    after each epoch, and the result is the same as without the interruption. A model made in the
    scope of a `tf.distribute` strategy is trained by all its replicas; then `folder` must be one
    that all workers see, and only the first writes there.

    Args:
        model: not compiled yet; compiled here.
        data: its train and valid splits are read.
        config: how.
        folder: of the run; holds `checkpoint.npz` and `best.npz` meanwhile.
        console: for progress.
        objective: what for, e.g. `Clicks`.

    Returns:
        The history: one dict an epoch with `loss`, the objective's measures (`valid_auc`,
        `valid_log_loss`, `valid_gauc` of clicks), `learning_rate`, `seconds`.

    Raises:
        DataError: the rows do not fit the objective; the training diverged.
    """
    strategy = model.distribute_strategy
    reader = _Reader(data, config, model.reads, strategy)
    with strategy.scope():
        model.build()
        encoder = getattr(model, "encoder_variables", ())
        objective.compile(
            model, make_optimizer(config.optimizer, reader.steps, config.epochs, encoder)
        )
        model.optimizer.build(model.trainable_variables)
    checkpoint, best = folder / "checkpoint.npz", folder / "best.npz"
    state = _restore(model, checkpoint) or TrainingState()
    if state.epoch or state.step:
        console.print(f"goes on from epoch {state.epoch + 1}, step {state.step}")
    writes = distribution.is_chief(strategy)
    board = _open_board(folder / "tensorboard") if config.tensorboard and writes else None
    while state.epoch < config.epochs:
        epoch = state.epoch
        if epoch - state.best_epoch > config.patience and state.best_epoch >= 0:
            break
        start, rate = time.perf_counter(), _rate(model)
        rows, steps = reader.open(epoch, state.step)
        with _progress(console) as bar, _traced(model, reader.steps * config.epochs):
            watcher = _Watcher(
                state,
                config,
                state.step + steps,
                bar,
                (lambda: _save(model, state, checkpoint)) if writes else None,
                board,
            )
            history = model.fit(
                rows,
                epochs=1,
                steps_per_epoch=steps,
                verbose=0,
                shuffle=False,
                callbacks=[watcher],
            )
        seconds = time.perf_counter() - start
        try:
            measures = objective.measure(model, console)
        except DataError as error:
            raise DataError(f"epoch {epoch + 1}: {error}") from None
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
        if state.best_epoch < 0 or objective.is_better(score, state.best_score):
            state.best_epoch, state.best_score = epoch, score
            if writes:
                _write_arrays(best, dict(_arrays(model.variables)))
        elif isinstance(config.optimizer.schedule, Plateau):
            for optimizer in getattr(model.optimizer, "optimizers", [model.optimizer]):
                optimizer.learning_rate = optimizer.learning_rate * config.optimizer.schedule.factor
        state.epoch, state.step = epoch + 1, 0
        if writes:
            _save(model, state, checkpoint)
        last = state.history[-1]
        if board:
            _write_scalars(board, int(model.optimizer.iterations), last)
        console.print(
            f"epoch {epoch + 1}: loss {last['loss']:.4f}, "
            f"{objective.describe(last)}"
            f"{' (best)' if state.best_epoch == epoch else ''}, "
            f"{steps * config.batch_size / seconds:,.0f} examples/s"
        )
    distribution.wait(strategy)  # for the best weights to be written
    _assign(model.variables, np.load(best))
    objective.finish(model)
    return state


class _Reader:
    """The batches of an epoch, from where a checkpoint left it."""

    def __init__(
        self, data: Dataset, config: Training, names: Sequence[str], strategy: Any
    ) -> None:
        self.data = data
        self.config = config
        self.names = names
        self.strategy = strategy
        self.part = distribution.part(strategy)
        self._first = self._read(0)  # kept: to make it costs as much as some steps
        self.steps = self._num_steps(self._first)

    def open(self, epoch: int, done: int) -> tuple[Any, int]:
        """The batches behind the first `done`, and how many there are."""
        rows = self._read(epoch) if epoch else self._first
        steps = self._num_steps(rows) - done
        rows = rows.skip(done * self.part.replicas) if done else rows
        if self.strategy.num_replicas_in_sync > 1:
            rows = self.strategy.distribute_datasets_from_function(lambda _: rows)
        return rows, steps

    def _read(self, epoch: int) -> Any:
        return self.data.train(
            self.config.batch_size,
            self.config.seed * 100_003 + epoch,
            self.names,
            self.config.in_memory,
            self.config.keep_negatives,
            self.part,
            self.config.rows,
        )

    def _num_steps(self, rows: Any) -> int:
        steps = int(rows.cardinality()) // self.part.replicas
        return min(steps, self.config.steps_per_epoch or steps)


def predict(model: SchemaModel, batches: Any, what: str, console: Console) -> np.ndarray:
    """Logits `[N]` of batches whose number is known, with a progress bar."""
    steps = int(batches.cardinality())
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=steps)
        if distribution.part(model.distribute_strategy).workers > 1:
            # Each worker reads all rows; Keras' `predict` would return them in another order.
            model._catch_up()
            logits = tf.function(lambda features: model(features, training=False), autograph=False)
            return np.concatenate([logits(features).numpy() for features, _ in batches])
        advance = keras.callbacks.LambdaCallback()
        advance.on_predict_batch_end = lambda batch, logs=None: bar.advance(task)
        with _traced(model, steps):
            return np.asarray(model.predict(batches, verbose=0, callbacks=[advance]))


@contextmanager
def _traced(model: SchemaModel, steps: int) -> Iterator[None]:
    """Steps as a graph of TensorFlow's, but for so few that they are through before one is made."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    model.run_eagerly = steps <= FEW_STEPS and replicas == 1
    try:
        yield
    finally:
        model.run_eagerly = False


def clean_up(folder: Path) -> None:
    """Removes the checkpoint of a training whose model is saved, and what killed ones began."""
    for pattern in ("checkpoint.npz*", "best.npz*"):
        for path in folder.glob(pattern):
            path.unlink()


class _Watcher(keras.callbacks.Callback):
    """After each step: the progress bar, and now and then a checkpoint."""

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

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        state = self.state
        state.step += 1
        if state.step % 16 == 0:
            done = (state.step - self.first) * self.config.batch_size
            rate = done / (time.perf_counter() - self.start)
            loss = float((logs or {}).get("loss", 0.0))  # the mean of the epoch so far
            self.bar.update(self.task, completed=state.step, rate=rate, loss=loss)
            if self.board:
                step = int(self.model.optimizer.iterations)
                _write_scalars(self.board, step, {"loss_so_far": loss, "examples_per_second": rate})
        # After the last step comes the validation, and then a checkpoint in any case.
        if self.save and state.step % self.config.checkpoint_steps == 0 and state.step < self.steps:
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


def _rate(model: SchemaModel) -> float:
    optimizer = model.optimizer
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        optimizer = optimizer._optimizer_map(None)  # that of all but an encoder
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def _open_board(folder: Path) -> Any:
    """A writer of what TensorBoard shows."""
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise ConfigError(
            "training.tensorboard: TensorBoard is not installed; `pip install 'tfctr[tensorboard]'`"
        ) from None
    return tf.summary.create_file_writer(str(folder))


def _write_scalars(board: Any, step: int, values: dict[str, float]) -> None:
    with board.as_default():
        for name, value in values.items():
            tf.summary.scalar(name, value, step=step)
    board.flush()


def _arrays(variables: list[Any]) -> Iterator[tuple[str, np.ndarray]]:
    # By place: paths are not unique among an optimizer's slots.
    for i, variable in enumerate(variables):
        yield str(i), np.asarray(keras.ops.convert_to_numpy(variable))


def _assign(variables: list[Any], arrays: Any) -> None:
    for i, variable in enumerate(variables):
        variable.assign(arrays[str(i)])


def _save(model: SchemaModel, state: TrainingState, path: Path) -> None:
    arrays = dict(_arrays([*model.variables, *model.optimizer.variables]))
    packed = np.frombuffer(json.dumps(asdict(state)).encode(), np.uint8)
    _write_arrays(path, arrays | {"state": packed})


def _write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)
    files.write(str(path), content.getbuffer())


def _restore(model: SchemaModel, path: Path) -> TrainingState | None:
    """Takes the variables of a checkpoint, if there is one that fits."""
    if not path.is_file():
        return None
    arrays = np.load(path, allow_pickle=False)
    variables = [*model.variables, *model.optimizer.variables]
    if len(arrays.files) != len(variables) + 1:
        return None
    _assign(variables, arrays)
    return TrainingState(**json.loads(arrays["state"].tobytes()))
