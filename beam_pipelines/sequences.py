"""Writes windows of users' events in order, to train a sequence encoder.

    python -m beam_pipelines.sequences --config configs/movielens-1m/srp4ctr/sequences.yaml \\
        --data work/movielens-1m-histories --output work/movielens-1m-sequences

It takes Beam's options too. The output is a dataset directory whose rows are windows: for each
history the tokens of up to `max_length + 1` events, oldest first. The events are those that the
dataset's histories may hold, up to the end of the training period.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np

from beam_pipelines.running import job
from beam_pipelines.tfrecord.examples import INT64_WIDTH, Field
from beam_pipelines.transforms.broadcast import Gather
from beam_pipelines.transforms.clean_pieces import Clean
from beam_pipelines.transforms.histories import EventReader, Past
from beam_pipelines.transforms.side_outputs import (
    Written,
    by_split,
    describe,
    open_manifest_with_log,
    write_shard,
)
from beam_pipelines.transforms.split import DROPPED, KNOWN, AssignSplits, SplitPiece
from tfctr.config import digest, load
from tfctr.data.clean import LABEL, TIME, USER_KEY
from tfctr.data.histories import history_features, ranges
from tfctr.data.manifest import DataError
from tfctr.data.users import USER_BUCKETS, rows_by_bucket, sorted_rows
from tfctr.frameworks.srp4ctr.config import SequencesConfig
from tfctr.schema import History, Schema

COUNTS = -1  # the key of row counts, in place of a group of users
FEWEST = 2  # events in a window: from one event alone nothing can be predicted


@dataclass(frozen=True)
class WrittenWindows(Written):
    """A shard of windows, with its number of events."""

    events: int


def windows_schema(schema: Schema) -> Schema:
    """A dataset's schema with room for one more event in each history: the one that comes next."""
    return Schema(
        features=tuple(
            feature.model_copy(update={"max_length": feature.max_length + 1})
            if isinstance(feature, History)
            else feature
            for feature in schema
        )
    )


def windows(counts: np.ndarray, length: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """The windows of users whose events stand one user after another.

    A user's first window ends with the last event, the next one `stride` events earlier, until a
    window begins with the first event. Windows of fewer than two events are left out.

    Args:
        counts: int `[users]`. Each user's number of events.
        length: int. Most events in a window.
        stride: int.

    Returns:
        `(start, end)` int64 `[W]`: positions among all events.
    """
    number = 1 + np.maximum(0, -(-(counts - length) // stride))
    user = np.repeat(np.arange(len(counts)), number)
    step = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
    last = np.cumsum(counts)
    end = last[user] - step * stride
    start = np.maximum(end - length, (last - counts)[user])
    kept = end - start >= FEWEST
    return start[kept], end[kept]


class Sequences(beam.PTransform):
    """A sequences config -> one dict: the summary, for the manifest, of the windows in `folder`.

    Args:
        config: of the windows.
        data: path or URI of the dataset directory, whose vocabularies are used.
        schema: of the windows, fitted.
        folder: to write to.
    """

    def __init__(self, config: SequencesConfig, data: str, schema: Schema, folder: str) -> None:
        super().__init__()
        self.config = config
        self.data = data
        self.schema = schema
        self.folder = folder

    def expand(self, pipeline: Any) -> beam.PCollection:
        config, data = self.config, self.config.data
        clean = Clean(data, self.folder)
        number = len(clean.pieces)
        pieces, _ = (
            pipeline
            | "Clean" >> clean
            | "AssignSplits" >> AssignSplits(data.split, data.user, number)
        )
        end = ".tfrecord.gz" if data.compression == "gzip" else ".tfrecord"
        found = (
            pieces
            | "UserEvents" >> beam.FlatMap(_by_user_bucket, EventReader(data, self.data))
            | "GatherUsers" >> beam.GroupByKey()
            | "WriteWindows" >> beam.FlatMap(_write_windows, config, self.schema, self.folder, end)
        )
        return (
            {"found": found}
            | "Gather" >> Gather()
            | "Summarise" >> beam.Map(lambda found: _summarise(found["found"], number))
        )


def _by_user_bucket(piece: SplitPiece, reader: EventReader) -> Iterator[tuple[int, Any]]:
    """The events of the training period by group of users, dropped rows included; for `COUNTS`
    their number."""
    users, times, _, is_event, tokens = reader.read(piece)
    events = np.flatnonzero(is_event & np.isin(piece.split() % DROPPED, KNOWN))
    yield COUNTS, job.RowCounts(pieces=1, sent=len(events))
    for bucket, found in rows_by_bucket(users[events]):
        rows = events[found]
        yield bucket, (piece.index, rows, users[rows], times[rows], tokens[rows])


def _write_windows(
    bucket: tuple[int, Iterable[Any]],
    config: SequencesConfig,
    schema: Schema,
    folder: str,
    ending: str,
) -> Iterator[WrittenWindows | job.RowCounts]:
    """All events of a group of users -> a shard of their windows, and the number of events. Some
    groups are held out as a whole."""
    number, parts = bucket
    if number == COUNTS:
        yield from parts
        return
    _, _, user, time, tokens = sorted_rows(parts)
    yield job.RowCounts(arrived=len(user))
    histories = history_features(schema)
    length = max(history.max_length for history in histories)
    first = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    counts = np.diff(np.r_[first, len(user)])
    start, end = windows(counts, length, config.stride or length)
    if not len(end):
        return
    found = Past(end, end - start, tokens.T).columns(histories, np.arange(len(end)))
    columns = found | {
        TIME: time[end - 1],
        USER_KEY: user[end - 1],
        LABEL: np.zeros(len(end), np.float32),
    }
    held_out = number < max(1, round(config.held_out * USER_BUCKETS))
    name = f"{'valid' if held_out else 'train'}/part-{number:05d}{ending}"
    written = write_shard(folder, name, fields_of(schema), columns)
    # An event in several windows is one event.
    covered = np.unique(ranges(start, end - start))
    yield WrittenWindows(**written, events=len(covered))


def fields_of(schema: Schema) -> list[Field]:
    """The fields of a window: `time` and `user_key` of its last event, a label of 0, tokens."""
    return [
        Field(TIME, width=INT64_WIDTH),
        Field(USER_KEY, width=INT64_WIDTH),
        Field(LABEL),
        *(Field.ids(h.name, h.num_ids, h.max_length) for h in history_features(schema)),
    ]


def _summarise(found: list[WrittenWindows | job.RowCounts], pieces: int) -> dict[str, Any]:
    counts = [part for part in found if isinstance(part, job.RowCounts)]
    job.check_rows_arrived("events", counts, pieces)
    written = [part for part in found if isinstance(part, WrittenWindows)]
    splits = {
        split: shards | {"positives": 0, "events": sum(part.events for part in parts)}
        for split, (shards, parts) in by_split(written).items()
    }
    return {"splits": splits}


def write_sequences(
    config: SequencesConfig, data: str, output: str, beam_args: list[str] | None = None
) -> dict[str, Any]:
    """Writes the windows of a dataset's events to a directory at `output`, whole or not at all.

    Args:
        config: of the windows.
        data: path or URI of the dataset directory.
        output: path or URI of the directory; an existing one is replaced.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.

    Returns:
        The manifest.

    Raises:
        DataError: `data` is not a dataset of this config; the log has changed since; no held-out
            user, or no other user, has two events.
    """
    data = data.rstrip("/")
    manifest = open_manifest_with_log(config.data, data)
    schema = windows_schema(Schema.model_validate(manifest["schema"]))
    with job.directory(output) as folder:
        summary = job.run(
            Sequences(config, data, schema, folder),
            "sequences",
            config.name,
            folder,
            beam_args or [],
        )
        for split, which in (("train", "training"), ("valid", "held-out")):
            if split not in summary["splits"]:
                raise DataError(
                    f"{config.name}: no {which} user has two events in the training period; use "
                    "more users, or change held_out"
                )
        job.delete_folders(folder, "staged", "dead_letters")  # the dataset has its own
        about = {
            "config": config.data.model_dump(mode="json"),
            "config_digest": digest(config),
            "schema": schema.model_dump(mode="json"),
        }
        return describe(folder, manifest, fields_of(schema), **about, **summary)


class SequencesOptions(job.JobOptions):
    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        job.add_output(parser, __doc__)
        parser.add_argument("--config", required=True, help="YAML file: a sequences config")
        parser.add_argument("--data", required=True, help="the dataset directory")


def _write(options: SequencesOptions) -> str:
    config = load(options.config, SequencesConfig)
    return job.summary_line(
        write_sequences(config, options.data, options.output, options.beam_args)
    )


def main(argv: list[str] | None = None) -> int:
    return job.command(SequencesOptions, argv, _write)


if __name__ == "__main__":
    sys.exit(job.run_main(__spec__))
