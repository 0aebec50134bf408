"""A model's directory: a folder a version, named by its number, as TF Serving reads it."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def versions(directory: Path) -> dict[int, Path]:
    """The folders of the versions in `directory`, oldest first; none if it does not exist."""
    if not directory.is_dir():
        return {}
    folders = [p for p in directory.iterdir() if p.name.isascii() and p.name.isdigit()]
    return {int(p.name): p for p in sorted(folders, key=lambda p: int(p.name)) if p.is_dir()}


def tidy(directory: Path, keep: int | None = None) -> None:
    """Deletes what killed exports left behind, and all but the latest `keep` versions, if that is
    given."""
    old = [] if keep is None else [*versions(directory).values()][:-keep]
    for version in old:  # gone at once, not file by file
        version.rename(directory / f".tmp-{version.name}")
    for unfinished in directory.glob(".tmp-*"):
        shutil.rmtree(unfinished)


def publish(directory: Path, write: Callable[[Path], None]) -> Path:
    """Adds a version that is there as a whole or not at all.

    `write` fills a folder whose name TF Serving passes over; it is then renamed to one more than
    the last version. A killed export leaves a `.tmp-*` folder behind, which `tidy` deletes.

    Returns:
        The version's folder.
    """
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".tmp-", dir=directory))
    try:
        write(unfinished)
        unfinished.chmod(0o755)  # `mkdtemp` makes it ours alone; a server may be another user
        while True:
            version = directory / str(max(versions(directory), default=0) + 1)
            try:
                unfinished.rename(version)
                return version
            except OSError:  # another export took this number
                if not version.exists():
                    raise
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
