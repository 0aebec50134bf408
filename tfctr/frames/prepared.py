"""A DataFrame as a dataset directory, by the job that prepares logs."""

import atexit
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tfctr.config import DataConfig, Label, SplitConfig, Time, validate
from tfctr.data import summary
from tfctr.frames.tables import NAME, as_log


def prepare_frame(
    frame: Any,
    schema: Iterable[Any] | None,
    label: str | Label,
    time: str | Time | None,
    user: str | None,
    item: str | None,
    split: SplitConfig | None,
    directory: str | Path | None,
    **keys: Any,
) -> Path:
    """The directory; arguments and errors as for `Dataset.from_dataframe`."""
    from beam_pipelines.prepare import prepare

    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    content: dict[str, Any] = {
        "name": NAME,
        "label": {"column": label} if isinstance(label, str) else label,
        "time": {"column": time} if isinstance(time, str) else time,
        "user": user,
        "item": item,
        "split": split or {"by": "random" if time is None else "global_time"},
    }
    with as_log(frame) as log:
        content["source"] = {"format": "parquet", "events": log}
        if schema is None:
            guessed, left_out = _guessed(log, content)
            content |= guessed
            if left_out:
                _warn(f"no features, unless you give a schema: {'; '.join(left_out)}")
        else:
            content["features"] = list(schema)
        config = validate(NAME, DataConfig, content | keys)
        folder = _temporary() if directory is None else Path(directory)
        manifest = prepare(config, str(folder))
    if bad := manifest["counts"]["bad"]:
        why = ", ".join(f"{why} ({count:,})" for why, count in manifest["bad_reasons"].items())
        _warn(
            f"{bad:,} of {manifest['counts']['read']:,} rows are bad and left out: {why}. They are "
            f"in {folder}/dead_letters"
        )
    for warning in summary.warnings(manifest):
        _warn(warning)
    return folder


def _guessed(log: str, content: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """`guess_features` for the columns in the keys of a data config."""
    from tfctr.guess import guess_features
    from tfctr.guess.roles import Role

    found: dict[str, Role] = {}
    for name in ("label", "time"):
        if content[name] is not None:
            keys = dict(content[name])
            found[name] = Role(keys.pop("column"), keys)
    found |= {name: Role(content[name]) for name in ("user", "item") if content[name] is not None}
    if (column := dict(content["split"]).get("column")) is not None:
        found["split"] = Role(column)
    return guess_features(log, found)


def _temporary() -> Path:
    """A new folder, which is there until the process ends: batches are read from it."""
    folder = tempfile.mkdtemp(prefix="tfctr-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / "data"


def _warn(text: str) -> None:
    warnings.warn(f"{NAME}: {text}", stacklevel=4)
