"""A search over the values of a run config, chosen as its epochs are: `tfctr tune FILE`.

Each trial trains the run's model with other values, once for each seed. Test rows are never read.
"""

import csv
import io
import json
import logging
import math
import os
import re
import shutil
import statistics
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, JsonValue, PlainValidator, model_validator
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfctr.config import (
    ConfigError,
    RunConfig,
    data_digest,
    digest,
    load_run,
    read_run,
    read_yaml,
    validate,
)
from tfctr.data import files
from tfctr.data.manifest import DataError, read_manifest, write_manifest
from tfctr.frameworks.earlier_model import VOCABULARIES
from tfctr.metrics.report import TITLES
from tfctr.pipeline import DEFAULT_WORK, Run
from tfctr.schema import TOKEN_KINDS, Numeric, Schema, Strict

try:
    import optuna
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.trial import TrialState
except ModuleNotFoundError:
    raise ConfigError("`tfctr tune` needs optuna: pip install 'tfctr[tune]'") from None

SHOWN = 10  # rows of the printed table


def _number(value: Any) -> int | float:
    if isinstance(value, str):  # YAML takes 1e-4 for text
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"found {value!r}; a number is needed")
    return value


Number = Annotated[int | float, PlainValidator(_number)]


class Searched(Strict):
    """What a key may be: one of `choices`, or a number from `low` to `high`, both included.

    Numbers are whole where `low` and `high` are.
    """

    low: Number | None = None
    high: Number | None = None
    step: Number | None = None
    log: bool = False  # as many from 0.1 to 1 as from 1 to 10
    choices: tuple[JsonValue, ...] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _one_of_two(self) -> "Searched":
        if self.choices is not None:
            beside = sorted(self.model_fields_set - {"choices"})
            if beside:
                raise ValueError(f"choices stand alone, found {', '.join(beside)} beside them")
            if len({json.dumps(choice) for choice in self.choices}) < len(self.choices):
                raise ValueError(f"choices must differ, found {list(self.choices)}")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give choices, or low and high")
        if self.low >= self.high:
            raise ValueError(f"low must be below high, found {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 where log is true, found {self.low}")
        if self.step is not None:
            if self.log:
                raise ValueError("step and log exclude each other")
            if self.step <= 0 or (self.is_whole and not isinstance(self.step, int)):
                kind = "whole number" if self.is_whole else "number"
                raise ValueError(f"step must be a {kind} above 0, found {self.step}")
            steps = (self.high - self.low) / self.step
            if not math.isclose(steps, round(steps)):
                raise ValueError(
                    f"high must be a number of steps above low, found {self.low} and {self.high} "
                    f"with step {self.step}"
                )
        return self

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def extremes(self) -> tuple[Any, ...]:
        """All choices, or both ends."""
        return (self.low, self.high) if self.choices is None else self.choices

    @property
    def distribution(self) -> BaseDistribution:
        """In optuna's terms; choices as JSON, for optuna takes no lists."""
        if self.choices is not None:
            return CategoricalDistribution([json.dumps(choice) for choice in self.choices])
        assert self.low is not None
        assert self.high is not None
        if self.is_whole:
            return IntDistribution(
                int(self.low), int(self.high), log=self.log, step=int(self.step or 1)
            )
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def value(self, asked: Any) -> Any:
        """What optuna asks for, as it stands in a run config."""
        if self.choices is not None:
            return json.loads(asked)
        if self.step is None or self.is_whole:
            return asked
        return float(f"{asked:.12g}")  # 0.1 + 2 * 0.1 is not 0.3


class TuneConfig(Strict):
    """A search: `tfctr tune FILE`."""

    run: str  # a run config, its path relative to this file
    trials: int = Field(20, ge=1)  # the run's own values are the first
    seeds: tuple[int, ...] = Field((1,), min_length=1)  # a trial counts as the mean over them
    space: dict[str, Searched] = Field(min_length=1)  # by key, e.g. training.optimizer.name

    @model_validator(mode="after")
    def _seeds_and_keys(self) -> "TuneConfig":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, found {list(self.seeds)}")
        for key in self.space:
            if key == "training.chosen_by":
                raise ValueError(f"space.{key}: trials are compared by what the run is chosen by")
            if key == "training.seed":
                raise ValueError(f"space.{key}: the key 'seeds' gives the seeds of a trial")
            if not re.fullmatch(r"(model|training)(\.\w+)+", key):
                raise ValueError(
                    f"space: found key {key!r}; allowed: keys of a run's model and training, "
                    "e.g. model.embedding_dim, training.optimizer.learning_rate"
                )
        return self


@dataclass(frozen=True)
class Trial:
    """What a trial came to: means over its seeds at their best epochs, or why it failed."""

    trial: int  # from 0
    values: dict[str, Any]  # by searched key
    valid_auc: float | None = None
    valid_auc_deviation: float | None = None  # over seeds; None for a single one
    valid_log_loss: float | None = None
    valid_gauc: float | None = None  # None where it is undefined
    best_epoch: float | None = None  # from 1
    seconds: float | None = None  # of training, all seeds
    parameters: int | None = None
    failed: str = ""

    def score(self, chosen_by: str) -> float | None:
        """What `training.chosen_by` names, the greater the better; None if it failed."""
        value = getattr(self, f"valid_{chosen_by}")
        return -value if value is not None and chosen_by == "log_loss" else value


def load_tune(path: str | Path) -> tuple[TuneConfig, RunConfig]:
    """The search of a file and the run that it starts from.

    Raises:
        ConfigError: also for a value of the space that the run config or the backbone refuses.
    """
    path = Path(path)
    config = validate(path, TuneConfig, read_yaml(path))
    run_path = path.parent / config.run
    base = load_run(run_path)
    if base.data.name in (f"{base.name}-tune", f"{base.name}-best"):
        raise ConfigError(f"{run_path}: data.name: {base.data.name!r} is a folder of the search")
    if base.training.strategy == "multi_worker":
        raise ConfigError(
            f"{run_path}: training.strategy: found 'multi_worker'; a search runs on one machine: "
            "one_device or mirrored"
        )
    content = read_run(run_path)
    try:
        _try_model(base)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{run_path}: model: {_reason(error)}") from None
    tried = set()
    for values in _covering(config):
        run = validate(path, RunConfig, _changed(content, values), under="space")
        if digest(run.model) in tried:
            continue
        tried.add(digest(run.model))
        try:
            _try_model(run)
        except (ValueError, TypeError, KeyError) as error:
            shown = _shown({key: v for key, v in values.items() if key.startswith("model.")})
            raise ConfigError(f"{path}: space: found {shown}; {_reason(error)}") from None
    return config, base


def tune(
    path: str | Path,
    work: Path = DEFAULT_WORK,
    console: Console | None = None,
    trials: int | None = None,
) -> Path:
    """Runs the trials that are not done yet and gives the path of `best.yaml`.

    In `<work>/<run's name>-tune` lie `table.csv`, a row a trial, `best.yaml`, a run config, and
    `trials.json`, which a search that was killed goes on from; a trial that it was killed in goes
    on from its checkpoint. The best model itself is put where `best.yaml` looks for it.

    Args:
        path: of the YAML file.
        work: folder of datasets and runs.
        console: for progress and the table of the best trials.
        trials: int. How many there are to be; what the file says if not given.

    Raises:
        ConfigError: as for `load_tune`; the folder holds another search.
        DataError: every trial failed.
    """
    path, console = Path(path), console or Console()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of model after model
    config, base = load_tune(path)
    chosen_by = base.training.chosen_by
    run_path = path.parent / config.run
    content = read_run(run_path)
    folder = work / f"{base.name}-tune"
    manifest = Run(base, work, console).prepare()
    parts = {"model", "training"}
    parts |= {part for part in ("similar", "framework") if getattr(base, part) is not None}
    key = {
        "run": digest(base.model_dump(include=parts, mode="json")),
        "data": data_digest(manifest),
        "seeds": digest(list(config.seeds)),
        "space": digest({name: found.model_dump() for name, found in config.space.items()}),
    }

    def runs(number: int, values: dict[str, Any]) -> Iterator[Run]:
        for seed in config.seeds:
            changed = _changed(content, {} if number == 0 else values, seed)
            run = Run(validate(path, RunConfig, changed, under="space"), work, console)
            run.folder = _trial_folder(folder, number, seed)
            yield run

    done = _read_trials(folder, key)
    total = trials or config.trials
    while len(done) < total:
        number = len(done)
        values = _own_values(base, config) if number == 0 else _propose(config, done, chosen_by)
        to_go = total - number - 1
        console.print(f"trial {number}, {to_go} to go: {_shown(values)}", markup=False)
        same = next((trial for trial in done if trial.values == values), None)
        if same is not None:
            trial = replace(same, trial=number)
            outcome = f"the values of trial {same.trial}"
        else:
            trial = _train(number, values, runs(number, values))
            outcome = trial.failed or f"validation {_outcome(trial, chosen_by)}"
        done.append(trial)
        _write(folder, key, config, done)
        best = _best(done, chosen_by)
        _remove_models(folder, best)
        so_far = f"; best so far {_outcome(best, chosen_by)}, trial {best.trial}" if best else ""
        console.print(f"trial {number}: {outcome}{so_far}", markup=False)
    best = _best(done, chosen_by)
    if best is None:
        raise DataError(f"{folder}: all {len(done)} trials failed; the first: {done[0].failed}")
    changed = _changed(content, {} if best.trial == 0 else best.values, config.seeds[0])
    changed["name"] = f"{base.name}-best"
    changed |= _references(run_path, folder)
    comment = f"# trial {best.trial} of {path.name}: validation {_outcome(best, chosen_by)}\n"
    best_path = folder / "best.yaml"
    text = yaml.safe_dump(changed, sort_keys=False, default_flow_style=None)
    files.write(str(best_path), (comment + text).encode())
    _place(_trial_folder(folder, best.trial, config.seeds[0]), work / changed["name"])
    _print(done, chosen_by, console)
    return best_path


def _train(number: int, values: dict[str, Any], runs: Iterator[Run]) -> Trial:
    """A trial: a run for each seed. What goes wrong is its reason to have failed."""
    import keras
    import tensorflow as tf

    found = []
    try:
        for run in runs:
            keras.utils.clear_session()  # else every trial's model stays in memory
            run.train()
            found.append(read_manifest(run.folder / "train.json") or {})
    except (ValueError, tf.errors.ResourceExhaustedError) as error:
        return Trial(number, values, failed=_reason(error))
    best = [manifest["epochs"][manifest["best_epoch"] - 1] for manifest in found]
    aucs = [epoch["valid_auc"] for epoch in best]
    gaucs = [epoch["valid_gauc"] for epoch in best if "valid_gauc" in epoch]
    seconds = sum(epoch["seconds"] for manifest in found for epoch in manifest["epochs"])
    return Trial(
        number,
        values,
        valid_auc=statistics.mean(aucs),
        valid_auc_deviation=statistics.stdev(aucs) if len(aucs) > 1 else None,
        valid_log_loss=statistics.mean(epoch["valid_log_loss"] for epoch in best),
        valid_gauc=statistics.mean(gaucs) if gaucs else None,
        best_epoch=statistics.mean(manifest["best_epoch"] for manifest in found),
        seconds=round(seconds, 3),
        parameters=found[0]["parameters"],
    )


def _changed(content: dict[str, Any], values: dict[str, Any], seed: int = 1) -> dict[str, Any]:
    """The content of a run config with the values of dotted keys, and the seed, put in."""
    changed = dict(content)
    # Sorted: where both a mapping and a key inside it are searched, the mapping comes first.
    for key, value in [*sorted(values.items()), ("training.seed", seed)]:
        *parents, last = key.split(".")
        inner = changed
        for part in parents:
            found = inner.get(part)
            inner[part] = dict(found) if isinstance(found, dict) else {}
            inner = inner[part]
        inner[last] = value
    return changed


def _references(run_path: Path, folder: Path) -> dict[str, Any]:
    """What a run config names, as a config in `folder` has to name it."""

    def seen_from_there(path: Path) -> str:
        return os.path.relpath(path.resolve(), folder.resolve())

    content = read_yaml(run_path)
    found: dict[str, Any] = {"data": seen_from_there(run_path)}
    if isinstance(content.get("similar"), str):
        found["similar"] = seen_from_there(run_path.parent / content["similar"])
    framework = content.get("framework")
    for key in ("knowledge", "text"):
        if framework and isinstance(framework.get(key), str):
            made_from = seen_from_there(run_path.parent / framework[key])
            found["framework"] = framework | {key: made_from}
    return found


def _covering(config: TuneConfig) -> Iterator[dict[str, Any]]:
    """Values in which each key's choices, or both its ends, occur, the other keys at their first.

    All of them can come up in a trial. What only other combinations reveal makes a trial fail.
    """
    first = {key: searched.extremes[0] for key, searched in config.space.items()}
    yield first
    for key, searched in config.space.items():
        for value in searched.extremes[1:]:
            yield first | {key: value}


def _try_model(config: RunConfig) -> None:
    """Makes the model to see whether it can be made."""
    _model(config).build()


def _model(config: RunConfig) -> Any:
    """The model of a run, its vocabularies without tokens: it needs no data."""
    from tfctr.frameworks.create import create_model

    return create_model(config, _stand_in(config.data.feature_schema))


def _stand_in(schema: Schema) -> Schema:
    """The schema as if it were fitted."""
    measured: dict[str, dict[str, Any]] = {}
    for feature in schema:
        if isinstance(feature, TOKEN_KINDS):
            measured[feature.name] = {"vocabulary_size": 3}
        elif isinstance(feature, Numeric):
            measured[feature.name] = {"mean": 0.0, "std": 1.0, "boundaries": (0.0,)}
    return schema.fitted(measured)


def _own_values(base: RunConfig, config: TuneConfig) -> dict[str, Any]:
    """What the run config, or a default, says of each searched key; None where neither does."""
    model = _model(base).get_config() | base.model.model_dump()
    content = json.loads(json.dumps({"model": model, "training": base.training.model_dump()}))
    values = {}
    for key in config.space:
        found: Any = content
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        values[key] = found
    return values


def _propose(config: TuneConfig, done: list[Trial], chosen_by: str) -> dict[str, Any]:
    """The next values to try; they follow from the trials done, so a resumed search is the same.

    By the tree-structured Parzen estimator (Bergstra et al., 2011), at random at first.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {key: searched.distribution for key, searched in sorted(config.space.items())}
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=len(done))
    )
    for trial in done:
        params = {
            key: value if config.space[key].choices is None else json.dumps(value)
            for key, value in trial.values.items()
        }
        # A trial that failed would be left out of account; one that was pruned counts as bad.
        score = trial.score(chosen_by)
        state = TrialState.PRUNED if score is None else TrialState.COMPLETE
        try:
            study.add_trial(
                optuna.create_trial(state=state, value=score, params=params, distributions=space)
            )
        except ValueError:
            if trial.trial != 0:  # the run's own values may lie outside the space
                raise
    asked = study.ask(space).params
    return {key: searched.value(asked[key]) for key, searched in config.space.items()}


def _best(done: list[Trial], chosen_by: str) -> Trial | None:
    """The best mean over seeds; of equals, the first. None where all failed."""
    return next(iter(_ranked(done, chosen_by)), None)


def _ranked(done: list[Trial], chosen_by: str) -> list[Trial]:
    """The trials that did not fail, the best first."""
    scored = [(trial.score(chosen_by), trial) for trial in done]
    found = [(score, trial) for score, trial in scored if score is not None]
    return [trial for _, trial in sorted(found, key=lambda each: (-each[0], each[1].trial))]


def _outcome(trial: Trial, chosen_by: str) -> str:
    return f"{TITLES[chosen_by]} {getattr(trial, f'valid_{chosen_by}'):.4f}"


def _read_trials(folder: Path, key: dict[str, str]) -> list[Trial]:
    manifest = read_manifest(folder / "trials.json")
    if manifest is None:
        return []
    differ = [what for what, found in manifest["key"].items() if found != key[what]]
    if differ:
        raise ConfigError(
            f"{folder}: holds {len(manifest['trials'])} trials of another search: other "
            f"{', '.join(differ)}; remove the folder, or name another with --work"
        )
    return [Trial(**trial) for trial in manifest["trials"]]


def _write(folder: Path, key: dict[str, str], config: TuneConfig, done: list[Trial]) -> None:
    text = io.StringIO()
    rest = [field.name for field in fields(Trial) if field.name not in ("trial", "values")]
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["trial", *config.space, *rest])
    for trial in done:
        found = [trial.values[key] for key in config.space]
        values = [value if isinstance(value, str) else json.dumps(value) for value in found]
        table.writerow([trial.trial, *values, *(getattr(trial, name) for name in rest)])
    files.write(str(folder / "table.csv"), text.getvalue().encode())
    manifest = {"key": key, "trials": [asdict(trial) for trial in done]}
    write_manifest(manifest, str(folder / "trials.json"))


def _trial_folder(folder: Path, number: int, seed: int) -> Path:
    return folder / f"trial-{number:04d}-seed-{seed}"


def _remove_models(folder: Path, best: Trial | None) -> None:
    """Leaves of all trials but the best only the history of their epochs, `train.json`."""
    kept = "" if best is None else f"trial-{best.trial:04d}-"
    for path in folder.glob("trial-*/*"):
        is_best = bool(kept) and path.parent.name.startswith(kept)
        if path.name == "train.json" or is_best:
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _place(trained: Path, run_folder: Path) -> None:
    """Puts the trained model where the run of `best.yaml` finds it done."""
    if not (trained / "model.keras").is_file():
        return  # thrown away since; `tfctr run` trains it again
    run_folder.mkdir(exist_ok=True)
    (run_folder / "train.json").unlink(missing_ok=True)
    shutil.copytree(trained / VOCABULARIES, run_folder / VOCABULARIES, dirs_exist_ok=True)
    for name in ("model.keras", "train.json"):  # the manifest last: it says that the model is whole
        shutil.copy(trained / name, run_folder / name)


def _print(done: list[Trial], chosen_by: str, console: Console) -> None:
    table = Table(title="best trials; 0 is the run itself", box=box.SIMPLE_HEAD)
    for name in ("trial", "valid AUC", "GAUC", "log loss", "parameters"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("values")
    distinct = {json.dumps(trial.values): trial for trial in reversed(done)}
    for trial in _ranked(list(distinct.values()), chosen_by)[:SHOWN]:
        deviation = trial.valid_auc_deviation
        table.add_row(
            str(trial.trial),
            f"{trial.valid_auc:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}"),
            "–" if trial.valid_gauc is None else f"{trial.valid_gauc:.4f}",
            f"{trial.valid_log_loss:.4f}",
            f"{trial.parameters:,}",
            Text(_shown({key.rpartition(".")[2]: v for key, v in trial.values.items()})),
        )
    console.print(table)


def _shown(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_text(value)}" for key, value in values.items())


def _text(value: Any) -> str:
    """A value as it is printed."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _reason(error: Exception) -> str:
    """An error as one line; Keras puts colours in, and the arguments of the call behind it."""
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    text = re.sub(r"\x1b\[\d+m", "", text).partition("Arguments received")[0]
    return " ".join(text.split())
