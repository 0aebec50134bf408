"""Exact metrics over a whole split, in NumPy; and AUC for Keras' `compile`."""

from typing import Any

from tfctr.metrics.bootstrap import bootstrap_interval
from tfctr.metrics.calibration import (
    calibration_bins,
    calibration_ratio,
    expected_calibration_error,
    log_loss,
    normalized_entropy,
)
from tfctr.metrics.comparison import (
    DailyDifference,
    Difference,
    daily_difference,
    paired_difference,
    t_interval,
)
from tfctr.metrics.ranking import auc, gauc
from tfctr.metrics.report import evaluate, print_report

__all__ = [
    "AUC",
    "DailyDifference",
    "Difference",
    "auc",
    "bootstrap_interval",
    "calibration_bins",
    "calibration_ratio",
    "daily_difference",
    "evaluate",
    "expected_calibration_error",
    "gauc",
    "log_loss",
    "normalized_entropy",
    "paired_difference",
    "print_report",
    "t_interval",
]


def __getattr__(name: str) -> Any:
    if name == "AUC":  # imported when first used: the others need no TensorFlow
        from tfctr.metrics.streaming_auc import AUC

        return AUC
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
