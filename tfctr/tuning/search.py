"""The search: runs trials one after the other and reports each to optuna's study."""

import logging
import warnings
from pathlib import Path

import optuna
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from tfctr.data.manifest import DataError
from tfctr.stages import DEFAULT_WORK, Run, folder_lock
from tfctr.tuning.journal import best_of, finished, open_study
from tfctr.tuning.report import outcome, print_best, write_best, write_table
from tfctr.tuning.space import Space, load_tune, shown
from tfctr.tuning.trial import name_of, place_model, remove_models, train


def tune(
    path: str | Path,
    work: Path = DEFAULT_WORK,
    console: Console | None = None,
    trials: int | None = None,
) -> Path:
    """Runs the trials that are not done yet and returns the path of `best.yaml`.

    `<work>/<run's name>-tune` holds `table.csv`, a row per trial, `best.yaml`, a run config, and
    optuna's journal, from which a killed search resumes; an interrupted trial keeps its values and
    resumes from its checkpoint. The best model is placed where `best.yaml` finds it.

    Args:
        path: of the YAML file, or a variant in it.
        work: folder of datasets and runs.
        console: for progress and the table of the best trials.
        trials: int. Number of trials in all. Defaults to the file's.

    Raises:
        ConfigError: as for `load_tune`; the folder holds another search.
        DataError: every trial failed.
    """
    console = console or Console()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns for each new model
    space = load_tune(path)
    total = trials or space.config.trials
    run = Run(space.base, work, console)
    run.prepare()
    folder = work / f"{space.base.name}-tune"
    with folder_lock(folder, console):
        study = open_study(folder, space, run.dataset.key())
        while (number := len(finished(study))) < total:
            trial = _next(study, space)
            values = trial.user_attrs["values"]
            to_go = total - number - 1
            console.print(f"trial {number}, {to_go} to go: {shown(values)}", markup=False)
            summary = _run_trial(trial, space, folder, work, console)
            best = _settle(study, space, folder)
            chosen_by = space.base.training.chosen_by
            so_far = (
                f"; best so far {outcome(best, chosen_by)}, trial {best.number}" if best else ""
            )
            console.print(f"trial {number}: {summary}{so_far}", markup=False)
        best = _settle(study, space, folder)
        if best is None:
            why = finished(study)[0].user_attrs["failed"]
            raise DataError(f"{folder}: all {number} trials failed; the first: {why}")
        name, seed = f"{space.base.name}-best", space.config.seeds[0]
        changes = space.changes(_changed(best), seed, name)
        write_best(folder / "best.yaml", best, space, changes)
        place_model(folder / name_of(best.number, seed), work / name)
    print_best(study, console)
    return folder / "best.yaml"


def _next(study: optuna.Study, space: Space) -> optuna.Trial:
    """The interrupted trial of a killed search, with its values; else a new trial, proposed at
    random at first, then by the tree-structured Parzen estimator (Bergstra et al., 2011).

    optuna does not store a sampler with its study. So each trial has a new one, whose seed is the
    trial's number: its proposal follows from the trials before, and a resumed search proposes the
    same as an uninterrupted one. The exception is a kill while a proposal is written: each value is
    a line of the journal, and missing values of an incomplete proposal are drawn again.
    """
    study.sampler = TPESampler(seed=len(finished(study)), constant_liar=False)
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    trial = optuna.Trial(study, running[0]._trial_id) if running else study.ask()
    if "values" not in trial.user_attrs:
        is_own = trial.number == 0
        keys = sorted(space.own_parameters if is_own else space.config.space)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run's own values may be outside of the space
            found = {key: space.config.space[key].suggest(trial, key) for key in keys}
        trial.set_user_attr("values", space.own_values if is_own else found)
    return trial


def _run_trial(
    trial: optuna.Trial, space: Space, folder: Path, work: Path, console: Console
) -> str:
    """Trains a trial, unless its values were trained, and reports it; returns a summary."""
    study, number, values = trial.study, trial.number, trial.user_attrs["values"]
    twin = next((t for t in finished(study) if t.user_attrs["values"] == values), None)
    if twin is not None:
        found = {key: value for key, value in twin.user_attrs.items() if key != "values"}
    else:
        changed, seeds = _changed(trial), space.config.seeds
        runs = (space.run(changed, seed, name_of(number, seed)) for seed in seeds)
        found = train(runs, folder, work, console)
    for key, value in found.items():
        trial.set_user_attr(key, value)
    chosen_by = space.base.training.chosen_by
    if found["failed"]:
        study.tell(trial, state=TrialState.PRUNED)
        summary = found["failed"]
    else:
        summary = f"validation {outcome(study.tell(trial, found[f'valid_{chosen_by}']), chosen_by)}"
    return summary if twin is None else f"the values of trial {twin.number}"


def _changed(trial: optuna.Trial | FrozenTrial) -> dict[str, object]:
    """The changes of a trial to the run config; none for the first."""
    return trial.user_attrs["values"] if trial.number else {}


def _settle(study: optuna.Study, space: Space, folder: Path) -> FrozenTrial | None:
    """Writes the table and deletes all models but the best trial's; returns this trial, if any."""
    write_table(folder / "table.csv", study, space)
    best = best_of(study)
    remove_models(
        folder, [t.number for t in finished(study) if best is None or t.number != best.number]
    )
    return best
