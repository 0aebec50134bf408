"""A search on disk: optuna's journal, which has a line for each event of a study."""

import os
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from tfctr.config import ConfigError, digest
from tfctr.tuning.space import Space

JOURNAL = "journal.log"


def open_study(folder: Path, space: Space, data: str) -> optuna.Study:
    """The study in a folder, created if needed. Its first trial has the run's own values.

    Args:
        folder: its lock must be held.
        space: of the search.
        data: the digest of its data.

    Raises:
        ConfigError: the folder holds another search.
    """
    base, config = space.base, space.config
    made_from = {
        "run": digest(base, without=("name", "data", "export")),
        "data": data,
        "seeds": digest(list(config.seeds)),
        "space": digest({key: searched.model_dump() for key, searched in config.space.items()}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=base.name,
        storage=_open_storage(folder / JOURNAL),
        direction="minimize" if base.training.chosen_by == "log_loss" else "maximize",
        load_if_exists=True,
    )
    found = study.user_attrs.get("made_from", made_from)
    if differ := [what for what, key in made_from.items() if found.get(what) != key]:
        raise ConfigError(
            f"{folder}: holds {len(finished(study))} trials of another search: other "
            f"{', '.join(differ)}; remove the folder, or name another with --work"
        )
    if not study.trials:
        study.set_user_attr("made_from", made_from)
        study.enqueue_trial(space.own_parameters)
    return study


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The finished trials, in order. Failed trials are recorded as pruned.

    optuna ignores trials that it records as failed, and would try their values again; pruned trials
    count as bad.
    """
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """The trial with the best mean over seeds, the first among equals; None if all failed."""
    found = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return study.best_trial if found else None


def _open_storage(path: Path) -> JournalStorage:
    """Opens the journal; removes a killed process's lock and its incomplete last line."""
    Path(f"{path}.lock").unlink(missing_ok=True)  # the folder's lock is held
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    return JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
