"""The page of one run, or of several side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

import tfctr
from tfctr import metrics
from tfctr.comparison import ScoredRows, compare
from tfctr.comparison.compared import MEASURES, Compared
from tfctr.comparison.scored_rows import HEAVY
from tfctr.data.dataset import Dataset
from tfctr.data.manifest import read_manifest
from tfctr.data.summary import described
from tfctr.metrics.report import TITLES
from tfctr.report import page, pictures, run_pictures, settings
from tfctr.report.importance import (
    REPEATS,
    ROWS,
    Importance,
    affordable_rows,
    importances,
    predictor,
)
from tfctr.report.neighbours import LEAST, neighbours
from tfctr.report.pictures import Picture
from tfctr.report.profile import FREQUENT, profile, samples
from tfctr.report.run_pictures import Dot
from tfctr.report.sample import sample
from tfctr.report.settings import Settings
from tfctr.stages import Run, in_order
from tfctr.stages.stage import COST, Stage

SPLITS = ("test", "valid")  # the first one that all runs have is shown
ORDERED = ("auc", "gauc")  # measures of order, which can be compared between segments
FEATURES = 25  # in the picture of importances


def write_runs(runs: Sequence[Run], settings_of: Sequence[Settings], path: Path) -> None:
    """Writes one HTML file about evaluated runs on one dataset.

    Args:
        runs: all evaluated, with their baselines; the first is what the others are compared with.
        settings_of: theirs.
        path: of the file.

    Raises:
        ConfigError: a library is not installed; runs have other held-out rows than the first one.
        DataError: a model is not there.
    """
    page.check_installed()
    names = [run.config.name for run in runs]
    trained = {run.config.name: read_manifest(run.trained.manifest_path) or {} for run in runs}
    models = [run.load_model() for run in runs]
    datasets = {run.config.data.name: Dataset.open(run.data_folder) for run in runs}
    columns = {name: samples(data) for name, data in datasets.items()}
    page.write_page(
        path,
        __package__,
        "runs.html",
        names=names,
        version=tfctr.__version__,
        data={name: described(data.manifest) for name, data in datasets.items()},
        results=_results(runs, models),
        curves=run_pictures.learning_curves(trained),
        trained=trained,
        profiles={name: profile(data, columns[name]) for name, data in datasets.items()},
        sampled={
            name: {split: len(next(iter(of.values()))) for split, of in found.items()}
            for name, found in columns.items()
        },
        importance=_importance(runs, models),
        neighbours={
            run.config.name: neighbours(
                model,
                datasets[run.config.data.name],
                columns[run.config.data.name]["train"],
                run.config.data.item,
            )
            for run, model in zip(runs, models, strict=True)
        },
        least=LEAST,
        frequent=FREQUENT,
        stages=_stages(runs),
        settings=dict(zip(names, settings_of, strict=True)),
        between=settings.between([run.config for run in runs]),
        configs={run.config.name: settings.as_yaml(run.config) for run in runs},
    )


# --- results ------------------------------------------------------------------------------------


class Line(NamedTuple):
    """A line of the table of results.

    Attributes:
        name: of a run or of a baseline.
        measured: as in `metrics.json`.
        compared: with the first run; None of a baseline.
    """

    name: str
    measured: Mapping[str, Any]
    compared: Compared | None


class Results(NamedTuple):
    """What was measured on held-out rows.

    Attributes:
        split: whose rows.
        measures: "auc", "log_loss" and, if the data has users, "gauc".
        resampled: "users" or "rows", for intervals.
        lines: of the runs.
        baselines: of the baselines, with their dataset's name if there are several.
        segments: by name, a line for each run.
        dots, segment_dots, curves, scores: pictures.
    """

    split: str
    measures: Sequence[str]
    resampled: str
    lines: list[Line]
    baselines: list[Line]
    segments: Mapping[str, list[Line]]
    dots: list[Picture]
    segment_dots: list[Picture]
    curves: list[Picture]
    scores: list[Picture]


def _results(runs: Sequence[Run], models: Sequence[Any]) -> Results | None:
    """None if the runs have no held-out rows in common."""
    found = [read_manifest(run.evaluated.path) or {} for run in runs]
    split = next((name for name in SPLITS if all(name in of for of in found)), None)
    if split is None:
        return None
    names = [run.config.name for run in runs]
    tables = compare(runs, split, models)
    rows = [ScoredRows.read([run.folder], split) for run in runs]
    lines = [
        Line(name, of[split], one) for name, of, one in zip(names, found, tables[""], strict=True)
    ]
    segments: dict[str, list[Line]] = {
        segment: [
            Line(name, of[split]["segments"][segment], _at(tables.get(segment), i))
            for i, (name, of) in enumerate(zip(names, found, strict=True))
        ]
        for segment in found[0][split]["segments"]
    }
    if rows[0].segments.get(HEAVY, np.zeros(1)).any():
        segments[HEAVY] = [
            Line(name, _measured(of.of_segment(HEAVY)), _at(tables.get(HEAVY), i))
            for i, (name, of) in enumerate(zip(names, rows, strict=True))
        ]
    baselines = _baselines(runs, split)
    measures = [name for name in MEASURES if lines[0].measured.get(name) is not None]
    labels = rows[0].labels
    logits = {name: of.logits[0].astype(np.float64) for name, of in zip(names, rows, strict=True)}
    probabilities = {name: expit(of) for name, of in logits.items()}
    curves = [run_pictures.calibration(probabilities, labels)]
    if 0 < labels.sum() < len(labels):
        curves.append(run_pictures.roc(logits, labels))
    by_segment = [_segment_dots(name, lines, segments) for name in measures if name in ORDERED]
    return Results(
        split,
        measures,
        lines[0].measured["resampled"],
        lines,
        baselines,
        segments,
        [_result_dots(name, lines, baselines) for name in measures],
        [picture for picture in by_segment if picture is not None],
        curves,
        [
            run_pictures.scores_by_label(name, i, of, labels)
            for i, (name, of) in enumerate(probabilities.items())
        ],
    )


def _at(compared: Sequence[Compared] | None, i: int) -> Compared | None:
    return None if compared is None else compared[i]


def _measured(rows: ScoredRows) -> dict[str, Any]:
    return metrics.evaluate(rows.labels, rows.logits[0], rows.users)


def _baselines(runs: Sequence[Run], split: str) -> list[Line]:
    of_data = {run.config.data.name: read_manifest(run.baselines.path) or {} for run in runs}
    return [
        Line(name if len(of_data) == 1 else f"{name}, {data}", measured, None)
        for data, found in of_data.items()
        for name, measured in found.get(split, {}).items()
    ]


def _result_dots(measure: str, lines: Sequence[Line], baselines: Sequence[Line]) -> Picture:
    # The base rate orders nothing: its AUC is 0.5, and would make the others look alike.
    shown = [line for line in baselines if _orders(line, measure)]
    values = [_dot(line, measure, i, i) for i, line in enumerate(lines)]
    values += [_dot(line, measure, len(lines) + i, None) for i, line in enumerate(shown)]
    names = [line.name for line in (*lines, *shown)]
    there = [dot for dot in values if dot is not None]
    return run_pictures.dots(TITLES[measure], names, there, pictures.WIDER, apart=False)


def _orders(line: Line, measure: str) -> bool:
    return measure not in ORDERED or line.measured.get("auc") != 0.5


def _segment_dots(
    measure: str, lines: Sequence[Line], segments: Mapping[str, list[Line]]
) -> Picture | None:
    found = {"all rows": list(lines)} | {
        segment.replace("_", " "): of for segment, of in segments.items()
    }
    found = {name: of for name, of in found.items() if of[0].measured.get(measure) is not None}
    if len(found) < 2:
        return None
    values = [
        _dot(line, measure, place, i)
        for place, of in enumerate(found.values())
        for i, line in enumerate(of)
    ]
    there = [dot for dot in values if dot is not None]
    title = f"{TITLES[measure]} by segment"
    return run_pictures.dots(title, list(found), there, pictures.WIDER)


def _dot(line: Line, measure: str, place: int, series: int | None) -> Dot | None:
    value = line.measured.get(measure)
    if value is None:
        return None
    low, high = line.measured.get("intervals", {}).get(measure, (None, None))
    return Dot(place, series, value, low, high)


# --- features -----------------------------------------------------------------------------------


class RunImportance(NamedTuple):
    """The importances of a run's features, from a sample of rows; or why there are none."""

    rows: int
    split: str
    found: list[Importance]
    not_read: list[str]
    why: str


class AllImportances(NamedTuple):
    """Those of all runs, and a picture of the most important features, `shown` at most."""

    of_runs: Mapping[str, RunImportance]
    features: list[str]
    picture: Picture | None
    shown: int
    repeats: int


def _importance(runs: Sequence[Run], models: Sequence[Any]) -> AllImportances:
    found = {
        run.config.name: _importance_of(run, model) for run, model in zip(runs, models, strict=True)
    }
    best: dict[str, float] = {}
    for of in found.values():
        for one in of.found:
            best[one.name] = max(one.mean, best.get(one.name, one.mean))
    features = sorted(best, key=lambda name: -best[name])
    shown = features[:FEATURES]
    values = [
        Dot(shown.index(one.name), i, one.mean, one.low, one.high)
        for i, of in enumerate(found.values())
        for one in of.found
        if one.name in shown
    ]
    picture = None
    if values:
        title = "Fall of AUC where a feature is shuffled"
        picture = run_pictures.dots(title, shown, values, pictures.WIDER)
    return AllImportances(found, features, picture, FEATURES, REPEATS)


def _importance_of(run: Run, model: Any) -> RunImportance:
    data, names = run.open_data(), list(model.reads)
    not_read = [feature.name for feature in data.schema.inputs if feature.name not in names]
    split = next((name for name in SPLITS if data.num_rows(name)), None)
    if split is None:
        return RunImportance(0, "", [], not_read, "there are no held-out rows")
    columns = sample(data, split, [*names, "label"], ROWS[0])
    labels = columns.pop("label")
    predict = predictor(model)
    rows = affordable_rows(predict, columns)
    if rows is None:
        return RunImportance(
            0, split, [], not_read, "the model is too slow for so many predictions"
        )
    chosen = np.random.default_rng(1).permutation(len(labels))[:rows]
    columns, labels = {name: of[chosen] for name, of in columns.items()}, labels[chosen]
    if not 0 < labels.sum() < rows:
        why = f"the sample of {rows:,} rows has no click, or nothing but clicks"
        return RunImportance(rows, split, [], not_read, why)
    return RunImportance(rows, split, importances(predict, columns, labels), not_read, "")


# --- stages -------------------------------------------------------------------------------------


class StageCost(NamedTuple):
    """What a stage cost when it was built; None where it was not measured."""

    stage: str
    path: str
    seconds: float | None
    peak_bytes: int | None


def _stages(runs: Sequence[Run]) -> list[StageCost]:
    """Those of all runs, each once."""
    found: dict[tuple[Path, str], StageCost] = {}
    for run in runs:
        stages: list[Stage] = [*in_order(run.evaluated), run.baselines, run.exported]
        for stage in stages:
            manifest = read_manifest(stage.manifest_path)
            if manifest is None or not stage.is_done():
                continue
            cost = manifest.get(COST, {})
            found[(stage.folder, stage.name)] = StageCost(
                stage.name, str(stage.path), cost.get("seconds"), cost.get("peak_bytes")
            )
    return list(found.values())
