"""Makes the optimizer of a config, with the schedule of its learning rate."""

from collections.abc import Sequence
from typing import Any

import keras

from tfctr.config import Cosine, Exponential, Linear, Optimizer
from tfctr.optimizers import LazyAdagrad, LazyAdam


def make_optimizer(
    config: Optimizer,
    steps_per_epoch: int = 1,
    epochs: int = 1,
    encoder: Sequence[Any] = (),
) -> keras.optimizers.Optimizer:
    """The optimizer of a config; lazy ones update only the embedding rows in a batch.

    Args:
        config: its name and settings.
        steps_per_epoch: int. Defaults to 1.
        epochs: int. Number of epochs, after which a schedule ends. Defaults to 1.
        encoder: variables of an encoder. They have a learning rate of their own
            (`encoder_rate`), and no `embedding_l2`. Defaults to none.
    """
    if encoder:
        of_encoder = {id(variable) for variable in encoder}
        rate = config.learning_rate * config.encoder_rate
        slow = config.model_copy(update={"learning_rate": rate, "embedding_l2": 0.0})
        others = make_optimizer(config, steps_per_epoch, epochs)
        for_encoder = make_optimizer(slow, steps_per_epoch, epochs)
        return keras.optimizers.MultiOptimizer(
            lambda variable: for_encoder if id(variable) in of_encoder else others
        )
    settings = {
        "learning_rate": _learning_rate(config, steps_per_epoch, epochs),
        "clipvalue": config.clipvalue,
        "clipnorm": config.clipnorm,
        "global_clipnorm": config.global_clipnorm,
    }
    if lazy := {"lazy_adam": LazyAdam, "lazy_adagrad": LazyAdagrad}.get(config.name):
        of_tables = {"embedding_l2": config.embedding_l2, "compact_state": config.compact_state}
        return lazy(**settings | of_tables)
    kind = {"adam": keras.optimizers.Adam, "adagrad": keras.optimizers.Adagrad}[config.name]
    return kind(**settings)


def steps_done(model: Any) -> int:
    """The number of steps of a model's optimizer, also where each replica counts them."""
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


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
