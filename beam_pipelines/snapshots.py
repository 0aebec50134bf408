"""Joins the snapshots of users and items to the rows of some days, as side outputs.

A row gets only snapshots that were finished before its day. If its user or item is not in a
snapshot, the vector is zero and marked as missing.
"""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
from pyarrow import fs

from beam_pipelines.running import job
from beam_pipelines.tfrecord.examples import Field, layout
from beam_pipelines.transforms.broadcast import Gather
from beam_pipelines.transforms.side_outputs import write_shard
from tfctr.data import files
from tfctr.data.arrived import check_arrived
from tfctr.data.day_log import DOMAINS, DayLog
from tfctr.data.manifest import DataError, write_manifest
from tfctr.data.records import read_columns
from tfctr.data.snapshots import SIDES, Snapshot
from tfctr.data.vocabulary import Vocabulary


def fields(number: int, dim: int) -> list[Field]:
    """The fields of a row: for each side `number` vectors, latest first, and which exist."""
    found = []
    for side in SIDES:
        found.append(Field(f"{side}_snapshots", number * dim))
        found.append(Field.ids(f"{side}_snapshots_exist", 2, number))
    return found


def join_snapshots(
    log: DayLog,
    chosen: dict[datetime.date, list[tuple[datetime.date, str]]],
    snapshots: Path,
    number: int,
    dim: int,
    output: Path,
    beam_args: list[str] | None = None,
) -> None:
    """Writes the side outputs of these days, each day whole or not at all.

    Args:
        log: of the days.
        chosen: for each day to write, its snapshots, latest first: `until`, and a key of its
            inputs. An existing day is replaced.
        snapshots: the folder of all snapshots.
        number: int. Most snapshots of a row.
        dim: int. Width of their vectors.
        output: the folder of the side outputs.
        beam_args: Beam's pipeline options.

    Raises:
        DataError: a snapshot was not finished before the day that reads it, or has another width.
    """
    folder = f"{output}/.tmp"
    system, made = files.filesystem(folder)
    if system.get_file_info(made).type == fs.FileType.Directory:
        system.delete_dir(made)  # of a run that was killed
    transform = JoinSnapshots(log, chosen, snapshots, number, dim, folder)
    written = job.run(transform, "snapshots", output.name, folder, beam_args or [])["rows"]
    sent = sum(log.rows(day, domain) for day in chosen for domain in DOMAINS)
    check_arrived(f"{output.name}: rows", written, sent)
    for day in chosen:
        rows = {domain: log.rows(day, domain) for domain in DOMAINS}
        manifest = {
            "rows": rows,
            "snapshots": [[str(end), key] for end, key in chosen[day]],
            "layout": layout(fields(number, dim)),
        }
        write_manifest(manifest, f"{folder}/{day}/manifest.json")
        target = f"{files.filesystem(str(output))[1]}/{day}"
        if system.get_file_info(target).type == fs.FileType.Directory:
            system.delete_dir(target)
        system.move(f"{made}/{day}", target)
    system.delete_dir(made)


class JoinSnapshots(beam.PTransform):
    """Nothing -> one dict: the number of rows written."""

    def __init__(
        self,
        log: DayLog,
        chosen: dict[datetime.date, list[tuple[datetime.date, str]]],
        snapshots: Path,
        number: int,
        dim: int,
        folder: str,
    ) -> None:
        super().__init__()
        self.shards = [
            (str(day), shard["name"], [str(end) for end, _ in ends])
            for day, ends in chosen.items()
            for domain in DOMAINS
            for shard in log.shards(day, domain)
        ]
        self.join = _Join(log, snapshots, number, dim, folder)

    def expand(self, pipeline: Any) -> beam.PCollection:
        rows = (
            pipeline
            | "Shards" >> beam.Create(self.shards)
            | "Spread" >> beam.Reshuffle()
            | "Join" >> beam.ParDo(self.join)
        )
        return (
            {"rows": rows}
            | "Gather" >> Gather()
            | "Summarise" >> beam.Map(lambda found: {"rows": sum(found["rows"])})
        )


class _Join(beam.DoFn):
    def __init__(self, log: DayLog, snapshots: Path, number: int, dim: int, folder: str) -> None:
        self.log = log
        self.snapshots = str(snapshots)
        self.number = number
        self.dim = dim
        self.folder = folder
        data = log.config["data"]
        self.keys = {side: data[side] for side in SIDES}
        self._vocabularies: dict[str, Vocabulary] = {}
        self._tables: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}

    def process(self, shard: tuple[str, str, list[str]]) -> Iterator[int]:
        day, name, ends = shard
        if late := [end for end in ends if end > day]:
            raise DataError(
                f"the snapshot of {late[0]} was not finished before {day}, which reads it"
            )
        path = f"{self.log.folder}/{name}"
        ids = read_columns(path, self.log.log["layout"], list(self.keys.values()))
        columns: dict[str, np.ndarray] = {}
        for side, key in self.keys.items():
            rows = ids[key][:, 0]
            vectors = np.zeros((len(rows), self.number, self.dim), np.float32)
            exists = np.zeros((len(rows), self.number), np.int64)
            for place, end in enumerate(ends):
                known, there = self._table(end)[side]
                vectors[:, place], exists[:, place] = known[rows], there[rows]
            columns[f"{side}_snapshots"] = vectors.reshape(len(rows), -1)
            columns[f"{side}_snapshots_exist"] = exists
        write_shard(self.folder, name, fields(self.number, self.dim), columns)
        yield len(rows)

    def _table(self, end: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        if end not in self._tables:
            snapshot = Snapshot.read(f"{self.snapshots}/{end}")
            if snapshot.dim != self.dim:
                raise DataError(
                    f"{self.snapshots}/{end}: vectors of {snapshot.dim} numbers, wanted {self.dim}"
                )
            for side, key in self.keys.items():
                if side not in self._vocabularies:
                    self._vocabularies[side] = self.log.vocabulary(key)
            self._tables[end] = {
                side: snapshot.rows(side, self._vocabularies[side]) for side in SIDES
            }
        return self._tables[end]
