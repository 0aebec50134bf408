"""A model's directory, as TF Serving reads it: a folder for each version, named by its number."""

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from tfctr.config import ConfigError
from tfctr.data import files
from tfctr.schema import Schema

NOTES = "models_config"  # lists the models.config files elsewhere; servers ignore it
logger = logging.getLogger(__name__)


def versions(directory: Path) -> dict[int, Path]:
    """The folders of the versions in `directory`, oldest first; none if it does not exist."""
    if not directory.is_dir():
        return {}
    folders = [p for p in directory.iterdir() if p.name.isascii() and p.name.isdigit()]
    return {int(p.name): p for p in sorted(folders, key=lambda p: int(p.name)) if p.is_dir()}


def without_versions(directory: Path) -> str:
    """Why `versions` finds none, and what would do, for errors."""
    if not directory.is_dir():
        return "no such folder; export a model there first"
    folders = sorted(p.name for p in directory.iterdir() if p.is_dir() and p.name[:1] != ".")
    others = [name for name in folders if not (name.isascii() and name.isdigit())]
    if not others:
        return "no versions here; export a model there first"
    return (
        f"found {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}; a version is a folder "
        f"whose name is a whole number, such as {directory.name}/1"
    )


def served_schema(version: Path) -> Schema:
    """The features that a version's signatures take.

    Raises:
        ConfigError: the version was not exported with tfctr.
    """
    path = version / "assets.extra" / "schema.json"
    try:
        return Schema.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: missing; export the model with tfctr") from None


def signature_defs(version: Path) -> dict[str, Any]:
    """A version's signatures by name, as `SignatureDef`s."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    return dict(saved.meta_graphs[0].signature_def)


def tidy(directory: Path, keep: int | None = None) -> None:
    """Deletes what killed exports left behind and, with `keep`, all versions but the latest `keep`.

    Versions that a `models.config` names are kept, because a server unloads deleted ones.
    """
    if keep is not None:
        for version in [*versions(directory).items()][:-keep]:
            _delete_unless_named(directory, *version)
    for unfinished in directory.glob(".tmp-*"):
        shutil.rmtree(unfinished)


def _delete_unless_named(directory: Path, number: int, version: Path) -> None:
    try:
        named = _named(directory)
    except ValueError as error:  # it is unknown which versions are served
        logger.warning("%s: no version is deleted: %s", directory, error)
        return
    if number not in named:
        version.rename(directory / f".tmp-{version.name}")  # gone at once, not file by file


def _named(directory: Path) -> set[int]:
    """The versions that a `models.config` names: the file next to the directory, and those that
    `note_config` has noted."""
    from tfctr.serving.tf_serving_config import MODELS, read_models

    directory = directory.resolve()
    notes = directory / NOTES
    elsewhere = notes.read_text().splitlines() if notes.is_file() else []
    found: set[int] = set()
    for path in (directory.parent / MODELS, *map(Path, elsewhere)):
        for entry in read_models(path).values():
            if PurePosixPath(entry.directory).name == directory.name:
                found |= {*entry.labels.values(), *entry.versions}
    return found


def note_config(directory: Path, path: Path) -> None:
    """Notes in a model's directory which `models.config` names its versions, for `tidy`; the file
    next to the directory needs no note."""
    directory, path = directory.resolve(), path.resolve()
    notes = directory / NOTES
    known = notes.read_text().splitlines() if notes.is_file() else []
    if path.parent != directory.parent and str(path) not in known:
        files.write(str(notes), "".join(f"{line}\n" for line in [*known, str(path)]).encode())


def publish(directory: Path, write: Callable[[Path], None]) -> Path:
    """Adds a version, whole or not at all.

    A killed export leaves a `.tmp-*` folder behind, which `tidy` deletes.

    Args:
        directory: the model's directory; created if it does not exist.
        write: fills a folder whose name TF Serving ignores. The folder is then renamed to one more
            than the last version.

    Returns:
        The version's folder.
    """
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".tmp-", dir=directory))
    try:
        write(unfinished)
        unfinished.chmod(0o755)  # `mkdtemp` gives other users no access; a server may be one
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
