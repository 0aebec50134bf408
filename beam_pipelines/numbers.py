"""Writes the statistics of every row, for trainings that read them in place of the events.

    python -m beam_pipelines.numbers --config statistics.yaml --data work/movielens-1m-long \\
        --tables work/movielens-1m-tables --output work/movielens-1m-tables-of-rows

It takes Beam's options too. The config is that of the method `statistics`, as in `frameworks` of a
run config. The output has a shard for each shard of the dataset, with the same rows in the same
order: `row_id`, and `numbers of statistics`, all numbers of the row's user and item before they are
scaled. They are computed by the layer that is served. Rows of the training period read the tables
of the other half of the users, any other row those of all.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np

from beam_pipelines.running import job
from beam_pipelines.statistics import check_tables
from beam_pipelines.tfrecord.examples import Field
from beam_pipelines.transforms.model_inputs import in_batches
from beam_pipelines.transforms.side_outputs import (
    EachShard,
    Written,
    describe,
    fields_of,
    open_manifest_of,
    splits_of,
    write_shard,
)
from beam_pipelines.transforms.split import IN_TRAINING
from tfctr.config import load
from tfctr.data.manifest import DataError
from tfctr.data.records import read_columns
from tfctr.data.typed_rows import ROW
from tfctr.frameworks.statistics.config import STORED, Statistics
from tfctr.schema import Schema

BATCH = 512  # rows; more are no faster


class _WriteShard(beam.DoFn):
    """A shard's name -> `Written`. Each worker loads the tables once."""

    def __init__(
        self,
        config: Statistics,
        data: str,
        manifest: dict[str, Any],
        tables: str,
        fields: Sequence[Field],
        folder: str,
    ) -> None:
        self.config, self.data, self.tables, self.folder = config, data, tables, folder
        self.layout, self.fields = manifest["layout"], fields
        self.schema = Schema.model_validate(manifest["schema"])

    def setup(self) -> None:
        import tensorflow as tf

        from tfctr.frameworks.statistics.stages import (
            create_statistics,
            load_tables,
            numbers_of_rows,
        )

        statistics = create_statistics(self.config, self.schema)
        statistics.build()
        statistics.set_tables(load_tables(self.tables, self.config.tables))
        of_rows = partial(numbers_of_rows, statistics, self.config.tables)
        self.compute = {
            training: tf.function(partial(of_rows, training=training), reduce_retracing=True)
            for training in (True, False)
        }

    def process(self, name: str) -> Iterable[Written]:
        config = self.config.tables
        path = f"{self.data}/{name}"
        columns = read_columns(path, self.layout, [ROW, *config.reads])
        rows = columns.pop(ROW)[:, 0]
        features = columns | {n: columns[n][:, 0] for n in (config.user.name, config.item.name)}
        compute = self.compute[name.partition("/")[0] in IN_TRAINING]
        numbers = in_batches(compute, features, len(rows), BATCH)
        if not np.isfinite(numbers).all():
            raise DataError(f"{self.tables}: numbers of {path} are not finite; make them again")
        columns = {ROW: rows, STORED: numbers}
        yield Written(**write_shard(self.folder, name, self.fields, columns))


def write_numbers(
    config: Statistics,
    data: str,
    tables: str,
    output: str,
    key: str = "",
    beam_args: list[str] | None = None,
) -> dict[str, Any]:
    """Writes the numbers of all rows to a directory at `output`, whole or not at all.

    Args:
        config: of the method.
        data: path or URI of the dataset directory.
        tables: path or URI of the directory of its tables, by `beam_pipelines.statistics`.
        output: path or URI of the directory; an existing one is replaced.
        key: identifies the tables; it is copied to the manifest.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.

    Returns:
        The manifest.

    Raises:
        DataError: `data` is not a dataset of this config; `tables` are not those of this config and
            dataset; a number is not finite.
    """
    from tfctr.frameworks.statistics.stages import create_statistics

    data, tables = data.rstrip("/"), tables.rstrip("/")
    manifest = open_manifest_of(config.tables.data, data)
    check_tables(tables, config.tables, manifest, data)
    schema = Schema.model_validate(manifest["schema"])
    fields = fields_of(STORED, create_statistics(config, schema).num_numbers)
    with job.directory(output) as folder:
        write = _WriteShard(config, data, manifest, tables, fields, folder)
        summary = job.run(
            EachShard(data, write, splits_of),
            "numbers",
            manifest["config"]["name"],
            folder,
            beam_args or [],
        )
        return describe(folder, manifest, fields, key=key, **summary)


class NumbersOptions(job.JobOptions):
    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        job.add_output(parser, __doc__)
        parser.add_argument("--config", required=True, help="YAML file: the method's config")
        parser.add_argument("--data", required=True, help="the dataset directory")
        parser.add_argument("--tables", required=True, help="the directory of its tables")


def _write(options: NumbersOptions) -> str:
    config = load(options.config, Statistics)
    paths = (options.data, options.tables, options.output)
    return job.summary_line(write_numbers(config, *paths, beam_args=options.beam_args))


def main(argv: list[str] | None = None) -> int:
    return job.command(NumbersOptions, argv, _write)


if __name__ == "__main__":
    sys.exit(job.run_main(__spec__))
