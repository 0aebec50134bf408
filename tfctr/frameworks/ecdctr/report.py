"""Compares rollouts: their metrics by day, and a page that shows them."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfctr import metrics
from tfctr.config import ConfigError
from tfctr.data import files
from tfctr.data.manifest import DataError, read_manifest
from tfctr.metrics.comparison import WEEK
from tfctr.report import page, pictures

SMOOTHED = 7  # number of latest days that a curve averages
RESAMPLES = 2_000
PLOTS = {
    "auc": "AUC of each day's ads, with the version that was served",
    "gauc": "GAUC of the same rows",
    "log_loss": "log loss of the same rows",
    "rows_read": "training rows read per day",
}


@dataclass(frozen=True)
class EvaluatedRollout:
    """The evaluated days of a rollout.

    Args:
        name: of the rollout.
        days: ascending.
        daily: by name, float64 `[days]`, NaN where undefined: `auc`, `gauc`, `log_loss`,
            `rows_read`, `seconds`.
        rows: all evaluated rows of these days: `label`, `logit`, `user_key`, and a bool column for
            each segment.
    """

    name: str
    days: tuple[datetime.date, ...]
    daily: dict[str, np.ndarray]
    rows: pa.Table

    @classmethod
    def read(cls, folder: Path) -> "EvaluatedRollout":
        """Reads the days so far of the rollout in `folder`, `<work>/<its name>`.

        Raises:
            DataError: no day was evaluated yet.
        """
        days, found, rows = [], [], []
        for path in sorted((folder / "days").glob("*/step.json")):
            step = read_manifest(path) or {}
            measured = step.get("metrics")
            if not measured:
                continue
            days.append(datetime.date.fromisoformat(step["day"]))
            read = {"rows_read": sum(step["rows_read"].values()), "seconds": step["seconds"]}
            found.append(measured | read)
            with files.open_to_read(str(path.with_name("evaluated.parquet"))) as file:
                rows.append(pq.read_table(file))
        if not days:
            raise DataError(f"{folder}: no day was evaluated; run `tfctr rollout` first")
        names = ("auc", "gauc", "log_loss", "rows_read", "seconds")
        daily = {
            name: np.array([np.nan if of[name] is None else of[name] for of in found], np.float64)
            for name in names
        }
        return cls(folder.name, tuple(days), daily, pa.concat_tables(rows))

    def mean(self, name: str) -> float:
        """The mean of `daily[name]` over the days on which it is defined."""
        return float(np.nanmean(self.daily[name]))

    def pooled_gauc(self) -> float:
        """GAUC of all rows together: on one day few users have both a click and a row without."""
        columns = (self.rows[name].to_numpy() for name in ("label", "logit", "user_key"))
        return metrics.gauc(*columns)

    def pooled_auc(self, segment: str) -> float:
        """AUC of the rows of a segment, of all days together; NaN if one class is absent."""
        rows = self.rows.filter(self.rows[segment])
        if not rows.num_rows:
            return float("nan")
        return metrics.auc(rows["label"].to_numpy(), rows["logit"].to_numpy())


def mean_difference(
    rollouts: Sequence[EvaluatedRollout],
    others: Sequence[EvaluatedRollout],
    name: str,
    seed: int = 0,
) -> metrics.DailyDifference:
    """The difference of a daily metric between two rollouts, paired by seed and day.

    Args:
        rollouts: of the first config, one per seed.
        others: of the second config, with the same seeds and days; they are subtracted.
        name: of the metric, a key of `EvaluatedRollout.daily`.
        seed: int. Of the resamples.

    Returns:
        The mean, and its 95% intervals over days and over seeds; see `metrics.daily_difference`.

    Raises:
        ConfigError: the two were not evaluated on the same days.
    """
    for one, other in zip(rollouts, others, strict=True):
        if one.days != other.days:
            raise ConfigError(
                f"{one.name} has {len(one.days)} evaluated days, {one.days[0]} to {one.days[-1]}; "
                f"{other.name} has {len(other.days)}, {other.days[0]} to {other.days[-1]}; run "
                "both over the same days"
            )
    differences = [a.daily[name] - b.daily[name] for a, b in zip(rollouts, others, strict=True)]
    return metrics.daily_difference(np.array(differences), resamples=RESAMPLES, seed=seed)


def write_page(rollouts: Sequence[EvaluatedRollout], path: Path) -> None:
    """Writes one HTML file with plots of daily curves and differences from the first rollout.

    Raises:
        ConfigError: matplotlib or jinja2 is not installed; the rollouts have different days.
    """
    page.check_installed()
    first = rollouts[0]
    page.write_page(
        path,
        __package__,
        "report.html",
        first=first.name,
        days=(first.days[0], first.days[-1]),
        rows=[_row(evaluated, first) for evaluated in rollouts],
        pictures=[_picture(rollouts, name, title) for name, title in PLOTS.items()],
        smoothed=SMOOTHED,
        block=WEEK,
    )


def _row(evaluated: EvaluatedRollout, first: EvaluatedRollout) -> dict[str, Any]:
    found: dict[str, Any] = {"name": evaluated.name, "days": len(evaluated.days)}
    for name in ("auc", "gauc"):
        found[name] = evaluated.mean(name)
        found[f"{name}_over"] = None
        if evaluated is not first:
            found[f"{name}_over"] = mean_difference([evaluated], [first], name)
    for name in ("log_loss", "rows_read", "seconds"):
        found[name] = evaluated.mean(name)
    found["pooled_gauc"] = evaluated.pooled_gauc()
    for segment in ("inactive_users", "unseen_users"):
        found[segment] = evaluated.pooled_auc(segment)
        found[f"{segment}_rows"] = int(np.sum(evaluated.rows[segment].to_numpy()))
    return found


def _picture(rollouts: Sequence[EvaluatedRollout], name: str, title: str) -> pictures.Picture:
    """One metric's curve for each rollout."""

    def curves(axes: Any) -> None:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        for i, evaluated in enumerate(rollouts):
            values = evaluated.daily[name]
            axes.plot(
                np.array(evaluated.days, "datetime64[D]"),
                values if name == "rows_read" else _smooth(values),
                color=pictures.colour(i),
                linestyle=pictures.style(i),
                linewidth=2.2 if i == 0 else 1.4,
            )
        if name == "rows_read":
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        locator = AutoDateLocator(maxticks=6)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))

    means = [[evaluated.mean(name)] for evaluated in rollouts]
    text = pictures.values_text([evaluated.name for evaluated in rollouts], means)
    return pictures.draw(title, f"Means: {text}", curves, pictures.WIDER)


def _smooth(values: np.ndarray) -> np.ndarray:
    """The mean over the latest `SMOOTHED` days up to each day, or fewer at the start."""
    starts = np.maximum(np.arange(len(values)) - SMOOTHED + 1, 0)
    windows = [values[start : i + 1] for i, start in enumerate(starts)]
    return np.array([np.nan if np.isnan(w).all() else np.nanmean(w) for w in windows])
