"""Moves labels between versions of a model that is being served.

TF Serving checks labels before it loads models: a label that there is does not move to a version
that is not loaded, and the file that says so is refused as a whole, at every poll. So
`models.config` is written twice: the versions, and when every server has them, the labels.
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
from tfctr.serving.tf_serving_config import Hosted, read_models, write_model

SECONDS_BETWEEN = 0.5
State = get_model_status_pb2.ModelVersionStatus.State


def write_labels(path: Path, name: str, directory: str, labels: Mapping[str, int]) -> Hosted:
    """Writes labels in one go, as it is right where no server reads the file yet.

    Args:
        path: of `models.config`.
        name: of the model.
        directory: of the model, as the server sees it.
        labels: versions by label; none: the newest version is served.

    Returns:
        What the file says of the model now.

    Raises:
        ValueError: as of `tf_serving_config.write_model`.
    """
    found = read_models(path).get(name, Hosted(directory))
    wanted = Hosted(directory, labels, _versions(found, found.labels, labels))
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
) -> Hosted:
    """Moves labels under a server, or several, in two steps.

    The versions that had a label stay loaded beside the new ones, to go back to; older ones are
    unloaded. Killed anywhere and run again, it comes to the same.

    Args:
        path: of `models.config`.
        name: of the model.
        directory: of the model, as the server sees it.
        labels: versions by label, at least one.
        server: `host:port` of gRPC. Every address that the host has is asked.
        timeout: seconds that each of the two steps may take.
        say: is told what is waited for.

    Returns:
        What the file says of the model now.

    Raises:
        ValueError: as of `tf_serving_config.write_model`.
        ConfigError: `server` is not an address, or nothing answers there; nothing was written.
        DataError: a version does not load; the file is without it.
        TimeoutError: not everything was loaded, or taken over, in time; a step can go on later.
    """
    found = read_models(path).get(name)
    servers = _Servers(server, name)
    try:
        answered = servers.labels({*(found.labels if found else ()), *labels})
        failed_before = servers.failed()
    except (ConnectionError, TimeoutError) as error:
        raise ConfigError(
            f"{error}. --server: found {server!r}; give host:port (gRPC) of the server that reads "
            f"{path}, or --no-wait if it is yet to be started"
        ) from None
    known = found or Hosted(directory)
    # A file that was refused, or not read yet, says other labels than the server has.
    before = {**known.labels, **answered}
    versions = _versions(known, before, labels)
    new = {version for label, version in labels.items() if before.get(label) != version}
    if new:
        write_model(path, name, Hosted(directory, before, versions))
        try:
            _wait_for_versions(servers, new, failed_before, timeout, say)
        except DataError as error:
            kept = {*known.versions, *before.values()} - (new - {*before.values()})
            old = Hosted(directory, before, tuple(sorted(kept)))
            write_model(path, name, old if found else None)
            raise DataError(f"{error}; {_say_labels(before)}, without it in {path}") from None
        except TimeoutError as error:
            raise TimeoutError(
                f"{error}; {_say_labels(before)}; run it again to go on waiting"
            ) from None
    wanted = Hosted(directory, labels, versions)
    write_model(path, name, wanted)
    try:
        _wait_for_labels(servers, labels, timeout, say)
    except TimeoutError as error:
        raise TimeoutError(
            f"{error}; {path} says so: does this server read that file, and can it? Its log says "
            "why not"
        ) from None
    return wanted


def _versions(
    known: Hosted, before: Mapping[str, int], labels: Mapping[str, int]
) -> tuple[int, ...]:
    """Those with a label and those that had one before the labels changed; none without labels."""
    if not labels:
        return ()
    previous = known.versions if before == labels else before.values()
    return tuple(sorted({*previous, *labels.values()}))


def _say_labels(labels: Mapping[str, int]) -> str:
    said = ", ".join(f"{label}={version}" for label, version in sorted(labels.items()))
    return f"the labels stay as they were ({said or 'none'})"


class _Servers:
    """Those that a host's name stands for, e.g. all pods behind a headless service: each reads
    `models.config` by itself."""

    def __init__(self, server: str, model: str) -> None:
        self.host, _, self.port = server.rpartition(":")
        self.model = model
        if not self.host or not self.port.isdecimal():
            raise ConfigError(f"--server: found {server!r}; give host:port, of gRPC")

    def statuses(self) -> dict[str, dict[int, Any]]:
        """By address, the status of each version."""
        return {client.address: client.status() for client in self._clients()}

    def failed(self) -> set[tuple[str, int]]:
        """Addresses and versions that have not loaded there."""
        return {
            (address, version)
            for address, statuses in self.statuses().items()
            for version, status in statuses.items()
            if _has_failed(status)
        }

    def labels(self, names: Collection[str]) -> dict[str, int]:
        """The versions that labels stand for, where all servers answer with the same."""
        answers = {
            label: {_answering(client) for client in self._clients(label)} for label in names
        }
        return {
            label: version
            for label, found in answers.items()
            for version in found
            if len(found) == 1 and version is not None
        }

    def moved(self, labels: Mapping[str, int]) -> list[str]:
        """What is still to happen until each label stands for its version."""
        return [
            f"{label} is to stand for version {version} at {client.address}"
            for label, version in labels.items()
            for client in self._clients(label)
            if _answering(client) != version
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
            raise ConnectionError(f"{self.host}:{self.port} is no address: {error}") from None
        hosts = {str(address[0]): family for family, *_, address in found}
        # Of a host with both kinds, e.g. localhost, a container's port is often open at one only.
        four = [f"{h}:{self.port}" for h, family in hosts.items() if family == socket.AF_INET]
        return four or [f"[{h}]:{self.port}" for h in hosts]


def _answering(client: Client) -> int | None:
    try:
        return client.answering()
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

    A version in `failed_before` may have been repaired: the server says what it said until it has
    tried again.
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
    _wait(servers.model, lambda last: servers.moved(labels), timeout, say)


def _wait(
    model: str,
    waiting: Callable[[bool], list[str]],
    timeout: float,
    say: Callable[[str], None],
) -> None:
    """Asks until nothing is waited for; `waiting` is told when it is asked for the last time.

    Raises:
        TimeoutError: names what is still waited for.
    """
    end, said = time.monotonic() + timeout, None
    while True:
        last = time.monotonic() >= end
        try:
            found = waiting(last)
        except (ConnectionError, TimeoutError, ServingError) as error:  # starting again, or busy
            found = [str(error)]
        if not found:
            return
        if last:
            raise TimeoutError(f"{model}: after {timeout:g} seconds: {'; '.join(found)}")
        if found != said:
            say(f"{model}: waiting: {'; '.join(found)}")
            said = found
        time.sleep(SECONDS_BETWEEN)
