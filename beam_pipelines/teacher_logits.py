"""Writes a trained model's logits of all rows of its dataset, for students that learn from them.

    python -m beam_pipelines.teacher_logits --model work/movielens-1m-din/model.keras \\
        --data work/movielens-1m-histories --field din --output work/movielens-1m-din/logits

It takes Beam's options too. The output has a shard for each shard of the dataset, with the same
rows in the same order: `row_id`, and the logit under the name `--field`.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
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


class _WriteShard(beam.DoFn):
    """A shard's name -> `Written`. Each worker loads the model once."""

    def __init__(
        self, model: str, data: str, side_outputs: Sequence[str], field: str, folder: str
    ) -> None:
        self.arguments = model, data, tuple(side_outputs)
        self.fields = fields_of(field)
        self.field, self.folder = field, folder

    def setup(self) -> None:
        import tensorflow as tf

        self.inputs = inputs = ModelInputs(*self.arguments)
        self.compute = tf.function(
            lambda features: inputs.model(features, training=False), reduce_retracing=True
        )

    def process(self, name: str) -> Iterable[Written]:
        rows, features = self.inputs.read(name)
        logits = in_batches(self.compute, features, len(rows))
        if not np.isfinite(logits).all():
            raise DataError(f"{self.arguments[0]}: its logits are not finite; train it again")
        columns = {ROW: rows, self.field: logits.astype(np.float32)}
        yield Written(**write_shard(self.folder, name, self.fields, columns))


def _summarise(written: list[Written]) -> dict[str, Any]:
    return {"splits": {split: shards for split, (shards, _) in by_split(written).items()}}


def write_logits(
    model: str,
    data: str,
    side_outputs: Sequence[str],
    field: str,
    output: str,
    key: str = "",
    beam_args: list[str] | None = None,
) -> dict[str, Any]:
    """Writes the logits of all rows to a directory at `output`, whole or not at all.

    Args:
        model: path of a trained model, a `.keras` file.
        data: path or URI of the dataset directory.
        side_outputs: paths or URIs of the directories that the model reads too.
        field: name of the logit.
        output: path or URI of the directory; an existing one is replaced.
        key: identifies the model; it is copied to the manifest.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.

    Returns:
        The manifest.

    Raises:
        DataError: `data` is no dataset; a side output was made of other rows; a logit is not
            finite.
    """
    manifest = open_manifest(data)
    for folder in side_outputs:
        if open_manifest(folder).get("data") != data_digest(manifest):
            raise DataError(f"{folder}: made of other rows than {data} has; make it again")
    with job.directory(output) as folder:
        write = _WriteShard(model, data.rstrip("/"), side_outputs, field, folder)
        summary = job.run(
            EachShard(data, write, _summarise),
            "teacher",
            manifest["config"]["name"],
            folder,
            beam_args or [],
        )
        return describe(folder, manifest, fields_of(field), key=key, **summary)


class TeacherOptions(job.JobOptions):
    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        job.add_output(parser, __doc__)
        parser.add_argument("--model", required=True, help="a trained model, model.keras")
        parser.add_argument("--data", required=True, help="the dataset directory")
        parser.add_argument("--side", action="append", default=[], help="a side output it reads")
        parser.add_argument("--field", required=True, help="name of the logit")


def _write(options: TeacherOptions) -> str:
    paths = (options.model, options.data, options.side, options.field, options.output)
    return job.summary_line(write_logits(*paths, beam_args=options.beam_args))


def main(argv: list[str] | None = None) -> int:
    return job.command(TeacherOptions, argv, _write)


if __name__ == "__main__":
    sys.exit(job.run_main(__spec__))
