"""Manifests: JSON files that describe an artefact and are written last, when it is complete."""

import json
from pathlib import Path
from typing import Any

from tfctr.data import files

FORMAT = 2  # of a dataset directory; 2: the manifest has the layout of Examples


class DataError(ValueError):
    """Data that cannot be used; the message says which and why."""


def write_manifest(manifest: dict[str, Any], path: str) -> None:
    files.write(path, json.dumps(manifest, indent=1).encode() + b"\n")


def read_manifest(path: str | Path) -> dict[str, Any] | None:
    """The manifest; None if it does not exist or cannot be read."""
    try:
        found = files.read_json(str(path))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
