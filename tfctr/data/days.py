"""Rows of some days of a log, with the vocabularies of one of these days."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfctr.data.dataset import Dataset, as_written
from tfctr.data.day_log import DayLog, ends
from tfctr.data.manifest import DataError, read_manifest
from tfctr.schema import OOV_ID, TOKEN_KINDS


class DaysDataset(Dataset):
    """A data set of whole days; tokens that entered after `through` are out of vocabulary in it.

    Args:
        log: the log by days.
        splits: by name, the days and domains of a split's rows, in order.
        through: number of the day whose vocabularies are used; later tokens are OOV.
        joined: the folder of the snapshots joined to these rows, if they are read.

    Raises:
        DataError: no snapshots are joined to a day, or they are joined to other rows.
    """

    def __init__(
        self,
        log: DayLog,
        splits: Mapping[str, Sequence[tuple[datetime.date, str]]],
        through: int,
        joined: Path | None = None,
    ) -> None:
        found: dict[str, Any] = {}
        for split, parts in splits.items():
            shards = [shard for day, domain in parts for shard in log.shards(day, domain)]
            found[split] = {
                "rows": sum(shard["rows"] for shard in shards),
                "positives": sum(shard["positives"] for shard in shards),
                "shards": shards,
            }
        side_outputs = []
        if joined is not None:
            days = {day for parts in splits.values() for day, _ in parts}
            side_outputs.append((joined, {"layout": _layout(log, days, joined)}))
        manifest = {
            "config": log.config["data"],
            "schema": log.schema(through).model_dump(mode="json"),
            "layout": log.log["layout"],
            "splits": found,
            "numbers": ends(found.get("train", {}).get("shards", ())),
        }
        super().__init__(Path(log.folder), manifest, side_outputs)
        self.log = log
        self.through = through
        self._sizes = {f.name: f.num_ids for f in self.schema if isinstance(f, TOKEN_KINDS)}
        self._vocabularies: Path | None = None

    def write_vocabularies(self, folder: Path) -> None:
        """Writes the vocabularies of `through`, for `vocabulary_file`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.log.sizes(self.through):
            content = self.log.vocabulary(name, self.through).to_bytes()
            (folder / f"{name}.txt").write_bytes(content)
        self._vocabularies = folder

    def vocabulary_file(self, name: str) -> Path:
        if self._vocabularies is None:
            raise ValueError("call `write_vocabularies` first: a log has the tokens by day")
        return self._vocabularies / f"{name}.txt"

    def columns(
        self, split: str, names: Sequence[str], shards: slice | None = None
    ) -> dict[str, np.ndarray]:
        found = super().columns(split, names, shards)
        for name, size in self._sizes.items():
            if name in found:
                found[name] = np.where(found[name] < size, found[name], OOV_ID)
        return found

    def _unpack(self, names: tuple[str, ...]) -> Callable[[Any, Any], Any]:
        unpack, sizes = super()._unpack(names), self._sizes

        @as_written
        def as_of_then(rows: Any, texts: dict[str, Any]) -> Any:
            features, label = unpack(rows, texts)
            known = {
                name: tf.where(features[name] < sizes[name], features[name], OOV_ID)
                for name in names
                if name in sizes
            }
            return features | known, label

        return as_of_then


def _layout(log: DayLog, days: set[datetime.date], joined: Path) -> Any:
    layout: Any = None
    for day in sorted(days):
        manifest = read_manifest(joined / str(day) / "manifest.json")
        rows = {domain: log.rows(day, domain) for domain in log.days[day]["domains"]}
        if manifest is None or manifest["rows"] != rows:
            raise DataError(f"{joined}: no snapshots are joined to the rows of {day}")
        layout = manifest["layout"]
    if layout is None:
        raise DataError(f"{joined}: no day to read")
    return layout
