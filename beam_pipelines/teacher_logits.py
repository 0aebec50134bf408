"""Writes a trained model's logits of all rows of its dataset, for students that learn from them.

    python -m beam_pipelines.teacher_logits --model work/movielens-1m-din/model.keras \\
        --data work/movielens-1m-histories --field din --output work/movielens-1m-din/logits

It takes Beam's options too. The output has a shard for each shard of the dataset, with the same
rows in the same order: `row_id`, and the logit under the name `--field`.

With `--model` given several times, the first model has not learned from the first of as many folds
of the training rows (`training.left_out`), the second not from the second, and so on: a training
row has the logit of the model that has not seen it, and any other row the mean of all.
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
    describe,
    fields_of,
    open_manifest,
    splits_of,
    write_shard,
)
from tfctr.config import data_digest
from tfctr.data.folds import fold_of
from tfctr.data.manifest import DataError
from tfctr.data.typed_rows import ROW


class _WriteShard(beam.DoFn):
    """A shard's name -> `Written`. Each worker loads the models once."""

    def __init__(
        self,
        models: Sequence[str],
        data: str,
        side_outputs: Sequence[str],
        field: str,
        folder: str,
    ) -> None:
        self.models, self.data, self.side_outputs = tuple(models), data, tuple(side_outputs)
        self.fields = fields_of(field)
        self.field, self.folder = field, folder

    def setup(self) -> None:
        import tensorflow as tf

        def logits_of(model: Any) -> Any:
            return tf.function(lambda x: model(x, training=False), reduce_retracing=True)

        inputs = [ModelInputs(model, self.data, self.side_outputs) for model in self.models]
        self.read = inputs[0].read  # all read the same features
        self.teachers = [logits_of(of_model.model) for of_model in inputs]

    def process(self, name: str) -> Iterable[Written]:
        rows, features = self.read(name)
        # Whose logits count for a row: a training row has one teacher, any other row all of them.
        counts = np.ones((len(self.teachers), len(rows)), bool)
        if name.startswith("train/"):
            fold = fold_of(rows, len(self.teachers))
            counts = fold == np.arange(len(self.teachers))[:, None]
        logits = np.zeros(len(rows))
        for path, teacher, own in zip(self.models, self.teachers, counts, strict=True):
            if not own.any():
                continue
            of_own = {feature: values[own] for feature, values in features.items()}
            found = in_batches(teacher, of_own, int(own.sum()))
            if not np.isfinite(found).all():
                raise DataError(f"{path}: its logits are not finite; train it again")
            logits[own] += found
        columns = {ROW: rows, self.field: (logits / counts.sum(0)).astype(np.float32)}
        yield Written(**write_shard(self.folder, name, self.fields, columns))


def write_logits(
    models: Sequence[str],
    data: str,
    side_outputs: Sequence[str],
    field: str,
    output: str,
    key: str = "",
    beam_args: list[str] | None = None,
) -> dict[str, Any]:
    """Writes the logits of all rows to a directory at `output`, whole or not at all.

    Args:
        models: paths of trained models, `.keras` files: one, or one a fold of the training rows,
            in the folds' order.
        data: path or URI of the dataset directory.
        side_outputs: paths or URIs of the directories that the models read too.
        field: name of the logit.
        output: path or URI of the directory; an existing one is replaced.
        key: identifies the models; it is copied to the manifest.
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
        write = _WriteShard(models, data.rstrip("/"), side_outputs, field, folder)
        summary = job.run(
            EachShard(data, write, splits_of),
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
        parser.add_argument(
            "--model", action="append", required=True, help="model.keras; or several, one a fold"
        )
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
