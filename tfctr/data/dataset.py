"""A dataset directory, as `beam_pipelines.prepare` writes it, and its `tf.data` readers."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfctr.data.manifest import DataError, read_manifest
from tfctr.schema import Numeric, Schema, Text

SHUFFLE_ROWS = 1 << 16  # held at a time where the rows are not all in memory
INTERLEAVED_SHARDS = 16  # read from at a time, so that a batch mixes parts of the log
COLUMNS = {"row_id": tf.int64, "time": tf.int64, "label": tf.float32, "user_key": tf.int64}


class Dataset:
    """A prepared data set.

    Batches are `({feature: values}, labels)`: ids int64 `[B]`, or `[B, max_length]` padded with
    `PAD_ID`; floats `[B]`, NaN where missing; labels float32 `[B]`.
    """

    def __init__(self, directory: Path, manifest: dict[str, Any]) -> None:
        self.directory = directory
        self.manifest = manifest
        self.schema = Schema.model_validate(manifest["schema"])
        self._in_memory: dict[tuple[str, ...], tuple[Any, Any]] = {}

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
    ) -> tf.data.Dataset:
        """Shuffled training batches, in another order each time they are gone through.

        Args:
            batch_size: int. The last batch may be smaller.
            seed: int. Of the orders.
            features: names of those to read; all model inputs if not given.
            in_memory: hold all rows and shuffle them whole; else shards are interleaved and a
                buffer of 65,536 rows is shuffled.
        """
        names = self._names(features)
        if in_memory:
            if names not in self._in_memory:
                self._in_memory[names] = self._everything("train", names)
            rows, labels = self._in_memory[names]
            n = self.num_rows("train")
            order = tf.data.Dataset.range(n).shuffle(n, seed=seed).batch(batch_size)

            def gather(chosen: Any) -> Any:
                return {k: tf.gather(v, chosen) for k, v in rows.items()}, tf.gather(labels, chosen)

            return order.map(gather, num_parallel_calls=2, deterministic=True).prefetch(2)
        shards = tf.data.Dataset.from_tensor_slices(self._shards("train"))
        shards = shards.shuffle(len(self._shards("train")), seed=seed)
        records = shards.interleave(
            self._records, cycle_length=INTERLEAVED_SHARDS, num_parallel_calls=2, deterministic=True
        )
        batches = records.shuffle(SHUFFLE_ROWS, seed=seed).batch(batch_size)
        return self._parse(batches, "train", batch_size, names)

    def valid(self, batch_size: int, features: Sequence[str] | None = None) -> tf.data.Dataset:
        """Validation batches, in the order of `columns("valid")`."""
        return self._in_order("valid", batch_size, self._names(features))

    def test(self, batch_size: int, features: Sequence[str] | None = None) -> tf.data.Dataset:
        """Test batches, in the order of `columns("test")`."""
        return self._in_order("test", batch_size, self._names(features))

    def columns(self, split: str, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Whole columns `[N]` of a split: features, `row_id`, `time`, `label` or `user_key`."""
        specs = {name: self._spec(name) for name in names}
        batches = self._records(self._shards(split)).batch(8192)
        found = [
            {k: v.numpy() for k, v in tf.io.parse_example(batch, specs).items()}
            for batch in batches
        ]
        return {name: np.concatenate([batch[name] for batch in found]) for name in names}

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

    def _records(self, shard: Any) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(shard, self._compression)

    def _in_order(self, split: str, batch_size: int, names: tuple[str, ...]) -> tf.data.Dataset:
        batches = self._records(self._shards(split)).batch(batch_size)
        return self._parse(batches, split, batch_size, names)

    def _parse(
        self, batches: tf.data.Dataset, split: str, batch_size: int, names: tuple[str, ...]
    ) -> tf.data.Dataset:
        specs = {name: self._spec(name) for name in (*names, "label")}

        def parse(records: Any) -> Any:
            columns = tf.io.parse_example(records, specs)
            label = columns.pop("label")
            return columns, label

        steps = -(-self.num_rows(split) // batch_size)
        batches = batches.map(parse, num_parallel_calls=2, deterministic=True).prefetch(2)
        return batches.apply(tf.data.experimental.assert_cardinality(steps))

    def _everything(self, split: str, names: tuple[str, ...]) -> tuple[dict[str, Any], Any]:
        columns = self.columns(split, (*names, "label"))
        label = columns.pop("label")
        with tf.device("cpu:0"):
            return {k: tf.constant(v) for k, v in columns.items()}, tf.constant(label)

    def _spec(self, name: str) -> tf.io.FixedLenFeature:
        if name in COLUMNS:
            return tf.io.FixedLenFeature([], COLUMNS[name])
        feature = self.schema[name]
        if isinstance(feature, Text):
            return tf.io.FixedLenFeature([], tf.string)
        if isinstance(feature, Numeric):
            return tf.io.FixedLenFeature([], tf.float32)
        return tf.io.FixedLenFeature([feature.max_length] if feature.is_list else [], tf.int64)
