"""Exact metrics over a whole split, in NumPy."""

from tfctr.metrics.bootstrap import bootstrap_interval
from tfctr.metrics.calibration import (
    calibration_ratio,
    expected_calibration_error,
    log_loss,
    normalized_entropy,
)
from tfctr.metrics.ranking import auc, gauc
from tfctr.metrics.report import evaluate, print_report

__all__ = [
    "auc",
    "bootstrap_interval",
    "calibration_ratio",
    "evaluate",
    "expected_calibration_error",
    "gauc",
    "log_loss",
    "normalized_entropy",
    "print_report",
]
