"""Objectives of a training: the loss, and the metric that the best epoch is chosen by."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from tfctr import metrics
from tfctr.config import ConfigError, Training
from tfctr.data.dataset import Dataset
from tfctr.data.manifest import DataError
from tfctr.metrics.report import TITLES
from tfctr.models.click_model import ClickModel
from tfctr.models.losses import LogLoss
from tfctr.training.optimizer import steps_done
from tfctr.training.predict import EVALUATION_BATCH, check_finite, predict


class Objective:
    """The loss of a training, and the metric that its best epoch is chosen by.

    The base class is for models that have a loss of their own.

    Attributes:
        chosen_by: the key of this metric in what `measure` returns.
        less_is_better: whether smaller values of it are better.
        title: its name in messages.
        digits: int. Its decimal places in messages.
    """

    chosen_by: str
    less_is_better: bool = False
    title: str
    digits: int = 4

    def compile(self, model: Any, optimizer: Any) -> None:
        """Compiles the model, with its loss."""
        model.compile(optimizer)

    def measure(self, model: Any, console: Console) -> dict[str, float]:
        """The metrics on the validation rows, by name.

        Raises:
            Diverged: what the model computes for them is not finite, though its weights are.
        """
        raise NotImplementedError

    def is_better(self, score: float, than: float) -> bool:
        """Whether a value of the chosen metric is better than another."""
        return score < than if self.less_is_better else score > than

    def describe(self, measures: Mapping[str, float]) -> str:
        """The metrics to print after an epoch, the chosen one first."""
        return f"{self.title} {measures[self.chosen_by]:.{self.digits}f}"

    def finish(self, model: Any) -> None:
        """Changes the best weights after the last epoch, if needed."""


class LastEpoch(Objective):
    """Log loss; all epochs are trained, and the weights of the last one are kept.

    A weight of clicks (`positive_weight`) and sampled negatives (`keep_negatives`) shift the
    learned logits by a constant. `finish` takes it out of the bias, so that predictions are
    calibrated to the rows as they were (He et al., 2014, section 6.3).

    Args:
        config: `positive_weight` and `keep_negatives` are used.
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
        return {"steps": float(steps_done(model))}

    def finish(self, model: ClickModel) -> None:
        if self.shift:
            model.head.bias.assign_add([self.shift])


class Clicks(LastEpoch):
    """Log loss; the best epoch is chosen by the validation metric `training.chosen_by`.

    After every epoch the exact metrics are computed: `valid_auc`, `valid_log_loss` and, if a user
    has rows of both labels, `valid_gauc`.

    Args:
        data: its valid split is read.
        config: of the training.
        reads: the features that the model reads.

    Raises:
        ConfigError: the epoch is chosen by GAUC, but the data has no user.
        DataError: all validation rows have one label; the epoch is chosen by GAUC, but no user has
            rows of both labels; from `measure`, a validation row has no finite score.
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
        self.data = data
        self.batches = data.valid(EVALUATION_BATCH, features=reads)
        columns = data.columns("valid", ["label", *(["user_key"] if has_users else [])])
        self.labels = labels = columns["label"]
        self.users = columns.get("user_key")
        if labels.min() == labels.max():
            raise DataError(
                f"{data.directory}: all {len(labels):,} validation rows have the label "
                f"{labels[0]:g}, so there is no AUC to choose an epoch by; widen split.valid"
            )
        # Whatever the scores are, GAUC is undefined if no user has rows of both labels.
        if self.users is not None and math.isnan(metrics.gauc(labels, labels, self.users)):
            self.users = None
            if config.chosen_by == "gauc":
                raise DataError(
                    f"{data.directory}: no user has validation rows of both labels, so there is no "
                    "GAUC to choose an epoch by; widen split.valid, or give training.chosen_by: auc"
                )

    def measure(self, model: ClickModel, console: Console) -> dict[str, float]:
        logits = predict(model, self.batches, "validation", console) + self.shift
        check_finite(logits, model, self.data, "valid")
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
