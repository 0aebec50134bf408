"""Which versions of a model are served: the newest that loads, or those that are named."""

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
    """Follows a model's directory.

    `poll` loads and warms up the newest version, and only then retires the one before. Requests
    that hold the old one are finished by it. A version that does not load is reported and left
    alone until its files change.

    Where versions are named they are served instead. Labels stand for them at once, whether they
    are loaded or not; who moves one asks `refuse` before.

    Args:
        name: the model's name.
        directory: holds a folder for each version.
        labels: versions by label.
        named: versions that are served; none: the newest is.
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
        self._broken: dict[int, int] = {}  # version -> when its files last changed

    def refuse(self, labels: Mapping[str, int]) -> None:
        """Raises ValueError, with the real server's words, if these labels can't be the next: one
        that there is would move to a version that is not loaded."""
        for label, version in labels.items():
            if self.labels.get(label, version) != version and version not in self._served:
                raise ValueError(
                    f"Request to assign label to version {version} of model {self.name}, which is "
                    "not currently available for inference"
                )

    def get(self, version: int | None, label: str = "") -> LoadedVersion:
        """The version that is asked for: by number, by label, or the newest.

        Raises:
            ServingError: NOT_FOUND; INVALID_ARGUMENT for a label that there is not.
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
        """`ModelVersionStatus` of each version seen, newest first; of `version`, if given.

        Raises:
            ServingError: NOT_FOUND.
        """
        seen = dict(self._status)
        if version is None:
            if not seen:
                raise not_found(f"Could not find any versions of model {self.name}")
            return [seen[number] for number in sorted(seen, reverse=True)]
        if version not in seen:
            raise not_found(f"Could not find version {version} of model {self.name}")
        return [seen[version]]

    def poll(self) -> None:
        """Looks at the directory, and serves its newest version that loads, or those named.

        What was deleted is unloaded; the newest of the others takes its place. What is no longer
        asked for goes when something that is has been loaded, so that there are always answers.
        """
        if not self.directory.is_dir():  # not mounted just now: the real server goes on as well
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
            self._retire(loaded)

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
        except Exception as error:  # whatever it is, the version before goes on
            logger.error("model %s: version %d does not load: %s", self.name, version, error)
            self._broken[version] = changed
            self._set_status(version, State.END, error)
            return False
        self._served = self._served | {version: loaded}
        self._set_status(version, State.AVAILABLE)
        logger.info("model %s: serving version %d", self.name, version)
        return True

    def _retire(self, kept: set[int]) -> None:
        """All served versions but these."""
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
    """Nanoseconds of the newest file; 0 if the folder went away meanwhile."""
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
