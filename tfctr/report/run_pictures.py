"""The pictures of runs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfctr import metrics
from tfctr.report.pictures import TEXT, Picture, colour, draw, style, values_text

CURVES = {
    "loss": "Training loss",
    "valid_auc": "Validation AUC",
    "valid_gauc": "Validation GAUC",
    "valid_log_loss": "Validation log loss",
}
POINTS = 200  # of a curve
BINS = 40
ROW = 0.2  # inches, of a line of text
LONGEST = 28  # characters of a name beside dots


class Dot(NamedTuple):
    """A value with its interval, if it has one.

    Attributes:
        place: int, the line that it is on.
        series: int, the number of its run; None of what is no run.
        value, low, high: float.
    """

    place: int
    series: int | None
    value: float
    low: float | None = None
    high: float | None = None


def learning_curves(trained: Mapping[str, Mapping[str, Any]]) -> list[Picture]:
    """A picture of each measure by epoch.

    Args:
        trained: the manifests of trainings by run; the best epoch has a larger dot.
    """
    found = []
    for key, title in CURVES.items():
        curves = {
            name: np.array([epoch.get(key, np.nan) for epoch in of["epochs"]], np.float64)
            for name, of in trained.items()
        }
        if not any(np.isfinite(values).any() for values in curves.values()):
            continue
        best = [of["best_epoch"] for of in trained.values()]
        found.append(_curves(title, curves, best))
    return found


def _curves(title: str, curves: Mapping[str, np.ndarray], best: Sequence[int]) -> Picture:
    def into(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        for i, (values, at) in enumerate(zip(curves.values(), best, strict=True)):
            look = {"color": colour(i), "linestyle": style(i)}
            axes.plot(np.arange(len(values)) + 1, values, marker="o", markersize=2.5, **look)
            axes.plot([at], values[[at - 1]], marker="o", markersize=6, **look)
        longest = max(len(values) for values in curves.values())
        axes.set_xlim(0.5, longest + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel("epoch")

    return draw(
        title, f"By epoch: {values_text([*curves], [of.tolist() for of in curves.values()])}", into
    )


def calibration(probabilities: Mapping[str, np.ndarray], labels: np.ndarray) -> Picture:
    """Observed click rates over predicted ones, in bins of equally many rows.

    Args:
        probabilities: `[N]` by run.
        labels: `[N]` of 0 and 1.
    """
    bins = {name: metrics.calibration_bins(labels, of) for name, of in probabilities.items()}
    end = 1.05 * max(max(of.predicted.max(), of.observed.max()) for of in bins.values())

    def into(axes: Any) -> None:
        axes.plot([0, end], [0, end], color=TEXT, linestyle="--", linewidth=1)
        for i, of in enumerate(bins.values()):
            look = {"color": colour(i), "linestyle": style(i)}
            axes.plot(of.predicted, of.observed, marker="o", markersize=4, linewidth=1.2, **look)
        axes.set_xlim(0, min(end, 1.02))
        axes.set_ylim(0, min(end, 1.02))
        axes.set_xlabel("predicted click rate")
        axes.set_ylabel("observed click rate")

    pairs = "; ".join(
        f"{name}: "
        + ", ".join(f"{p:.3f} → {o:.3f}" for p, o in zip(of.predicted, of.observed, strict=True))
        for name, of in bins.items()
    )
    return draw("Calibration", f"Predicted → observed, by bin. {pairs}", into)


def roc(scores: Mapping[str, np.ndarray], labels: np.ndarray) -> Picture:
    """The ROC curve of each run's scores `[N]`; `labels [N]` have both classes."""
    curves = {name: roc_points(labels, of) for name, of in scores.items()}

    def into(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=TEXT, linestyle="--", linewidth=1)
        for i, (false, true) in enumerate(curves.values()):
            axes.plot(false, true, color=colour(i), linestyle=style(i), linewidth=1.6)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.005)
        axes.set_xlabel("share of the other rows above a score")
        axes.set_ylabel("share of the clicks above it")

    areas = [[metrics.auc(labels, of)] for of in scores.values()]
    return draw("ROC curve", f"Areas: {values_text([*scores], areas, 4)}", into)


def roc_points(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`POINTS` points of the curve, at most: false and true positive rates, ascending."""
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(labels, scores)
    if len(false) > POINTS:  # equally far apart along the curve
        way = np.append(0, np.cumsum(np.diff(false) + np.diff(true)))
        chosen = np.unique(np.searchsorted(way, np.linspace(0, way[-1], POINTS)))
        false, true = false[chosen], true[chosen]
    return false, true


def scores_by_label(
    name: str, series: int, probabilities: np.ndarray, labels: np.ndarray
) -> Picture:
    """How the predictions `[N]` of a run are distributed, for rows with a click and without."""
    end = float(np.quantile(probabilities, 0.999)) or 1.0
    edges = np.linspace(0, min(1.0, 1.05 * end), BINS + 1)
    heights = [
        np.histogram(np.minimum(of, edges[-1]), edges)[0] / max(len(of), 1)
        for of in (probabilities[labels == 1], probabilities[labels == 0])
    ]

    def into(axes: Any) -> None:
        axes.stairs(heights[0], edges, fill=True, color=colour(series), alpha=0.5, label="clicks")
        axes.stairs(heights[1], edges, color=TEXT, linewidth=1.4, label="no clicks")
        axes.legend(frameon=False, labelcolor=TEXT)
        axes.set_xlabel("predicted click rate")
        axes.set_ylabel("share of the rows")

    means = [
        probabilities[labels == label].mean() if (labels == label).any() else np.nan
        for label in (1, 0)
    ]
    text = f"Mean prediction: {means[0]:.3f} with a click, {means[1]:.3f} without"
    return draw(f"Scores by label: {name}", text, into)


def _short(name: str) -> str:
    """A name that leaves room for the values: the names of runs have all that was changed."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 13]}…{name[-12:]}"


def dots(
    title: str, lines: Sequence[str], values: Sequence[Dot], width: float, apart: bool = True
) -> Picture:
    """Values with their intervals, on a line for each name, the first at the top.

    Args:
        title: text.
        lines: the names.
        values: of the lines.
        width: inches.
        apart: bool. Whether a line has values of several runs, which are drawn side by side in its
            height. Defaults to True.
    """
    series = 1 + max((dot.series or 0 for dot in values), default=0) if apart else 1
    step = 0.7 / series

    def into(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        for dot in values:
            y = dot.place + ((dot.series or 0) - (series - 1) / 2) * step if apart else dot.place
            look = TEXT if dot.series is None else colour(dot.series)
            if dot.low is not None and dot.high is not None:
                axes.plot([dot.low, dot.high], [y, y], color=look, linewidth=1.6)
            axes.plot([dot.value], [y], color=look, marker="o", markersize=4.5)
        axes.set_yticks(range(len(lines)), map(_short, lines))
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(visible=False, axis="y")
        if min(dot.value for dot in values) <= 0:
            axes.axvline(0, color=TEXT, linewidth=0.8)

    height = 0.6 + ROW * len(lines) * max(1.0, 0.55 * series)
    text = "; ".join(
        f"{lines[dot.place]}: {dot.value:.4f}"
        + ("" if dot.low is None else f" ({dot.low:.4f} to {dot.high:.4f})")
        for dot in values
    )
    return draw(title, text, into, width, height)
