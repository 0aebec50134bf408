"""What a model is trained for: the loss, and the measure that the best epoch is chosen by."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from tfctr import metrics
from tfctr.config import ConfigError, Training
from tfctr.data.dataset import Dataset
from tfctr.data.manifest import DataError
from tfctr.metrics.report import TITLES
from tfctr.models.click_model import ClickModel
from tfctr.models.losses import LogLoss
from tfctr.training.predict import DIVERGED, EVALUATION_BATCH, check_finite, predict


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
