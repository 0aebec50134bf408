"""Brings scores of rows from elsewhere beside a dataset, for students that learn from them.

    python -m beam_pipelines.scores --files 'trees/*.parquet' --column probability \\
        --data work/movielens-1m-histories --field trees --output work/trees

It takes Beam's options too. The scores are a column of Parquet files, of boosted trees or of a
language model, say; another column has each row's `row_id`, its place in the log from 0 over all
files, as the dataset and `tfctr score` have it. Rows may be missing, and others may be there.

The output has a shard for each shard of the dataset, with the same rows in the same order:
`row_id`, and the logit under the name `--field`, NaN for a row without a score. Rows and scores
meet in groups by a hash of `row_id`; a worker holds one group.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.running import job
from beam_pipelines.transforms.broadcast import Gather
from beam_pipelines.transforms.side_outputs import (
    Written,
    by_split,
    describe,
    fields_of,
    open_manifest,
    write_shard,
)
from beam_pipelines.transforms.split import SPLITS
from tfctr.data import files
from tfctr.data.arrived import check_arrived
from tfctr.data.manifest import DataError
from tfctr.data.readers import ParquetReader, Piece
from tfctr.data.records import read_columns
from tfctr.data.typed_rows import ROW
from tfctr.data.users import rows_by_bucket

SURE = 1e-6  # probabilities of 0 and 1 are taken for this far from them: their logits are infinite
# Keys of counts, in place of a group of rows and of a shard.
NO_GROUP, NO_SHARD = -1, ""
NAMES = {"train": "training", "valid": "validation"}


@dataclass(frozen=True)
class WrittenScores(Written):
    """A shard, with how many of its rows have a score."""

    scored: int


class ScoresOfShards(beam.PTransform):
    """Nothing -> one dict: the shards of each split with their scored rows, and `strays`.

    Args:
        paths: of Parquet files.
        columns: names of those of `row_id` and of the score.
        is_logit: whether a score is a logit; else it is a probability.
        data: path or URI of the dataset directory.
        manifest: of the dataset.
        field: name of the logit.
        folder: of the job.
    """

    def __init__(
        self,
        paths: Sequence[str],
        columns: tuple[str, str],
        is_logit: bool,
        data: str,
        manifest: Mapping[str, Any],
        field: str,
        folder: str,
    ) -> None:
        super().__init__()
        self.reader = ParquetReader(tuple(paths))
        self.columns = columns
        self.is_logit = is_logit
        self.data = data
        self.layout = manifest["layout"]
        shards = [shard for found in manifest["splits"].values() for shard in found["shards"]]
        self.rows = {shard["name"]: shard["rows"] for shard in shards}
        self.field = field
        self.folder = folder

    def expand(self, pipeline: Any) -> beam.PCollection:
        pieces = self.reader.pieces()
        scores = (
            pipeline
            | "Pieces" >> beam.Create(pieces)
            | "SpreadPieces" >> beam.Reshuffle()
            | "Read" >> beam.FlatMap(_scores, self.reader, self.columns, self.is_logit)
        )
        rows = (
            pipeline
            | "Shards" >> beam.Create([*self.rows])
            | "SpreadShards" >> beam.Reshuffle()
            | "Rows" >> beam.FlatMap(_rows, self.data, self.layout)
        )
        found = (
            (scores, rows)
            | "Meet" >> beam.Flatten()
            | "GatherGroups" >> beam.GroupByKey()
            | "Match" >> beam.FlatMap(_match)
            | "GatherShards" >> beam.GroupByKey()
            | "Write" >> beam.FlatMap(_write_shard, self.rows, self.field, self.folder)
        )
        return (
            {"found": found}
            | "Gather" >> Gather()
            | "Summarise" >> beam.Map(_summarise, len(pieces))
        )


def _scores(
    piece: Piece, reader: ParquetReader, columns: tuple[str, str], is_logit: bool
) -> Iterator[tuple[int, Any]]:
    """A row group -> its rows and logits, by group of rows. A score that is null is none."""
    row_column, column = columns
    table = reader.read(piece, columns).table
    for name, kind, is_kind in (
        (row_column, "integers", pa.types.is_integer),
        (column, "numbers", lambda t: pa.types.is_floating(t) or pa.types.is_integer(t)),
    ):
        if not is_kind(table.schema.field(name).type):
            found = table.schema.field(name).type
            raise DataError(f"{piece.path}: column {name!r} holds {found}, and {kind} are needed")
    if table[row_column].null_count:
        raise DataError(f"{piece.path}: column {row_column!r} has no value in some rows")
    table = table.filter(pc.is_valid(table[column]))
    rows = table[row_column].combine_chunks().cast(pa.int64()).to_numpy()
    values = table[column].combine_chunks().cast(pa.float64()).to_numpy()
    bad = ~np.isfinite(values)
    if not is_logit:
        bad |= (values < 0) | (values > 1)
    if bad.any():
        first = np.flatnonzero(bad)[0]
        needed = "a finite number" if is_logit else "a probability, 0 to 1"
        raise DataError(
            f"{piece.path}: column {column!r}, {row_column} {rows[first]}: found {values[first]}, "
            f"where {needed} is needed"
        )
    if not is_logit:
        values = np.clip(values, SURE, 1 - SURE)
        values = np.log(values) - np.log1p(-values)
    yield NO_GROUP, job.RowCounts(pieces=1, sent=len(rows))
    for group, found in rows_by_bucket(rows):
        yield group, (NO_SHARD, rows[found], values[found].astype(np.float32))


def _rows(shard: str, data: str, layout: Mapping[str, Any]) -> Iterator[tuple[int, Any]]:
    """A shard -> its rows and their places in it, by group of rows."""
    rows = read_columns(f"{data}/{shard}", layout, [ROW])[ROW][:, 0]
    for group, places in rows_by_bucket(rows):
        yield group, (shard, rows[places], places)


def _match(group: tuple[int, Iterable[Any]]) -> Iterator[tuple[str, Any]]:
    """Rows and scores of a group -> for each shard places and logits; and counts."""
    parts = list(group[1])
    if group[0] == NO_GROUP:
        yield from ((NO_SHARD, part) for part in parts)
        return
    given = [part[1:] for part in parts if part[0] == NO_SHARD]
    given.append((np.zeros(0, np.int64), np.zeros(0, np.float32)))
    rows, logits = (np.concatenate(column) for column in zip(*given, strict=True))
    order = np.argsort(rows, kind="stable")
    rows, logits = rows[order], logits[order]
    twice = np.flatnonzero(rows[1:] == rows[:-1])
    if len(twice):
        raise DataError(f"row_id {rows[twice[0]]} has two scores; give one of each row")
    yield NO_SHARD, job.RowCounts(arrived=len(rows))
    for shard, own, places in parts:
        if shard == NO_SHARD:
            continue
        found = np.full(len(own), np.nan, np.float32)
        at = np.searchsorted(rows, own)
        known = np.flatnonzero(at < len(rows))
        known = known[rows[at[known]] == own[known]]
        found[known] = logits[at[known]]
        yield shard, (own, places, found)


def _write_shard(
    shard: tuple[str, Iterable[Any]], rows: Mapping[str, int], field: str, folder: str
) -> Iterator[WrittenScores | job.RowCounts]:
    name, parts = shard
    if name == NO_SHARD:
        yield from parts
        return
    ids, places, logits = (np.concatenate(column) for column in zip(*parts, strict=True))
    check_arrived(f"{name}: rows", len(places), rows[name])
    order = np.argsort(places)
    columns = {ROW: ids[order], field: logits[order]}
    scored = int(np.isfinite(logits).sum())
    yield WrittenScores(**write_shard(folder, name, fields_of(field), columns), scored=scored)


def _summarise(gathered: dict[str, list[Any]], pieces: int) -> dict[str, Any]:
    found = gathered["found"]
    counts = [part for part in found if isinstance(part, job.RowCounts)]
    total = job.check_rows_arrived("scores", counts, pieces)
    written = [part for part in found if isinstance(part, WrittenScores)]
    splits = {
        split: shards | {"scored": sum(part.scored for part in parts)}
        for split, (shards, parts) in by_split(written).items()
    }
    return {"splits": splits, "strays": total - sum(part.scored for part in written)}


def write_scores(
    paths: Sequence[str],
    column: str,
    data: str,
    field: str,
    output: str,
    row: str = ROW,
    is_logit: bool = False,
    key: str = "",
    beam_args: list[str] | None = None,
) -> dict[str, Any]:
    """Writes the logits of all rows to a directory at `output`, whole or not at all.

    Args:
        paths: paths or URIs of Parquet files.
        column: name of the scores' column: float. A null is no score.
        data: path or URI of the dataset directory.
        field: name of the logit.
        output: path or URI of the directory; an existing one is replaced.
        row: name of the column with each row's `row_id`: int. Defaults to `row_id`.
        is_logit: whether scores are logits; else they are probabilities. Defaults to False.
        key: identifies the scores; it is copied to the manifest.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.

    Returns:
        The manifest; by split `scored`, the number of rows with a score, and `strays`, the number
        of scores of no row.

    Raises:
        ConfigError: a file is not Parquet, or has no such column.
        DataError: `data` is no dataset; a score is no probability, or no number; a row has two
            scores; no training row has one.
    """
    data = data.rstrip("/")
    manifest = open_manifest(data)
    with job.directory(output) as folder:
        scores = ScoresOfShards(paths, (row, column), is_logit, data, manifest, field, folder)
        summary = job.run(scores, "scores", manifest["config"]["name"], folder, beam_args or [])
        if not summary["splits"]["train"]["scored"]:
            raise DataError(
                f"{paths[0]}: column {row!r}: no training row of {data} has a score here, and "
                f"{summary['strays']:,} scores are of other rows; it must hold the rows' row_id, "
                "their place in the log from 0"
            )
        return describe(folder, manifest, fields_of(field), key=key, **summary)


def described(manifest: Mapping[str, Any]) -> str:
    """A line for people: how many rows have a score."""
    splits = manifest["splits"]
    rows = [
        f"{splits[split]['scored']:,} of {splits[split]['rows']:,} {NAMES.get(split, split)} rows"
        for split in SPLITS
        if split in splits
    ]
    strays = f"; {manifest['strays']:,} scores are of no row" if manifest["strays"] else ""
    return f"scores of {', '.join(rows)}{strays}"


class ScoresOptions(job.JobOptions):
    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        job.add_output(parser, __doc__)
        parser.add_argument("--files", required=True, help="Parquet files: a path, folder or glob")
        parser.add_argument("--column", required=True, help="of the scores")
        parser.add_argument("--row", default=ROW, help="column of the rows' row_id (%(default)s)")
        parser.add_argument("--logits", action="store_true", help="scores are logits")
        parser.add_argument("--data", required=True, help="the dataset directory")
        parser.add_argument("--field", required=True, help="name of the logit")


def _write(options: ScoresOptions) -> str:
    paths = files.matching(options.files)
    if not paths:
        raise DataError(f"--files: no file matches {options.files}")
    where = (options.column, options.data, options.field, options.output)
    about = (options.row, options.logits)
    return described(write_scores(paths, *where, *about, beam_args=options.beam_args))


def main(argv: list[str] | None = None) -> int:
    return job.command(ScoresOptions, argv, _write)


if __name__ == "__main__":
    sys.exit(job.run_main(__spec__))
