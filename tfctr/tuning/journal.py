"""A search on disk: optuna's journal, a line for all that happens to a study."""

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
    """The study of a folder, begun if there is none. Its first trial has the run's own values.

    Args:
        folder: whose lock is held.
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
    """The trials that are done, in order; those that failed are pruned ones in optuna's terms.

    optuna leaves those that failed in its own terms out of account, and would try the same again;
    pruned ones count as bad.
    """
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """The best mean over seeds; of equals, the first. None where all failed."""
    found = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return study.best_trial if found else None


def _open_storage(path: Path) -> JournalStorage:
    """The journal, without what a killed process left: its lock, and half a last line."""
    Path(f"{path}.lock").unlink(missing_ok=True)  # that of the folder is held
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    return JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
