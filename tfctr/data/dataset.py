"""A dataset directory, as `beam_pipelines.prepare` writes it, and its `tf.data` readers."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfctr.data.manifest import FORMAT, DataError, read_manifest
from tfctr.data.packed import Packed
from tfctr.data.records import read_columns
from tfctr.schema import Schema, Text

SHUFFLE_ROWS = 1 << 16  # held and shuffled at a time where the rows are not all in memory
BLOCK_ROWS = 1024  # read from one shard at a time
INTERLEAVED_SHARDS = 16  # read from in turn, so that a batch mixes parts of the log
COLUMNS = ("row_id", "time", "label", "user_key")  # beside the features
TEXT = tf.io.FixedLenFeature([], tf.string)


class Part(NamedTuple):
    """What one worker of several reads; each of its replicas gets its own batches in turn."""

    worker: int = 0
    workers: int = 1
    replicas: int = 1  # of each worker


WHOLE = Part()


class Dataset:
    """A prepared data set.

    Batches are `({feature: values}, labels)`: ids int64 `[B]`, or `[B, max_length]` padded with
    `PAD_ID`; floats `[B]`, NaN where missing; labels float32 `[B]`.
    """

    def __init__(self, directory: Path, manifest: dict[str, Any]) -> None:
        self.directory = directory
        self.manifest = manifest
        self.schema = Schema.model_validate(manifest["schema"])
        self._in_memory: dict[tuple[str, ...], Any] = {}

    @classmethod
    def open(cls, directory: str | Path) -> "Dataset":
        """Opens the directory.

        Raises:
            DataError: there is no whole dataset; a shard that the manifest names is missing.
        """
        directory = Path(directory)
        manifest = read_manifest(directory / "manifest.json")
        if manifest is None:
            raise DataError(f"{directory}: no dataset here (no manifest.json); run `tfctr prepare`")
        if manifest.get("format") != FORMAT:
            raise DataError(
                f"{directory}: a dataset of format {manifest.get('format')}, where this version "
                f"reads {FORMAT}; run `tfctr prepare` again"
            )
        data = cls(directory, manifest)
        for split in manifest["splits"].values():
            for shard in split["shards"]:
                path = directory / shard["name"]
                size = path.stat().st_size if path.is_file() else None
                if size != shard["bytes"]:
                    raise DataError(
                        f"{path}: {'missing' if size is None else f'{size:,} bytes'} where the "
                        f"manifest says {shard['bytes']:,} bytes; run `tfctr prepare` again"
                    )
        return data

    def vocabulary_file(self, name: str) -> Path:
        """The file of a vocabulary: one token a line, the first one's id `FIRST_TOKEN_ID`."""
        return self.directory / "vocabularies" / f"{name}.txt"

    def num_rows(self, split: str) -> int:
        return self.manifest["splits"][split]["rows"]

    def train(
        self,
        batch_size: int,
        seed: int = 0,
        features: Sequence[str] | None = None,
        in_memory: bool = False,
        keep_negatives: float = 1.0,
        part: Part = WHOLE,
    ) -> tf.data.Dataset:
        """Shuffled training batches, in another order each time they are gone through.

        Args:
            batch_size: int. The last batch may be smaller. With several workers or replicas it is
                the global batch, of which each replica gets an equal part; rows that do not fill
                the last one wait for another epoch.
            seed: int. Of the orders, and of the negatives kept.
            features: names of those to read; all model inputs if not given.
            in_memory: hold all rows, as 4 bytes a number, and shuffle them whole; else shards are
                interleaved, and 65,536 rows at a time are shuffled.
            keep_negatives: float. Share of the rows without a click that are read, chosen anew
                by each seed. From files, the number of batches is the expected one: the last rows
                may be left out, or the first be read again.
            part: what to read, of several.

        Raises:
            DataError: too few rows, or shards, for so many workers.
        """
        names = self._names(features)
        if batch_size % (part.workers * part.replicas):
            raise DataError(
                f"batch_size {batch_size} must be a multiple of the "
                f"{part.workers * part.replicas} replicas"
            )
        if in_memory:
            return self._shuffled_whole(names, batch_size, seed, keep_negatives, part)
        return self._shuffled_in_windows(names, batch_size, seed, keep_negatives, part)

    def _shuffled_whole(
        self, names: tuple[str, ...], batch_size: int, seed: int, keep: float, part: Part
    ) -> tf.data.Dataset:
        texts, packed = self._texts(names), self._packed(names)
        if names not in self._in_memory:
            blocks = self._blocks(self._shards("train"), names).as_numpy_iterator()
            found = list(blocks)
            with tf.device("cpu:0"):
                rows = tf.constant(np.concatenate([block for block, _ in found]))
                strings = {k: tf.concat([t[k] for _, t in found], 0) for k in texts}
            self._in_memory[names] = rows, strings
        rows, strings = self._in_memory[names]
        chosen = None
        n = int(rows.shape[0])
        if keep < 1:
            chance = np.random.default_rng(seed).random(n)
            chosen = np.flatnonzero((packed.labels(rows).numpy() > 0) | (chance < keep))
            n = len(chosen)
        replicas = part.workers * part.replicas
        size = batch_size // replicas
        steps = n // batch_size if replicas > 1 else -(-n // batch_size)
        self._check_steps(steps, batch_size, n)

        def permute(seed_of_epoch: Any) -> Any:
            places = tf.range(tf.constant(n, tf.int64))
            return tf.random.experimental.stateless_shuffle(places, [seed_of_epoch, seed])

        def batch(permutation: Any, i: Any) -> Any:
            step, replica = i // part.replicas, i % part.replicas
            first = step * batch_size + (part.worker * part.replicas + replica) * size
            places = permutation[first : tf.minimum(first + size, n)]
            places = places if chosen is None else tf.gather(chosen, places)
            features, labels = packed.unpack(tf.gather(rows, places))
            return features | {k: tf.gather(v, places) for k, v in strings.items()}, labels

        epochs = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
        order = epochs.map(permute).flat_map(
            lambda places: tf.data.Dataset.range(steps * part.replicas).map(lambda i: (places, i))
        )
        batches = order.map(batch, num_parallel_calls=2, deterministic=True)
        return _finish(batches, steps * part.replicas)

    def _shuffled_in_windows(
        self, names: tuple[str, ...], batch_size: int, seed: int, keep: float, part: Part
    ) -> tf.data.Dataset:
        packed, replicas = self._packed(names), part.workers * part.replicas
        workers = self._shards_of_workers(part.workers)
        paths, rows = workers[part.worker][0], min(rows for _, rows in workers)
        positives = self.manifest["splits"]["train"]["positives"]
        share = positives / self.num_rows("train")
        rows = math.floor(rows * (share + keep * (1 - share)))
        batch_of_worker = batch_size // part.workers
        steps = rows // batch_of_worker if replicas > 1 else -(-rows // batch_size)
        self._check_steps(steps, batch_size, rows)
        shards = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths), seed=seed)
        blocks = shards.interleave(
            lambda shard: self._records(shard).batch(BLOCK_ROWS), cycle_length=INTERLEAVED_SHARDS
        )
        blocks = blocks.map(self._decode(names), num_parallel_calls=2, deterministic=True)
        chances = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)

        def choose(chance: Any, block: Any) -> Any:
            drawn = tf.random.stateless_uniform(tf.shape(block[0])[:1], [seed, chance])
            kept = (packed.labels(block[0]) > 0) | (drawn < keep)
            return tf.nest.map_structure(lambda column: tf.boolean_mask(column, kept), block)

        def shuffle(chance: Any, window: Any) -> Any:
            places = tf.range(tf.shape(window[0], tf.int64)[0])
            places = tf.random.experimental.stateless_shuffle(places, [chance, seed])
            return tf.nest.map_structure(lambda column: tf.gather(column, places), window)

        if keep < 1:
            blocks = tf.data.Dataset.zip(chances, blocks).map(choose)
        windows = tf.data.Dataset.zip(chances, blocks.rebatch(SHUFFLE_ROWS)).map(shuffle)
        windows = windows.prefetch(1)  # the next one is made while this one is trained on
        if keep < 1:
            windows = windows.repeat()
        batches = windows.rebatch(batch_size // replicas, drop_remainder=replicas > 1)
        batches = batches.map(self._unpack(names), num_parallel_calls=2, deterministic=True)
        return _finish(batches.take(steps * part.replicas), steps * part.replicas)

    def valid(self, batch_size: int, features: Sequence[str] | None = None) -> tf.data.Dataset:
        """Validation batches, in the order of `columns("valid")`."""
        return self._in_order("valid", batch_size, self._names(features))

    def test(self, batch_size: int, features: Sequence[str] | None = None) -> tf.data.Dataset:
        """Test batches, in the order of `columns("test")`."""
        return self._in_order("test", batch_size, self._names(features))

    def columns(self, split: str, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Whole columns `[N]` of a split: features, `row_id`, `time`, `label` or `user_key`."""
        numbers = [name for name in names if name in self.manifest["layout"]["fields"]]
        parts = [
            read_columns(shard, self.manifest["layout"], numbers) for shard in self._shards(split)
        ]
        found = {name: np.concatenate([part[name] for part in parts]) for name in numbers}
        for name in numbers:
            if name in COLUMNS or not self.schema[name].is_list:
                found[name] = found[name][:, 0]
        texts = self._texts([name for name in names if name not in numbers])
        if texts:
            specs = dict.fromkeys(texts, TEXT)
            records = self._records(self._shards(split)).batch(8192)
            batches = [tf.io.parse_example(batch, specs) for batch in records]
            found |= {k: np.concatenate([batch[k].numpy() for batch in batches]) for k in texts}
        return {name: found[name] for name in names}

    @cached_property
    def _compression(self) -> str:
        return "GZIP" if self.manifest["config"]["compression"] == "gzip" else ""

    def _names(self, features: Sequence[str] | None) -> tuple[str, ...]:
        if features is None:
            return tuple(feature.name for feature in self.schema.inputs)
        return tuple(self.schema[name].name for name in features)

    def _shards(self, split: str) -> list[str]:
        shards = self.manifest["splits"][split]["shards"]
        if not shards:
            raise DataError(f"{self.directory}: the split {split!r} has no rows")
        return [str(self.directory / shard["name"]) for shard in shards]

    def _shards_of_workers(self, workers: int) -> list[tuple[list[str], int]]:
        """Each worker's shards and the number of their rows: nearly as many for each."""
        shards = self.manifest["splits"]["train"]["shards"]
        if len(shards) < workers:
            raise DataError(
                f"{self.directory}: {len(shards)} training shards cannot be spread over {workers} "
                "workers; set training.in_memory, or prepare from more, smaller files"
            )
        found: list[tuple[list[str], int]] = [([], 0)] * workers
        for shard in sorted(shards, key=lambda shard: -shard["rows"]):
            i = min(range(workers), key=lambda i: found[i][1])
            paths, rows = found[i]
            found[i] = [*paths, str(self.directory / shard["name"])], rows + shard["rows"]
        return found

    def _check_steps(self, steps: int, batch_size: int, rows: int) -> None:
        if not steps:
            raise DataError(
                f"{self.directory}: {rows:,} training rows do not fill one batch of {batch_size:,}"
            )

    def _records(self, shard: Any) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(shard, self._compression)

    def _in_order(self, split: str, batch_size: int, names: tuple[str, ...]) -> tf.data.Dataset:
        batches = self._blocks(self._shards(split), names, batch_size).map(self._unpack(names))
        return _finish(batches, -(-self.num_rows(split) // batch_size))

    def _blocks(
        self, paths: list[str], names: tuple[str, ...], rows: int = 8192
    ) -> tf.data.Dataset:
        """Decoded rows in the log's order, some at a time."""
        records = self._records(paths).batch(rows)
        return records.map(self._decode(names), num_parallel_calls=2, deterministic=True)

    def _decode(self, names: tuple[str, ...]) -> Callable[[Any], Any]:
        """Records `[n]` -> packed rows, and texts `{name: [n]}` beside them."""
        packed, specs = self._packed(names), dict.fromkeys(self._texts(names), TEXT)

        def decode(records: Any) -> Any:
            texts = tf.io.parse_example(records, specs) if specs else {}
            return packed.decode(records), texts

        return decode

    def _unpack(self, names: tuple[str, ...]) -> Callable[[Any, Any], Any]:
        packed = self._packed(names)

        def unpack(rows: Any, texts: dict[str, Any]) -> Any:
            features, labels = packed.unpack(rows)
            return features | texts, labels

        return unpack

    def _packed(self, names: tuple[str, ...]) -> Packed:
        numbers = [name for name in names if self.schema[name].is_model_input]
        lists = [feature.name for feature in self.schema if feature.is_list]
        return Packed(self.manifest["layout"], lists, numbers)

    def _texts(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if isinstance(self.schema[name], Text)]


def _finish(batches: tf.data.Dataset, steps: int) -> tf.data.Dataset:
    options = tf.data.Options()
    # Nothing here is tuned by tf.data, and the thread that would tune ends late: with it, an
    # iterator's end waits until 5.1, 10.2, 20.5... seconds after its start.
    options.autotune.enabled = False
    batches = batches.prefetch(2).apply(tf.data.experimental.assert_cardinality(steps))
    return batches.with_options(options)
