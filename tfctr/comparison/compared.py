"""The table of `tfctr compare`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfctr import metrics
from tfctr.comparison.scored_rows import ScoredRows
from tfctr.config import ConfigError
from tfctr.data.manifest import read_manifest
from tfctr.metrics.calibration import log_loss

MEASURES = ("auc", "gauc", "log_loss")


@dataclass(frozen=True)
class Compared:
    """A run on the test rows, or on a segment of them.

    Attributes:
        name: of the run.
        rows: int.
        measures: "auc", "log_loss" and, if the data has users, "gauc".
        over: the differences to the first run; empty for the first one.
        parameters, multiply_adds, milliseconds: of the model, and of a request with 100 candidates;
            None if they are not known.
    """

    name: str
    rows: int
    measures: dict[str, float]
    over: dict[str, metrics.Difference]
    parameters: int | None = None
    multiply_adds: int | None = None
    milliseconds: float | None = None


def compare(
    runs: Sequence[Any], split: str = "test", models: Sequence[Any] | None = None
) -> dict[str, list[Compared]]:
    """Compares evaluated runs with the first one, on all rows of a split and on each segment.

    Args:
        runs: `tfctr.stages.Run`s on the same dataset, all evaluated.
        split: whose rows.
        models: theirs, if they are loaded already.

    Returns:
        By segment, and `""` for all rows, what was found of each run. A segment in which a run has
        no rows of both labels is left out. Costs are of all rows' entries: a request's time is
        measured for runs that are exported, if all are.

    Raises:
        ConfigError: a run has no rows of the split, or others than the first one.

    Examples:
        >>> runs = [Run(load_run(path)) for path in ("din.yaml", "dcnv2.yaml")]  # doctest: +SKIP
        >>> compare(runs)[""][1].over["gauc"].low  # doctest: +SKIP
        0.0139
    """
    found = [ScoredRows.read([run.folder], split) for run in runs]
    names = [run.config.name for run in runs]
    models = models or [run.load_model() for run in runs]
    times = _milliseconds(runs, models)
    whole = []
    for name, run, rows, model, taken in zip(names, runs, found, models, times, strict=True):
        manifest = read_manifest(run.trained.manifest_path) or {}
        whole.append(
            replace(
                _compared(name, rows, found[0]),
                parameters=manifest["parameters"],
                multiply_adds=_multiply_adds(model),
                milliseconds=taken,
            )
        )
    tables = {"": whole}
    for segment in found[0].segments:
        parts = [rows.of_segment(segment) for rows in found]
        if 0 < parts[0].labels.sum() < len(parts[0].labels):
            tables[segment] = [
                _compared(name, part, parts[0]) for name, part in zip(names, parts, strict=True)
            ]
    return tables


def _compared(name: str, rows: ScoredRows, first: ScoredRows) -> Compared:
    logits = rows.logits[0]
    measures = {"auc": metrics.auc(rows.labels, logits)}
    if rows.users is not None:
        measures["gauc"] = metrics.gauc(rows.labels, logits, rows.users)
    measures["log_loss"] = log_loss(rows.labels, logits)
    try:
        over = {} if rows is first else rows.over(first)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}; compare runs on one dataset") from None
    return Compared(name, len(rows.labels), measures, over)


def _multiply_adds(model: Any) -> int | None:
    from tfctr.comparison.cost import multiply_adds_of_request

    if model.reads_side_outputs or not model.schema.side("item"):
        return None
    try:
        return multiply_adds_of_request(model)
    except NotImplementedError:
        return None


def _milliseconds(runs: Sequence[Any], models: Sequence[Any]) -> list[float | None]:
    from tfctr.comparison.cost import milliseconds

    stages = [run.exported for run in runs]
    are_ranked = all(model.schema.side("item") for model in models)
    if not are_ranked or not all(stage.is_done() for stage in stages):
        return [None] * len(runs)
    return [*milliseconds([stage.path for stage in stages])]


def print_comparison(tables: dict[str, list[Compared]], console: Console | None = None) -> None:
    """Prints a table of all rows with costs, and one of the segments."""
    console = console or Console()
    first = tables[""][0].name
    whole = _table("model", "AUC", "GAUC", "log loss", "parameters", "million\nproducts", "ms")
    for one in tables[""]:
        cost = one.multiply_adds and one.multiply_adds / 1e6
        whole.add_row(
            Text(one.name),
            *(_value(one, name) for name in MEASURES),
            "–" if one.parameters is None else f"{one.parameters:,}",
            "–" if cost is None else f"{cost:,.2f}",
            "–" if one.milliseconds is None else f"{one.milliseconds:.2f}",
        )
        for cells in _differences(one, MEASURES):
            whole.add_row(*cells)
    console.print(whole)
    segments = _table("segment", "model", "rows", "AUC", "GAUC")
    for segment, found in tables.items():
        for one in found if segment else ():
            label = segment.replace("_", " ") if one is found[0] else ""
            values = (_value(one, name) for name in MEASURES[:2])
            segments.add_row(label, Text(one.name), f"{one.rows:,}", *values)
            for line, *cells in _differences(one, MEASURES[:2]):
                segments.add_row("", line, "", *cells)
    if segments.rows:
        console.print(segments)
    console.print(
        f"Differences are to {first}, with their 95% intervals over resampled users, the same for "
        "both models. They are of these weights; other seeds vary as well.",
        highlight=False,
        soft_wrap=True,
    )


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for name in names:
        is_name = name in ("model", "segment")
        table.add_column(
            name,
            justify="left" if is_name else "right",
            overflow="fold" if is_name else "ellipsis",
            no_wrap=not is_name,
        )
    return table


def _value(one: Compared, name: str) -> str:
    return f"{one.measures[name]:.4f}" if name in one.measures else "–"


def _differences(one: Compared, names: Sequence[str]) -> Iterator[list[str]]:
    """Three lines below a model's: what its values are over the first run's."""
    for line, key in (("difference", "mean"), ("from", "low"), ("to", "high")):
        if one.over:
            found = (one.over.get(name) for name in names)
            yield [f"  {line}", *("" if d is None else f"{getattr(d, key):+.4f}" for d in found)]
