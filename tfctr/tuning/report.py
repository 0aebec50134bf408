"""The results of a search: its table, the best trials, and the config of the best run."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfctr.data import files
from tfctr.metrics.report import TITLES
from tfctr.tuning.journal import finished
from tfctr.tuning.space import Space, shown
from tfctr.tuning.trial import MEASURES

SHOWN = 10  # rows of the printed table


def write_table(path: Path, study: optuna.Study, space: Space) -> None:
    """Writes one row per trial: its number, values, measures, and why it failed."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["trial", *space.config.space, *MEASURES, "failed"])
    for trial in finished(study):
        found = [trial.user_attrs["values"][key] for key in space.config.space]
        values = [value if isinstance(value, str) else json.dumps(value) for value in found]
        rest = [trial.user_attrs.get(name) for name in (*MEASURES, "failed")]
        table.writerow([trial.number, *values, *rest])
    files.write(str(path), text.getvalue().encode())


def write_best(path: Path, best: FrozenTrial, space: Space, changes: dict[str, Any]) -> None:
    """Writes a run config that extends the search's run by the best trial's changes."""
    file, mark, variant = space.config.run.partition("#")
    base = os.path.relpath(Path(file).resolve(), path.parent.resolve()) + mark + variant
    result = outcome(best, space.base.training.chosen_by)
    comment = f"# trial {best.number} of {Path(space.path).name}: validation {result}\n"
    content = {"extends": base, **changes}
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, allow_unicode=True)
    files.write(str(path), (comment + text).encode())


def outcome(trial: FrozenTrial, chosen_by: str) -> str:
    return f"{TITLES[chosen_by]} {trial.value:.4f}"


def print_best(study: optuna.Study, console: Console) -> None:
    table = Table(title="best trials; 0 is the run itself", box=box.SIMPLE_HEAD)
    for name in ("trial", "valid AUC", "GAUC", "log loss", "parameters"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("values")
    ranked = sorted(
        study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)),
        key=lambda trial: trial.value or 0.0,
        reverse=study.direction == StudyDirection.MAXIMIZE,
    )
    distinct: dict[str, FrozenTrial] = {}
    for trial in ranked:
        distinct.setdefault(json.dumps(trial.user_attrs["values"], sort_keys=True), trial)
    for trial in list(distinct.values())[:SHOWN]:
        found = trial.user_attrs
        deviation, gauc = found["valid_auc_deviation"], found["valid_gauc"]
        table.add_row(
            str(trial.number),
            f"{found['valid_auc']:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}"),
            "–" if gauc is None else f"{gauc:.4f}",
            f"{found['valid_log_loss']:.4f}",
            f"{found['parameters']:,}",
            Text(shown({key.rpartition(".")[2]: v for key, v in found["values"].items()})),
        )
    console.print(table)
