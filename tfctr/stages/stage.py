"""A run is a graph of stages. What they have in common is here: key, lock, skip, resume, manifest.

Each stage leaves an artefact and, last of all, a manifest with a key: the digest of all that it was
made from. A stage whose manifest has the right key is skipped; so a second run does nothing, and a
killed one goes on where it was.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock, Timeout
from rich.console import Console

from tfctr.config import digest
from tfctr.data.manifest import read_manifest, write_manifest

_keys: ContextVar["dict[Stage, str] | None"] = ContextVar("keys", default=None)


class Stage(ABC):
    """Something that is made of a config and of what other stages have made.

    Attributes:
        name: of the work, e.g. "train".
        folder: of the manifest.
        path: the artefact.
        reads: the stages whose artefacts it reads.
        manifest_name: of the manifest's file; `<name>.json` if it is not given.
        is_data: whether it makes rows, or what stands beside them; else something is learned.
        by_all_workers: whether several processes make it together (`tf.distribute`), so that none
            waits for another.
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
        """What the artefact depends on beside what it reads; JSON can hold it."""

    @abstractmethod
    def make(self, console: Console) -> dict[str, Any] | None:
        """Makes the artefact from artefacts that are there.

        Returns:
            What the manifest says of it; None where `make` has written it, with `key()`.
        """

    def key(self) -> str:
        """The digest of all that the artefact is made from; computed once in a `build`."""
        known = _keys.get()
        if known is None:
            return self.compute_key()
        if self not in known:
            known[self] = self.compute_key()
        return known[self]

    def compute_key(self) -> str:
        return digest([self.name, self.made_from, *(stage.key() for stage in self.reads)])

    def is_done(self) -> bool:
        """Whether the artefact is there, made from what it should be."""
        found = read_manifest(self.manifest_path)
        return found is not None and found.get("key") == self.key() and self.path.exists()

    @property
    def manifest_path(self) -> Path:
        return self.folder / (self.manifest_name or f"{self.name}.json")


def build(stage: Stage, console: Console) -> Path:
    """The path of a stage's artefact, which is made if it is not there as it should be; so is what
    the stage reads.

    Of several processes one makes it, the others wait till it is there or that one has died.
    """
    with _keys_once():
        return _build(stage, console)


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
    manifest = stage.make(console)
    if manifest is not None:
        write_manifest({"key": stage.key(), **manifest}, str(stage.manifest_path))
    return stage.path


@contextmanager
def _keys_once() -> Iterator[None]:
    """Keys are computed once meanwhile: each asks for those of all that is read, down to the log's
    files, and many ask for the same."""
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
    """Lets one process at a time make what is in a folder; the others wait till it ends or dies.

    Without this, one would take what the other is writing for what a killed one left behind.
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
    """A stage and all behind it, each once, what is read before what reads it."""
    found: dict[tuple[Path, str], Stage] = {}

    def visit(at: Stage) -> None:
        if (at.folder, at.name) not in found:
            for before in at.reads:
                visit(before)
            found[(at.folder, at.name)] = at

    visit(stage)
    return list(found.values())


def print_plan(stage: Stage, console: Console) -> None:
    """Prints the graph: what is done, and what would be built."""
    with _keys_once():
        for at in in_order(stage):
            reads = ", ".join(f"{before.name} of {before.folder.name}" for before in at.reads)
            console.print(
                f"{'done ' if at.is_done() else 'build'} [bold]{at.name}[/] {at.path}"
                f"{f' from {reads}' if reads else ''}",
                soft_wrap=True,
            )


def versions() -> dict[str, str]:
    """Of what a model is made with, for manifests."""
    import keras
    import tensorflow as tf

    import tfctr

    return {"tfctr": tfctr.__version__, "tensorflow": tf.__version__, "keras": keras.__version__}
