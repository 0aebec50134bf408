"""Finds the most similar earlier rows of every row of a dataset, with their labels.

    python -m beam_pipelines.retrieve --config configs/movielens-1m/rok/similar.yaml \\
        --data work/movielens-1m-pool --output work/movielens-1m-similar

It takes Beam's options too. The output has a shard for each shard of the dataset, with the same
rows in the same order; `docs/data.md` describes a row.
"""

import argparse
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import apache_beam as beam
import numpy as np

from beam_pipelines.running import job
from beam_pipelines.tfrecord.examples import INT64_WIDTH, Field
from beam_pipelines.transforms.broadcast import Broadcast, Gather
from beam_pipelines.transforms.histogram import Histogram, State, num_values, quantiles
from beam_pipelines.transforms.side_outputs import (
    Written,
    by_split,
    describe,
    open_manifest,
    write_shard,
)
from beam_pipelines.transforms.split import KNOWN, SPLITS
from tfctr.config import digest, load
from tfctr.data import files
from tfctr.data.arrived import check_arrived
from tfctr.data.clean import LABEL, TIME
from tfctr.data.manifest import DataError
from tfctr.data.records import read_columns
from tfctr.data.typed_rows import ROW
from tfctr.retrieval import similar_rows
from tfctr.retrieval.bm25 import Bm25Index, idf
from tfctr.retrieval.config import RetrievalConfig
from tfctr.retrieval.dense import DenseIndex
from tfctr.retrieval.random_rows import RandomRows
from tfctr.retrieval.similar_rows import CLICKED, NO_ROW, NOT_CLICKED, PREFIX
from tfctr.schema import PAD_ID, Numeric, Schema
from tfctr.schema import Sequence as TokenSequence

INDEX_ROWS = 1 << 20  # in a part of the pool; a worker holds one part
TARGET_ROWS = 1 << 16  # in one search; it reads its part of the pool anew
ENCODED_ROWS = 8192  # in a batch of an encoder
NO_TIME = np.iinfo(np.int64).min
ENDLESS = np.iinfo(np.int64).max  # the pool is not cut

Columns: TypeAlias = dict[str, np.ndarray]


@dataclass(frozen=True)
class WrittenSimilarRows(Written):
    """A shard of similar rows."""

    short: int  # rows with fewer than `k` similar ones
    empty: int  # rows without any


class DatasetShards:
    """The shards of a dataset directory."""

    def __init__(self, directory: str, manifest: Mapping[str, Any]) -> None:
        self.directory = directory.rstrip("/")
        self.layout = manifest["layout"]
        self.schema = Schema.model_validate(manifest["schema"])
        shards = {split: found["shards"] for split, found in manifest["splits"].items()}
        self.shards = [(shard["name"], shard["rows"]) for part in shards.values() for shard in part]
        known = [SPLITS[code] for code in KNOWN]
        self.known = [shard["name"] for split in known for shard in shards.get(split, [])]

    @property
    def features(self) -> list[Any]:
        """The features of a retrieved row: no sequences, as `k` of them would fill the row."""
        return [f for f in self.schema.inputs if not isinstance(f, TokenSequence)]

    def read(self, shards: Iterable[str], names: Sequence[str]) -> Columns:
        """Columns of some shards, concatenated: `[N]`, or `[N, values]` for lists."""
        parts = [read_columns(f"{self.directory}/{name}", self.layout, names) for name in shards]
        found = {name: np.concatenate([part[name] for part in parts]) for name in names}
        return {
            name: values[:, 0] if values.shape[1] == 1 else values for name, values in found.items()
        }

    def num_rows(self, shards: Iterable[str]) -> int:
        rows = dict(self.shards)
        return sum(rows[name] for name in shards)

    def groups(self, num_rows: int) -> list[tuple[str, ...]]:
        """Groups of neighbouring shards, with about `num_rows` rows each."""
        found: list[tuple[str, ...]] = []
        held = num_rows
        for name, rows in self.shards:
            if held + rows > num_rows:
                found.append(())
                held = 0
            found[-1] += (name,)
            held += rows
        return found


class Retrieve(beam.PTransform):
    """A retrieval config -> one dict: the summary, for the manifest, of the shards in `folder`.

    The pool is cut into parts, so that no worker holds all of it. Each part is searched for each
    group of target rows, and the best rows of all parts are kept.
    """

    def __init__(
        self, config: RetrievalConfig, dataset: DatasetShards, folder: str, encoder: str = ""
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config
        self.dataset = dataset
        self.folder = folder

    def expand(self, pipeline: Any) -> beam.PCollection:
        config, dataset = self.config, self.dataset
        weights = (
            pipeline
            | "KnownShards" >> beam.Create(dataset.known)
            | "CountTokens" >> beam.Map(_count_tokens, dataset, config.fields)
            | "OneKey" >> beam.Map(lambda counts: (0, counts))
            | "SumCounts" >> beam.CombinePerKey(_sum_counts)
            | "Sum" >> beam.Values()
            | "Weigh" >> beam.Map(_weigh, dataset.num_rows(dataset.known))
            | "WriteWeights" >> beam.Map(_write_weights, self.folder)
        )
        if config.pool < 1:
            all_shards = [name for name, _ in dataset.shards]
            until = (
                pipeline
                | "Shards" >> beam.Create(all_shards)
                | "Times" >> beam.Map(lambda name: (0, dataset.read([name], [TIME])[TIME]))
                | "CountTimes" >> beam.CombinePerKey(Histogram())
                | "AllTimes" >> beam.Values()
                | "Cut" >> beam.Map(_cut, config.pool, dataset.num_rows(all_shards))
            )
        else:
            until = pipeline | "NoCut" >> beam.Create([ENDLESS])
        pools = dataset.groups(INDEX_ROWS)
        pairs = [
            (part, pool, targets)
            for part, pool in enumerate(pools)
            for targets in dataset.groups(TARGET_ROWS)
        ]
        written = (
            (
                pipeline | "Pairs" >> beam.Create(list(enumerate(pairs))),
                {"weights": weights, "until": until},
            )
            | "WithWeights" >> Broadcast("search", len(pairs), weights=1, until=1)
            | "Search" >> beam.FlatMap(_search, config, dataset, self.encoder, self.folder)
            | "GatherParts" >> beam.GroupByKey()
            | "WriteShard" >> beam.Map(_write_shard, config, dataset, self.folder, len(pools))
        )
        return (
            {"written": written, "until": until}
            | "Gather" >> Gather(until=1)
            | "Summarise" >> beam.Map(_summarise, len(dataset.shards))
        )


def _count_tokens(shard: str, dataset: DatasetShards, fields: Sequence[str]) -> tuple[int, Columns]:
    """The number of rows and, for each field, how many of them hold each id."""
    columns = dataset.read([shard], [ROW, *fields])
    counts = {}
    for name in fields:
        ids = columns[name].reshape(len(columns[name]), -1)
        ids = np.sort(ids, axis=1)
        first = np.c_[np.ones((len(ids), 1), bool), ids[:, 1:] != ids[:, :-1]]
        counts[name] = np.bincount(ids[first], minlength=dataset.schema[name].num_ids)
    return len(columns[ROW]), counts


def _sum_counts(parts: Iterable[tuple[int, Columns]]) -> tuple[int, Columns]:
    total = 0
    counts: Columns = {}
    for rows, found in parts:
        total += rows
        counts = {name: counts.get(name, 0) + values for name, values in found.items()}
    return total, counts


def _weigh(counted: tuple[int, Columns], num_rows: int) -> Columns:
    rows, counts = counted
    check_arrived("rows whose tokens are counted", rows, num_rows)
    return {name: idf(values, rows) for name, values in counts.items()}


def _write_weights(weights: Columns, folder: str) -> str:
    """Writes them to a file, because there is one for each id, and returns its path."""
    path = f"{folder}/found/weights.npz"
    files.write_arrays(path, weights)
    return path


def _cut(times: State, share: float, num_rows: int) -> int:
    check_arrived("rows whose times are counted", num_values(times), num_rows)
    return quantiles(times, [share])[0]


def _search(
    pair: tuple[tuple[int, tuple[str, ...], tuple[str, ...]], dict[str, list[Any]]],
    config: RetrievalConfig,
    dataset: DatasetShards,
    encoder: str,
    folder: str,
) -> Iterator[tuple[str, str]]:
    """Searches one part of the pool -> for each shard of targets, a file of the rows found."""
    (part, pool_shards, target_shards), given = pair
    (path,), (until,) = given["weights"], given["until"]
    weights = files.read_arrays(path)
    names = [ROW, TIME, LABEL, *(f.name for f in dataset.features)]
    pool = dataset.read(pool_shards, names)
    _refuse_duplicates(pool[ROW], pool_shards)
    if until < ENDLESS:
        early = pool[TIME] < until
        pool = {name: values[early] for name, values in pool.items()}
    search = _searcher(config, dataset, encoder, pool, weights)
    for shard in target_shards:
        targets = dataset.read([shard], [TIME, *(f.name for f in dataset.features)])
        rows, scores = search(targets, zlib.crc32(f"{part} {shard}".encode()))
        found = {"score": scores} | {name: _taken(pool[name], rows) for name in names}
        found[TIME] = np.where(rows < 0, NO_TIME, found[TIME])
        found[ROW] = np.where(rows < 0, -1, found[ROW])
        path = f"{folder}/found/{part:05d}/{shard}.npz"
        files.write_arrays(path, found)
        yield shard, path


def _refuse_duplicates(rows: np.ndarray, shards: Sequence[str]) -> None:
    """A row that occurs twice would take two of a target's `k` places."""
    ids, counts = np.unique(rows, return_counts=True)
    if (counts > 1).any():
        raise DataError(
            f"{shards[0]} to {shards[-1]}: row {ids[counts > 1][0]} occurs "
            f"{counts[counts > 1][0]} times; run `tfctr prepare` again"
        )


def _searcher(
    config: RetrievalConfig, dataset: DatasetShards, encoder: str, pool: Columns, weights: Columns
) -> Callable[[Columns, int], tuple[np.ndarray, np.ndarray]]:
    """A function from targets and a seed to their rows in the pool, and the rows' scores."""
    if config.method == "bm25":
        bm25 = Bm25Index(pool, pool[TIME], pool[ROW], weights)
        return lambda targets, _: bm25.search(targets, targets[TIME], config.k)
    if config.method == "random":
        return lambda targets, seed: RandomRows(pool[TIME], seed).search(targets[TIME], config.k)
    dense = DenseIndex(_encoded(encoder, dataset, pool), pool[TIME], pool[ROW])
    return lambda targets, _: dense.search(
        _encoded(encoder, dataset, targets), targets[TIME], config.k
    )


def _encoded(encoder: str, dataset: DatasetShards, columns: Columns) -> np.ndarray:
    """A trained backbone's vectors of all fields, concatenated: float32 `[N, F * D]`."""
    import keras

    model = keras.models.load_model(encoder, compile=False)
    features = {}
    for name in model.reads:
        values = columns[name]
        features[name] = values.reshape(len(values), -1) if dataset.schema[name].is_list else values
    rows = len(columns[TIME])
    parts = [
        np.asarray(model.embed({k: v[i : i + ENCODED_ROWS] for k, v in features.items()}))
        for i in range(0, max(rows, 1), ENCODED_ROWS)
    ]
    return np.concatenate(parts).reshape(rows, -1)


def _taken(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`values[rows]`, `[T, k, ...]`; any value where there is no row."""
    if not len(values):
        return np.zeros((*rows.shape, *values.shape[1:]), values.dtype)
    return values[rows]


def _best(parts: Iterable[str], k: int) -> Columns:
    """The best `k` rows of several parts of the pool, for the same targets."""
    best: Columns = {}
    for path in sorted(parts):
        found = files.read_arrays(path)
        if best:
            found = {name: np.concatenate([best[name], found[name]], axis=1) for name in found}
            order = np.lexsort((found[ROW], found[TIME], found["score"]), axis=1)[:, ::-1][:, :k]
            rows = np.arange(len(order))[:, None]
            found = {name: values[rows, order] for name, values in found.items()}
        best = found
    return best


def retrieved_fields(dataset: DatasetShards, k: int) -> list[Field]:
    """The fields of a row of the output."""
    fields = [
        Field(ROW, width=INT64_WIDTH),
        Field(PREFIX + "row", k, INT64_WIDTH),
        Field.ids(similar_rows.LABEL, CLICKED + 1, k),
    ]
    for feature in dataset.features:
        name, length = PREFIX + feature.name, feature.max_length if feature.is_list else 1
        if isinstance(feature, Numeric):
            fields.append(Field(name, k))
        else:
            fields.append(Field.ids(name, feature.num_ids, k * length))
    return fields


def _write_shard(
    found_in: tuple[str, Iterable[str]],
    config: RetrievalConfig,
    dataset: DatasetShards,
    folder: str,
    num_pools: int,
) -> WrittenSimilarRows:
    shard, found = found_in
    parts = list(found)
    check_arrived(f"{shard}: parts of the pool", len(parts), num_pools)
    best = _best(parts, config.k)
    targets = dataset.read([shard], [ROW, TIME])
    exists = best["score"] > 0
    late = exists & (best[TIME] >= targets[TIME][:, None])
    if late.any():
        row = int(targets[ROW][late.any(axis=1)][0])
        raise AssertionError(f"{shard}: row {row} has a similar row that is not earlier")
    columns = {ROW: targets[ROW], PREFIX + "row": best[ROW]}
    labels = np.where(best[LABEL] > 0, CLICKED, NOT_CLICKED)
    columns[similar_rows.LABEL] = np.where(exists, labels, NO_ROW)
    for feature in dataset.features:
        values = best[feature.name]
        there = exists.reshape(*exists.shape, *[1] * (values.ndim - 2))
        nothing = np.nan if isinstance(feature, Numeric) else PAD_ID
        values = np.where(there, values, nothing)
        columns[PREFIX + feature.name] = values.reshape(len(values), -1)
    found = exists.sum(axis=1)
    return WrittenSimilarRows(
        **write_shard(folder, shard, retrieved_fields(dataset, config.k), columns),
        short=int((found < config.k).sum()),
        empty=int((found == 0).sum()),
    )


def _summarise(found: dict[str, list[Any]], shards: int) -> dict[str, Any]:
    written, (until,) = found["written"], found["until"]
    check_arrived("shards", len(written), shards)
    splits = {
        split: shards
        | {
            "rows_with_fewer_than_k": sum(part.short for part in parts),
            "rows_without_any": sum(part.empty for part in parts),
        }
        for split, (shards, parts) in by_split(written).items()
    }
    return {"pool_until": None if until == ENDLESS else until, "splits": splits}


def retrieve(
    config: RetrievalConfig,
    data: str,
    output: str,
    beam_args: list[str] | None = None,
    encoder: str = "",
) -> dict[str, Any]:
    """Runs the search and writes the directory `output`, whole or not at all.

    Args:
        config: of the retrieval.
        data: path or URI of the dataset directory.
        output: path or URI of the directory; an existing one is replaced.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.
        encoder: path of a trained model, a `.keras` file, for the dense method.

    Returns:
        The manifest.

    Raises:
        DataError: `data` is not a dataset of this config; no row has a similar earlier one.
    """
    manifest = open_manifest(data)
    if manifest["config_digest"] != digest(config.data):
        raise DataError(f"{data}: holds a dataset of another config; run `tfctr prepare`")
    dataset = DatasetShards(data, manifest)
    with job.directory(output) as folder:
        summary = job.run(
            Retrieve(config, dataset, folder, encoder),
            "retrieve",
            config.name,
            folder,
            beam_args or [],
        )
        splits = summary["splits"].values()
        if all(split["rows_without_any"] == split["rows"] for split in splits):
            raise DataError(
                f"{config.name}: no row found a similar earlier one; widen pool = {config.pool:g}, "
                "or compare other fields"
            )
        job.delete_folders(folder, "found")
        about = {"config": config.model_dump(mode="json"), "config_digest": digest(config)}
        fields = retrieved_fields(dataset, config.k)
        return describe(folder, manifest, fields, **about, **summary)


class RetrieveOptions(job.JobOptions):
    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        job.add_output(parser, __doc__)
        parser.add_argument("--config", required=True, help="YAML file: a retrieval config")
        parser.add_argument("--data", required=True, help="the dataset directory")
        parser.add_argument(
            "--encoder", default="", help="a trained model.keras, for the dense method"
        )


def _write(options: RetrieveOptions) -> str:
    config, encoder = load(options.config, RetrievalConfig), options.encoder
    return job.summary_line(
        retrieve(config, options.data, options.output, options.beam_args, encoder)
    )


def main(argv: list[str] | None = None) -> int:
    return job.command(RetrieveOptions, argv, _write)


if __name__ == "__main__":
    sys.exit(job.run_main(__spec__))
