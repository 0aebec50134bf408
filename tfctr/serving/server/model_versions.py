"""The served versions of a model: the newest that loads, or those that are named."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2

from tfctr.serving.errors import ServingError, invalid, no_servable, not_found
from tfctr.serving.model_directory import versions, without_versions
from tfctr.serving.server import answers
from tfctr.serving.server.loaded_version import LoadedVersion
from tfctr.serving.warmup import read_warmup

logger = logging.getLogger(__name__)
State = get_model_status_pb2.ModelVersionStatus.State


class ModelVersions:
    """Loads and unloads the versions in a model's directory.

    `poll` loads and warms up the newest version, and only then unloads the one before, which still
    finishes its requests. A version that does not load is reported, and tried again when its files
    change.

    If versions are named, they are served instead of the newest. Labels stand for versions at once,
    loaded or not; call `check_labels` before changing them.

    Args:
        name: the model's name.
        directory: holds a folder for each version.
        labels: versions by label.
        named: the versions to serve; empty: the newest.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        labels: Mapping[str, int] | None = None,
        named: Collection[int] = (),
    ) -> None:
        self.name = name
        self.directory = directory
        self.labels = dict(labels or {})
        self.named = frozenset(named)
        self._served: dict[int, LoadedVersion] = {}
        self._status: dict[int, Any] = {}  # version -> ModelVersionStatus
        self._broken: dict[int, int] = {}  # failed version -> last change of its files, in ns

    def check_labels(self, labels: Mapping[str, int]) -> None:
        """Checks labels before they replace the current ones.

        Raises:
            ValueError: an existing label would move to a version that is not loaded; the text is
                the real server's.
        """
        for label, version in labels.items():
            if self.labels.get(label, version) != version and version not in self._served:
                raise ValueError(
                    f"Request to assign label to version {version} of model {self.name}, which is "
                    "not currently available for inference"
                )

    def get(self, version: int | None, label: str = "") -> LoadedVersion:
        """The version that is asked for: by number, by label, or the newest.

        Raises:
            ServingError: NOT_FOUND, the version is not served; INVALID_ARGUMENT, an unknown label.
        """
        served = self._served  # replaced as a whole, never changed
        if label:
            version = self.labels.get(label)
            if version is None:
                raise invalid(f"Unrecognized servable version label: {label}")
        found = served.get(max(served, default=0) if version is None else version)
        if found is None:
            raise no_servable(self.name, version)
        return found

    def status(self, version: int | None) -> list[Any]:
        """The `ModelVersionStatus` of each known version, newest first; or only of `version`.

        Raises:
            ServingError: NOT_FOUND, no such version is known.
        """
        known = dict(self._status)
        if version is None:
            if not known:
                raise not_found(f"Could not find any versions of model {self.name}")
            return [known[number] for number in sorted(known, reverse=True)]
        if version not in known:
            raise not_found(f"Could not find version {version} of model {self.name}")
        return [known[version]]

    def poll(self) -> None:
        """Serves the newest version in the directory that loads, or the named ones.

        If a version was deleted, the newest of the others takes its place. Versions that are no
        longer wanted are unloaded only after a wanted one is loaded, so there are always answers.
        """
        if not self.directory.is_dir():  # e.g. not mounted now: keep serving, as the real server
            return
        there = versions(self.directory)
        wanted = self.named & there.keys() if self.named else there.keys()
        self._broken = {v: when for v, when in self._broken.items() if v in wanted}
        loaded = set()
        for version in sorted(wanted, reverse=True):
            if self._load(version, there[version]):
                loaded.add(version)
                if not self.named:
                    break
        if loaded or not wanted:
            self._unload_others(loaded)

    def _load(self, version: int, path: Path) -> bool:
        """Whether the version is served, loaded now or before."""
        if version in self._served:
            return True
        changed = _last_change(path)
        if self._broken.get(version) == changed:
            return False
        self._set_status(version, State.LOADING)
        try:
            loaded = LoadedVersion(self.name, version, path)
            _warm_up(loaded, path)
        except Exception as error:  # whatever it is, the version before stays
            logger.error("model %s: version %d does not load: %s", self.name, version, error)
            self._broken[version] = changed
            self._set_status(version, State.END, error)
            return False
        self._served = self._served | {version: loaded}
        self._set_status(version, State.AVAILABLE)
        logger.info("model %s: serving version %d", self.name, version)
        return True

    def _unload_others(self, kept: set[int]) -> None:
        """Unloads all versions except these."""
        for version in self._served.keys() - kept:
            self._set_status(version, State.END)
        self._served = {v: model for v, model in self._served.items() if v in kept}

    def require(self) -> None:
        """Raises ValueError if no version is served."""
        if not self._served:
            why = [f"version {v}: {s.status.error_message}" for v, s in self._status.items()]
            raise ValueError(
                f"model {self.name!r}: {self.directory} holds no version that loads: "
                + ("; ".join(why) if why else without_versions(self.directory))
            )

    def _set_status(self, version: int, state: int, error: Exception | None = None) -> None:
        status = get_model_status_pb2.ModelVersionStatus(version=version, state=state)
        if error is not None:
            status.status.error_code = tf.errors.UNKNOWN
            status.status.error_message = f"{type(error).__name__}: {error}"
        else:
            status.status.error_code = tf.errors.OK
        self._status[version] = status


def _last_change(path: Path) -> int:
    """The newest file's time of change, in nanoseconds; 0 if the folder has been deleted."""
    try:
        return max(p.stat().st_mtime_ns for p in (path, *path.rglob("*")))
    except FileNotFoundError:
        return 0


def _warm_up(model: LoadedVersion, path: Path) -> None:
    for log in read_warmup(path):
        answer, request = {
            "predict_log": (answers.predict, log.predict_log.request),
            "classify_log": (answers.classify, log.classify_log.request),
            "regress_log": (answers.regress, log.regress_log.request),
        }[log.WhichOneof("log_type")]
        try:
            answer(model, request)
        except ServingError as error:
            raise ValueError(f"warm-up request failed: {error}") from error
