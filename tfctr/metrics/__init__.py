"""Exact metrics over a whole split, in NumPy."""

from tfctr.metrics.bootstrap import bootstrap_interval
from tfctr.metrics.calibration import (
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
    "DailyDifference",
    "Difference",
    "auc",
    "bootstrap_interval",
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
