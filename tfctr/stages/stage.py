"""The base of all stages in the graph of a run: key, lock, skip, resume, manifest.

Each stage writes an artefact and then a manifest with a key: the digest of all its inputs. A stage
whose manifest has the right key is skipped; so a second run does nothing, and a killed run resumes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock, Timeout
from rich.console import Console

from tfctr.config import digest
from tfctr.data.manifest import read_manifest, write_manifest
from tfctr.stages.cost import measured

COST = "cost"  # of a manifest: see `measured`

_keys: ContextVar["dict[Stage, str] | None"] = ContextVar("keys", default=None)


class Stage(ABC):
    """A step that makes an artefact from a config and from the artefacts of other stages.

    Attributes:
        name: e.g. "train".
        folder: of the manifest.
        path: of the artefact.
        reads: the stages whose artefacts it reads.
        manifest_name: file name of the manifest. Defaults to `<name>.json`.
        is_data: whether it makes rows or side outputs; else it trains or exports.
        by_all_workers: whether several processes make it together (`tf.distribute`), so that none
            waits for the lock.
    """

    name: str
    folder: Path
    path: Path
    reads: Sequence["Stage"] = ()
    manifest_name: ClassVar[str] = ""
    is_data: ClassVar[bool] = False
    by_all_workers: bool = False

    @property
    @abstractmethod
    def made_from(self) -> Any:
        """The inputs of the artefact other than `reads`, as a JSON value."""

    @abstractmethod
    def make(self, console: Console) -> dict[str, Any] | None:
        """Makes the artefact; those that it reads are built.

        Returns:
            The manifest's content; None if `make` has written the manifest, with `key()`.
        """

    def check(self) -> None:  # noqa: B027  (most stages have nothing to check)
        """Called before anything that the stage needs is built.

        Raises:
            ConfigError: the stage cannot be made, as its config alone shows.
        """

    def key(self) -> str:
        """The digest of all inputs of the artefact; computed once per `build`."""
        known = _keys.get()
        if known is None:
            return self.compute_key()
        if self not in known:
            known[self] = self.compute_key()
        return known[self]

    def compute_key(self) -> str:
        return digest([self.name, self.made_from, *(stage.key() for stage in self.reads)])

    def is_done(self) -> bool:
        """Whether the artefact exists and was made from the current inputs."""
        found = read_manifest(self.manifest_path)
        return found is not None and found.get("key") == self.key() and self.path.exists()

    @property
    def manifest_path(self) -> Path:
        return self.folder / (self.manifest_name or f"{self.name}.json")


def build(stage: Stage, console: Console) -> Path:
    """The path of a stage's artefact, which is built first if needed, as are the stages that it
    reads.

    If several processes ask for it, one builds it, and the others wait until it is done or dead.
    """
    with _keys_once():
        check(stage)
        return _build(stage, console)


def build_missing(stages: Iterable[Stage], console: Console) -> None:
    """Builds those of some stages that are not done, and prints nothing of the others. All are
    checked before one of them is built."""
    with _keys_once():
        missing = [stage for stage in stages if not stage.is_done()]
        for stage in missing:
            check(stage)
        for stage in missing:
            if not stage.is_done():  # maybe built for another one
                _build(stage, console)


def check(stage: Stage) -> None:
    """Checks what is not done yet of a stage and of all stages that it needs, before any of them is
    built.

    Raises:
        ConfigError: one of them cannot be made.
    """
    with _keys_once():
        for at in in_order(stage):
            if not at.is_done():
                at.check()


def _build(stage: Stage, console: Console) -> Path:
    if stage.is_done():
        console.print(f"[bold]{stage.name}[/] is done: {stage.path}", soft_wrap=True)
        return stage.path
    for before in stage.reads:
        if not before.is_done():
            _build(before, console)
    if stage.by_all_workers:
        return _make(stage, console)
    with folder_lock(stage.folder, console):
        return stage.path if stage.is_done() else _make(stage, console)


def _make(stage: Stage, console: Console) -> Path:
    with measured() as cost:
        manifest = stage.make(console)
    if manifest is not None:
        manifest = {"key": stage.key(), **manifest}
    elif not stage.by_all_workers:  # else they would all write it
        manifest = read_manifest(stage.manifest_path)
    if manifest is not None:
        write_manifest({**manifest, COST: cost}, str(stage.manifest_path))
    return stage.path


@contextmanager
def _keys_once() -> Iterator[None]:
    """Computes each key only once in this context: a key needs those of all stages below, down to
    the log's files, and many stages share them."""
    if _keys.get() is not None:
        yield
        return
    token = _keys.set({})
    try:
        yield
    finally:
        _keys.reset(token)


@contextmanager
def folder_lock(folder: Path, console: Console) -> Iterator[None]:
    """Locks a folder, so that one process at a time builds it; the others wait.

    Without the lock, a process would take the other's unfinished files for those of a killed run.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        console.print(f"waits for another process that is at work in {folder}", soft_wrap=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def in_order(stage: Stage) -> list[Stage]:
    """A stage and all stages that it needs, each once, inputs first."""
    found: dict[tuple[Path, str], Stage] = {}

    def visit(at: Stage) -> None:
        if (at.folder, at.name) not in found:
            for before in at.reads:
                visit(before)
            found[(at.folder, at.name)] = at

    visit(stage)
    return list(found.values())


def print_plan(stage: Stage, console: Console) -> None:
    """Prints the graph: which stages are done, and which would be built."""
    with _keys_once():
        for at in in_order(stage):
            reads = ", ".join(f"{before.name} of {_owner(before)}" for before in at.reads)
            console.print(
                f"{'done ' if at.is_done() else 'build'} [bold]{at.name}[/] {at.path}"
                f"{f' from {reads}' if reads else ''}",
                soft_wrap=True,
            )


def _owner(stage: Stage) -> str:
    """The folder of what a stage belongs to; some stages have a folder of their own in it."""
    folder = stage.folder
    return folder.parent.name if folder.name == stage.name else folder.name


def versions() -> dict[str, str]:
    """The versions of the libraries, for manifests."""
    import keras
    import tensorflow as tf

    import tfctr

    return {"tfctr": tfctr.__version__, "tensorflow": tf.__version__, "keras": keras.__version__}
