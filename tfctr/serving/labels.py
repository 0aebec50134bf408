"""Moves labels between versions of a model that is being served.

TF Serving checks labels before it loads versions. If an existing label would move to a version
that is not loaded, it refuses the whole file, at every poll. So `models.config` is written twice:
first the versions and, when every server has loaded them, the labels.
"""

import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
from tensorflow_serving.apis import get_model_status_pb2

from tfctr.config import ConfigError
from tfctr.data.manifest import DataError
from tfctr.serving.client import Client
from tfctr.serving.errors import ServingError
from tfctr.serving.tf_serving_config import ModelEntry, read_models, write_model

POLL_SECONDS = 0.5
State = get_model_status_pb2.ModelVersionStatus.State


def write_labels(path: Path, name: str, directory: str, labels: Mapping[str, int]) -> ModelEntry:
    """Writes labels in one step, for a file that no server reads yet.

    Args:
        path: of `models.config`.
        name: of the model.
        directory: of the model, as the server sees it.
        labels: versions by label; empty: the newest version is served.

    Returns:
        The model's new entry in the file.

    Raises:
        ValueError: as `tf_serving_config.write_model`.
    """
    found = read_models(path).get(name, ModelEntry(directory))
    wanted = ModelEntry(directory, labels, _versions(found, found.labels, labels))
    write_model(path, name, wanted)
    return wanted


def move_labels(
    path: Path,
    name: str,
    directory: str,
    labels: Mapping[str, int],
    server: str,
    timeout: float,
    say: Callable[[str], None] = lambda text: None,
) -> ModelEntry:
    """Moves labels in two steps while one or more servers read the file.

    The versions that had a label stay loaded with the new ones, so that labels can move back; older
    ones are unloaded. If it is killed and run again, the result is the same.

    Args:
        path: of `models.config`.
        name: of the model.
        directory: of the model, as the server sees it.
        labels: versions by label, at least one.
        server: `host:port` of gRPC. Every address of the host is asked.
        timeout: float. Seconds for each of the two steps.
        say: called with a line about what it waits for.

    Returns:
        The model's new entry in the file.

    Raises:
        ValueError: as `tf_serving_config.write_model`.
        ConfigError: `server` is not an address, or no server answers there; nothing was written.
        DataError: a version does not load; the file does not name it.
        TimeoutError: a step took too long; run it again to continue.
    """
    found = read_models(path).get(name)
    servers = _Servers(server, name)
    try:
        answered = servers.labels({*(found.labels if found else ()), *labels})
        failed_before = servers.failed()
    except (ConnectionError, TimeoutError) as error:
        raise ConfigError(
            f"{error}. --server: found {server!r}; give host:port (gRPC) of the server that reads "
            f"{path}, or --no-wait if the server is not running"
        ) from None
    known = found or ModelEntry(directory)
    # The server has other labels than the file if it refused the file, or has not read it yet.
    before = {**known.labels, **answered}
    versions = _versions(known, before, labels)
    new = {version for label, version in labels.items() if before.get(label) != version}
    if new:
        write_model(path, name, ModelEntry(directory, before, versions))
        try:
            _wait_for_versions(servers, new, failed_before, timeout, say)
        except DataError as error:
            kept = {*known.versions, *before.values()} - (new - {*before.values()})
            old = ModelEntry(directory, before, tuple(sorted(kept)))
            write_model(path, name, old if found else None)
            raise DataError(
                f"{error}; {_say_labels(before)}; {path} does not name the version"
            ) from None
        except TimeoutError as error:
            raise TimeoutError(
                f"{error}; {_say_labels(before)}; run it again to continue"
            ) from None
    wanted = ModelEntry(directory, labels, versions)
    write_model(path, name, wanted)
    try:
        _wait_for_labels(servers, labels, timeout, say)
    except TimeoutError as error:
        raise TimeoutError(
            f"{error}; {path} has these labels: check that the server reads this file, and its log"
        ) from None
    return wanted


def _versions(
    known: ModelEntry, before: Mapping[str, int], labels: Mapping[str, int]
) -> tuple[int, ...]:
    """The versions that have a label, or had one before the labels changed; none without labels."""
    if not labels:
        return ()
    previous = known.versions if before == labels else before.values()
    return tuple(sorted({*previous, *labels.values()}))


def _say_labels(labels: Mapping[str, int]) -> str:
    said = ", ".join(f"{label}={version}" for label, version in sorted(labels.items()))
    return f"the labels stay as they were ({said or 'none'})"


class _Servers:
    """All servers behind a host name, e.g. the pods of a headless service; each one reads
    `models.config` itself."""

    def __init__(self, server: str, model: str) -> None:
        self.host, _, self.port = server.rpartition(":")
        self.model = model
        if not self.host or not self.port.isdecimal():
            raise ConfigError(f"--server: found {server!r}; give host:port, of gRPC")

    def statuses(self) -> dict[str, dict[int, Any]]:
        """By address, the status of each version."""
        return {client.address: client.status() for client in self._clients()}

    def failed(self) -> set[tuple[str, int]]:
        """`(address, version)` of versions that failed to load."""
        return {
            (address, version)
            for address, statuses in self.statuses().items()
            for version, status in statuses.items()
            if _has_failed(status)
        }

    def labels(self, names: Collection[str]) -> dict[str, int]:
        """The versions of labels, if all servers agree."""
        answers = {
            label: {_served_version(client) for client in self._clients(label)} for label in names
        }
        return {
            label: version
            for label, found in answers.items()
            for version in found
            if len(found) == 1 and version is not None
        }

    def to_move(self, labels: Mapping[str, int]) -> list[str]:
        """A line for each label, and each server on which it does not stand for its version yet."""
        return [
            f"label {label} does not stand for version {version} yet at {client.address}"
            for label, version in labels.items()
            for client in self._clients(label)
            if _served_version(client) != version
        ]

    def _clients(self, label: str | None = None) -> Iterator[Client]:
        with ExitStack() as stack:
            for address in self._addresses():
                yield stack.enter_context(Client(address, self.model, label=label))

    def _addresses(self) -> list[str]:
        try:
            found = socket.getaddrinfo(
                self.host.strip("[]"), int(self.port), type=socket.SOCK_STREAM
            )
        except (OSError, OverflowError) as error:
            raise ConnectionError(f"{self.host}:{self.port} is not an address: {error}") from None
        hosts = {str(address[0]): family for family, *_, address in found}
        # A host such as localhost has IPv6 addresses too; a container's port is often IPv4 only.
        ipv4 = [f"{h}:{self.port}" for h, family in hosts.items() if family == socket.AF_INET]
        return ipv4 or [f"[{h}]:{self.port}" for h in hosts]


def _served_version(client: Client) -> int | None:
    try:
        return client.served_version()
    except ServingError as error:
        if error.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
            return None  # no such label, or its version is not loaded
        raise


def _has_failed(status: Any) -> bool:
    return bool(status.state == State.END and status.status.error_code)


def _wait_for_versions(
    servers: _Servers,
    versions: Collection[int],
    failed_before: set[tuple[str, int]],
    timeout: float,
    say: Callable[[str], None],
) -> None:
    """Returns when every server has loaded the versions.

    A version in `failed_before` may have been repaired: the server reports the old failure until it
    has tried again.
    """
    old = set(failed_before)

    def waiting(last: bool) -> list[str]:
        found = []
        for address, statuses in servers.statuses().items():
            for version in sorted(versions):
                status = statuses.get(version)
                if status is not None and status.state == State.AVAILABLE:
                    continue
                failed = status is not None and _has_failed(status)
                if failed and (last or (address, version) not in old):
                    assert status is not None
                    loaded = [v for v, s in statuses.items() if s.state == State.AVAILABLE]
                    raise DataError(
                        f"{servers.model}: version {version} does not load at {address}: "
                        f"{status.status.error_message}; loaded: "
                        f"{', '.join(map(str, sorted(loaded))) or 'none'}"
                    )
                if not failed:
                    old.discard((address, version))
                state = "not seen yet" if status is None else State.Name(status.state)
                found.append(f"version {version} is to be loaded at {address} ({state})")
        return found

    _wait(servers.model, waiting, timeout, say)


def _wait_for_labels(
    servers: _Servers, labels: Mapping[str, int], timeout: float, say: Callable[[str], None]
) -> None:
    _wait(servers.model, lambda last: servers.to_move(labels), timeout, say)


def _wait(
    model: str,
    waiting: Callable[[bool], list[str]],
    timeout: float,
    say: Callable[[str], None],
) -> None:
    """Calls `waiting` until it returns nothing; its argument is true in the last call.

    Raises:
        TimeoutError: names what it still waits for.
    """
    end, said = time.monotonic() + timeout, None
    while True:
        last = time.monotonic() >= end
        try:
            found = waiting(last)
        except (ConnectionError, TimeoutError, ServingError) as error:  # restarting, or busy
            found = [str(error)]
        if not found:
            return
        if last:
            raise TimeoutError(f"{model}: after {timeout:g} seconds: {'; '.join(found)}")
        if found != said:
            say(f"{model}: waiting: {'; '.join(found)}")
            said = found
        time.sleep(POLL_SECONDS)
