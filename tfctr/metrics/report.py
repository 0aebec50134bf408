"""All metrics of a split and of its segments, as JSON and as a table."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfctr.metrics.bootstrap import prepare
from tfctr.metrics.calibration import (
    calibration_ratio,
    expected_calibration_error,
    normalized_entropy,
)
from tfctr.metrics.ranking import number_users

TITLES = {"auc": "AUC", "gauc": "GAUC", "log_loss": "log loss"}


def evaluate(
    labels: np.ndarray,
    logits: np.ndarray,
    users: np.ndarray | None = None,
    segments: Mapping[str, np.ndarray] | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """All metrics of a whole split and of its segments.

    Args:
        labels: `[N]` of 0 and 1.
        logits: `[N]`, finite.
        users: `[N]` of keys as for `gauc`; None: no GAUC, and intervals of resampled rows.
        segments: bool `[N]` by name, e.g. `{"unseen_users": mask}`; they may overlap.
        resamples: int, at least 1. Bootstrap resamples of the intervals.
        seed: int, of the bootstrap; a segment has the same numbers as an evaluation of its rows.

    Returns:
        A dict for `json.dump(..., allow_nan=False)`: "rows", "positives", "auc", "gauc" (if users
        are given), "log_loss", "normalized_entropy", "expected_calibration_error",
        "calibration_ratio", "intervals" (`[low, high]` of "auc", "log_loss" and "gauc"),
        "resampled" ("users" or "rows"), and "segments": by name the same without "segments", or
        `{"rows": 0}`. Undefined values are None.

    Raises:
        ValueError: as for the metrics; a segment that is not bool `[N]`.
    """
    labels, logits = np.asarray(labels), np.asarray(logits)
    if users is not None:
        users = number_users(users, len(labels))
    results = _measure(labels, logits, users, resamples, seed)
    results["segments"] = {}
    for name, rows in (segments or {}).items():
        rows = np.asarray(rows)
        if rows.dtype != bool or rows.shape != labels.shape:
            raise ValueError(
                f"segment {name!r} must be bool {labels.shape}, found {rows.dtype} {rows.shape}"
            )
        of_segment = None if users is None else users[rows]
        results["segments"][name] = (
            _measure(labels[rows], logits[rows], of_segment, resamples, seed)
            if rows.any()
            else {"rows": 0}
        )
    return results


def _measure(
    labels: np.ndarray, logits: np.ndarray, users: np.ndarray | None, resamples: int, seed: int
) -> dict[str, Any]:
    prepared = prepare(labels, logits, users)
    intervals = prepared.intervals(resamples, seed)
    found = prepared.measure()
    del prepared  # before others sort the rows again
    probabilities = np.exp(-np.logaddexp(0, -np.asarray(logits, dtype=np.float64)))
    return {
        "rows": len(labels),
        "positives": int(labels.sum()),
        **{name: _defined(value) for name, value in found.items()},
        "normalized_entropy": _defined(normalized_entropy(labels, logits)),
        "expected_calibration_error": expected_calibration_error(labels, probabilities),
        "calibration_ratio": _defined(calibration_ratio(labels, probabilities)),
        "intervals": {name: [_defined(end) for end in ends] for name, ends in intervals.items()},
        "resampled": "rows" if users is None else "users",
    }


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def print_report(results: Mapping[str, Mapping[str, Any]], console: Console | None = None) -> None:
    """Prints a table with a line for each split and, below it, for each segment.

    Args:
        results: of `evaluate`, by the name of the split, e.g. `{"test": evaluate(...)}`.
        console: where to print; standard output by default.
    """
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column(overflow="fold")  # only names wrap, so that 80 columns show every digit
    for name in ("rows", "AUC", "95% interval", "GAUC", "log\nloss", "NE", "ECE", "pred./\nobs."):
        table.add_column(name, justify="right", no_wrap=True)
    for split, measured in results.items():
        table.add_row(Text(split), *_cells(measured))
        if "uncalibrated" in measured:
            table.add_row(Text(f"{split} / uncalibrated"), *_cells(measured["uncalibrated"]))
        for segment, of_segment in measured["segments"].items():
            table.add_row(Text(f"{split} / {segment.replace('_', ' ')}"), *_cells(of_segment))
    (console or Console()).print(table)


def _cells(measured: Mapping[str, Any]) -> list[str]:
    low, high = measured.get("intervals", {}).get("auc", (None, None))
    return [
        f"{measured['rows']:,}",
        _number(measured.get("auc")),
        "–" if low is None else f"{low:.4f}–{high:.4f}",
        _number(measured.get("gauc")),
        _number(measured.get("log_loss")),
        _number(measured.get("normalized_entropy")),
        _number(measured.get("expected_calibration_error")),
        _number(measured.get("calibration_ratio")),
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
