"""What an artefact says of itself: a JSON file written last, so that its presence means "whole"."""

import json
from pathlib import Path
from typing import Any

from tfctr.data import files

FORMAT = 2  # of a dataset directory; 2: the manifest says where values lie in an Example


class DataError(ValueError):
    """Data that cannot be used; the text says which and why."""


def write_manifest(manifest: dict[str, Any], path: str) -> None:
    files.write(path, json.dumps(manifest, indent=1).encode() + b"\n")


def read_manifest(path: str | Path) -> dict[str, Any] | None:
    """The manifest, or None where there is none, or none that can be read."""
    try:
        found = files.read_json(str(path))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
