"""Writes what a teacher computes from the similar rows of every row (ROK, arXiv:2404.18304).

    python -m beam_pipelines.hints --model work/movielens-1m-rim/model.keras \\
        --data work/movielens-1m-pool --similar work/movielens-1m-similar --output work/hints

It takes Beam's options too. The output has a shard for each shard of the dataset, with the same
rows in the same order: `row_id` and `hint`, the teacher's `V` vectors concatenated, `V * D` floats.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np

from beam_pipelines.running import job
from beam_pipelines.transforms.model_inputs import ModelInputs, in_batches
from beam_pipelines.transforms.side_outputs import (
    EachShard,
    Written,
    by_split,
    describe,
    fields_of,
    open_manifest,
    write_shard,
)
from tfctr.config import data_digest
from tfctr.data.manifest import DataError
from tfctr.data.typed_rows import ROW
from tfctr.retrieval.similar_rows import HINT


@dataclass(frozen=True)
class WrittenHints(Written):
    """A shard of hints, with the sums of their numbers and of the squares, `[V * D]`."""

    sums: np.ndarray
    squares: np.ndarray


class _WriteShard(beam.DoFn):
    """A shard's name -> `WrittenHints`. Each worker loads the teacher once."""

    def __init__(self, model: str, data: str, similar: str, folder: str) -> None:
        self.model, self.data, self.similar, self.folder = model, data, similar, folder

    def setup(self) -> None:
        self.inputs = ModelInputs(self.model, self.data, [self.similar])

    def process(self, name: str) -> Iterable[WrittenHints]:
        rows, features = self.inputs.read(name)
        hints = in_batches(self.inputs.model.aggregate, features, len(rows))
        hints = hints.reshape(len(rows), -1)
        if not np.isfinite(hints).all():
            raise DataError(f"{self.model}: its hints are not finite; train it again")
        yield write_hints_of_shard(self.folder, name, rows, hints)


def write_hints_of_shard(
    folder: str, name: str, rows: np.ndarray, hints: np.ndarray
) -> WrittenHints:
    """Writes hints `[N, n]` of the rows `[N]` of a shard."""
    columns = {ROW: rows, HINT: hints}
    return WrittenHints(
        **write_shard(folder, name, fields_of(HINT, hints.shape[1]), columns),
        sums=hints.sum(axis=0, dtype=np.float64),
        squares=np.square(hints, dtype=np.float64).sum(axis=0),
    )


def summarise(written: list[WrittenHints]) -> dict[str, Any]:
    """By split: the shards, and the mean and standard deviation of each number."""
    splits = {}
    for split, (shards, parts) in by_split(written).items():
        mean = np.sum([part.sums for part in parts], axis=0) / shards["rows"]
        variance = np.sum([part.squares for part in parts], axis=0) / shards["rows"] - mean**2
        # A number that is equal in all rows tells nothing; divided by 1 it stays 0.
        std = np.sqrt(np.where(variance > 1e-12, variance, 1.0))
        splits[split] = shards | {"mean": mean.tolist(), "std": std.tolist()}
    return {"splits": splits, "size": len(written[0].sums)}


def write_hints(
    model: str,
    data: str,
    similar: str,
    output: str,
    key: str = "",
    beam_args: list[str] | None = None,
) -> dict[str, Any]:
    """Writes the hints of all rows to a directory at `output`, whole or not at all.

    Args:
        model: path of a trained teacher, a `.keras` file.
        data: path or URI of the dataset directory.
        similar: path or URI of the directory of similar rows.
        output: path or URI of the directory; an existing one is replaced.
        key: identifies the teacher; it is copied to the manifest.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.

    Returns:
        The manifest.

    Raises:
        DataError: `data` is no dataset; `similar` was made of other rows; a hint is not finite.
    """
    manifest, found = open_manifest(data), open_manifest(similar)
    if found.get("data") != data_digest(manifest):
        raise DataError(f"{similar}: made of other rows than {data} has; run `tfctr retrieve`")
    with job.directory(output) as folder:
        write = _WriteShard(model, data.rstrip("/"), similar.rstrip("/"), folder)
        summary = job.run(
            EachShard(data, write, summarise),
            "hints",
            manifest["config"]["name"],
            folder,
            beam_args or [],
        )
        fields = fields_of(HINT, summary.pop("size"))
        return describe(folder, manifest, fields, key=key, **summary)


class HintsOptions(job.JobOptions):
    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        job.add_output(parser, __doc__)
        parser.add_argument("--model", required=True, help="a trained teacher, model.keras")
        parser.add_argument("--data", required=True, help="the dataset directory")
        parser.add_argument("--similar", required=True, help="the directory of similar rows")


def _write(options: HintsOptions) -> str:
    paths = (options.model, options.data, options.similar, options.output)
    return job.summary_line(write_hints(*paths, beam_args=options.beam_args))


def main(argv: list[str] | None = None) -> int:
    return job.command(HintsOptions, argv, _write)


if __name__ == "__main__":
    sys.exit(job.run_main(__spec__))
