"""A model's directory: a folder a version, named by its number, as TF Serving reads it."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfctr.config import ConfigError
from tfctr.schema import Schema


def versions(directory: Path) -> dict[int, Path]:
    """The folders of the versions in `directory`, oldest first; none if it does not exist."""
    if not directory.is_dir():
        return {}
    folders = [p for p in directory.iterdir() if p.name.isascii() and p.name.isdigit()]
    return {int(p.name): p for p in sorted(folders, key=lambda p: int(p.name)) if p.is_dir()}


def served_schema(version: Path) -> Schema:
    """The features that a version's signatures take.

    Raises:
        ConfigError: it was not exported with tfctr.
    """
    path = version / "assets.extra" / "schema.json"
    try:
        return Schema.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: not there; export the model with tfctr") from None


def signature_defs(version: Path) -> dict[str, Any]:
    """A version's signatures by name, as `SignatureDef`s."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    return dict(saved.meta_graphs[0].signature_def)


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
