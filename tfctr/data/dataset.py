"""A dataset directory, as `beam_pipelines.prepare` writes it, and its `tf.data` readers."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfctr.config import Fold, Label, SplitConfig, Time, data_digest
from tfctr.data import files
from tfctr.data.folds import fold_of
from tfctr.data.manifest import FORMAT, DataError, read_manifest
from tfctr.data.packed import Packed
from tfctr.data.records import read_columns
from tfctr.data.summary import described
from tfctr.schema import TOKEN_KINDS, Schema, Text

SHUFFLE_ROWS = 1 << 16  # rows shuffled at a time, unless all are in memory
BLOCK_ROWS = 1024  # read from one shard at a time
INTERLEAVED_SHARDS = 16  # shards read in turn, so that a batch mixes parts of the log
ROW, LABEL = "row_id", "label"
TEXT, INTEGER = (tf.io.FixedLenFeature([], dtype) for dtype in (tf.string, tf.int64))

# No function that is mapped here branches or loops on a tensor. AutoGraph would rewrite each of
# them all the same, and all that they call, whenever a split is opened: a second or more.
as_written = tf.autograph.experimental.do_not_convert


class Part(NamedTuple):
    """The rows of one of several workers; its replicas take batches in turn."""

    worker: int = 0
    workers: int = 1
    replicas: int = 1  # of each worker


WHOLE = Part()


class _Folder(NamedTuple):
    """A folder that holds some of each row's fields."""

    directory: Path
    layout: dict[str, Any]  # of its manifest
    fields: frozenset[str]
    lists: frozenset[str]  # the fields that hold a list


class Dataset:
    """A prepared data set.

    Batches are `({feature: values}, labels)`: ids int64 `[B]`, or `[B, max_length]` padded with
    `PAD_ID`; floats `[B]`, NaN where missing; labels float32 `[B]`. Side outputs, which hold more
    fields of the same rows (similar rows, a teacher's hints), are read by name like a feature:
    `[B, values]`.
    """

    def __init__(
        self,
        directory: Path,
        manifest: dict[str, Any],
        side_outputs: Sequence[tuple[Path, dict[str, Any]]] = (),
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self.schema = Schema.model_validate(manifest["schema"]).measured_on(directory)
        lists = frozenset(feature.name for feature in self.schema if feature.is_list)
        layout = manifest["layout"]
        self._folders = [_Folder(directory, layout, frozenset(layout["fields"]), lists)]
        for folder, found in side_outputs:
            fields = frozenset(found["layout"]["fields"]) - {ROW}
            self._folders.append(_Folder(folder, found["layout"], fields, fields))
        self._in_memory: dict[tuple[tuple[str, ...], tuple[str, ...]], Any] = {}

    @classmethod
    def open(cls, directory: str | Path, side_outputs: Sequence[str | Path] = ()) -> "Dataset":
        """Opens the directory.

        Args:
            directory: of the dataset.
            side_outputs: directories with more fields of its rows, e.g. those of `tfctr retrieve`.

        Raises:
            DataError: the dataset is missing or incomplete; a shard that the manifest names is
                missing; side outputs belong to other rows.
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
        _check_shards(directory, manifest, "run `tfctr prepare` again")
        more = []
        for folder in map(Path, side_outputs):
            found = read_manifest(folder / "manifest.json")
            if found is None:
                raise DataError(f"{folder}: no side outputs of {directory} here (no manifest.json)")
            if found.get("data") != data_digest(manifest) or _rows(found) != _rows(manifest):
                raise DataError(f"{folder}: made of other rows than {directory} has; make it again")
            _check_shards(folder, found, "make it again")
            more.append((folder, found))
        return cls(directory, manifest, more)

    @classmethod
    def from_dataframe(
        cls,
        frame: Any,
        schema: Iterable[Any] | None = None,
        *,
        label: str | Label,
        time: str | Time | None = None,
        user: str | None = None,
        item: str | None = None,
        split: SplitConfig | None = None,
        directory: str | Path | None = None,
        **keys: Any,
    ) -> "Dataset":
        """Prepares a DataFrame, by the job that prepares logs.

        Vocabularies and statistics are fitted on the training rows. Bad rows are left out, and a
        warning says how many there are and why. A million rows take some seconds.

        Args:
            frame: of pandas (2.2), Polars, pyarrow or another library with Arrow's interface.
            schema: the features: a `tfctr.schema.Schema`, or a list of them as in a data config.
                Defaults to what `tfctr init` would guess; a warning names the columns left out.
            label: the column of 0 and 1, or a `tfctr.config.Label`, for stars or counts.
            time: the column, or a `tfctr.config.Time` with its unit or format. Defaults to none.
            user, item: the feature that identifies the user (the item); without a schema, its
                column. Default to none: no GAUC, and no unseen or rare users.
            split: a `tfctr.config.Split`, or of a column. Defaults to the last tenth of the rows by
                time for test and the tenth before for validation; at random without a time.
            directory: to write to; a dataset that is there is replaced. Defaults to a temporary
                folder that is deleted when the process ends.
            keys: further keys of a data config, such as `defaults`, `max_bad_share`.

        Raises:
            ConfigError: a column is missing, or has a type that can hold no value of its feature.
            DataError: too many bad rows, or a split without rows.

        Example:

            data = Dataset.from_dataframe(df, label="click", time="ts", user="user_id")
            model = tfctr.backbones.DCNv2(data.schema)
        """
        from tfctr.frames.prepared import prepare_frame

        roles = (label, time, user, item)
        return cls.open(prepare_frame(frame, schema, *roles, split, directory, **keys))

    @classmethod
    def from_tf_data(
        cls,
        batches: tf.data.Dataset,
        schema: Iterable[Any] | None = None,
        *,
        label: str = LABEL,
        **arguments: Any,
    ) -> "Dataset":
        """Prepares the raw rows of a `tf.data.Dataset`, which must fit in memory.

        Args:
            batches: of `({feature: values}, label)`, or of `{feature: values}` with the label among
                them; rows, or batches of rows.
            schema: as for `from_dataframe`.
            label: name of the label, where it is among the features. Defaults to "label".
            arguments: `time`, `user`, ...: as for `from_dataframe`.

        Errors are those of `from_dataframe`.
        """
        from tfctr.frames.tables import from_batches

        table = from_batches(batches, label)
        return cls.from_dataframe(table, schema, label=label, **arguments)

    def __repr__(self) -> str:
        return f"Dataset({str(self.directory)!r}): " + "; ".join(described(self.manifest))

    def vocabulary_file(self, name: str) -> Path:
        """The file of a vocabulary: one token a line, the first one's id `FIRST_TOKEN_ID`."""
        return self.directory / "vocabularies" / f"{name}.txt"

    def copy_vocabularies(self, folder: str | Path) -> None:
        """Copies the vocabularies next to a model, for a training that starts from it."""
        for name in dict.fromkeys(f.vocabulary for f in self.schema if isinstance(f, TOKEN_KINDS)):
            if (path := self.vocabulary_file(name)).is_file():
                files.write(f"{folder}/{name}.txt", path.read_bytes())

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
        splits: Sequence[str] = ("train",),
        left_out: Fold | None = None,
    ) -> tf.data.Dataset:
        """Shuffled training batches, in another order in each pass.

        Args:
            batch_size: int. The last batch may be smaller. With several workers or replicas it is
                the global batch, of which each replica gets an equal part; rows that do not fill
                the last batch are left for another epoch.
            seed: int. Of the order, and of the negatives that are kept.
            features: names of the features to read. Defaults to all model inputs.
            in_memory: hold all rows, as 4 bytes a number, and shuffle all of them; else shards are
                interleaved, and 65,536 rows at a time are shuffled.
            keep_negatives: float. Share of the rows without a click that are read; each seed
                chooses others.
            part: the share of this worker.
            splits: the rows to train on, all shuffled together.
            left_out: rows that are not read.

        With `keep_negatives` or `left_out`, the number of batches from files is the expected one:
        the last rows may be left out, or the first ones read again.

        Raises:
            DataError: too few rows, or shards, for the number of workers.
        """
        names, splits = self._names(features), tuple(splits)
        if batch_size % (part.workers * part.replicas):
            raise DataError(
                f"batch_size {batch_size} must be a multiple of the "
                f"{part.workers * part.replicas} replicas"
            )
        if in_memory:
            return self._shuffled_whole(
                splits, names, batch_size, seed, keep_negatives, part, left_out
            )
        return self._shuffled_in_windows(
            splits, names, batch_size, seed, keep_negatives, part, left_out
        )

    def _shuffled_whole(
        self,
        splits: tuple[str, ...],
        names: tuple[str, ...],
        batch_size: int,
        seed: int,
        keep: float,
        part: Part,
        left_out: Fold | None,
    ) -> tf.data.Dataset:
        wanted = (*names, ROW) if left_out else names
        if (splits, wanted) not in self._in_memory:
            self._in_memory.clear()  # two copies of most rows may not fit
            shards = [shard for split in splits for shard in self._shards(split)]
            found = list(self._blocks(shards, wanted).as_numpy_iterator())
            with tf.device("cpu:0"):
                rows = tf.constant(np.concatenate([block for block, _ in found]))
                more = {k: tf.concat([t[k] for _, t in found], 0) for k in found[0][1]}
            self._in_memory[splits, wanted] = rows, more
        rows, more = self._in_memory[splits, wanted]
        strings = {k: values for k, values in more.items() if k != ROW}
        chosen = None
        n = int(rows.shape[0])
        if keep < 1 or left_out:
            kept = np.ones(n, bool)
            if keep < 1:
                chance = np.random.default_rng(seed).random(n)
                kept = (self._labels(names, rows).numpy() > 0) | (chance < keep)
            if left_out:
                kept &= fold_of(more[ROW].numpy(), left_out.folds) != left_out.index
            chosen = np.flatnonzero(kept)
            n = len(chosen)
        replicas = part.workers * part.replicas
        size = batch_size // replicas
        steps = n // batch_size if replicas > 1 else -(-n // batch_size)
        self._check_steps(steps, batch_size, n)

        unpack = self._unpack(names)

        @as_written
        def permute(seed_of_epoch: Any) -> Any:
            places = tf.range(tf.constant(n, tf.int64))
            return tf.random.experimental.stateless_shuffle(places, [seed_of_epoch, seed])

        @as_written
        def batch(permutation: Any, i: Any) -> Any:
            step, replica = i // part.replicas, i % part.replicas
            first = step * batch_size + (part.worker * part.replicas + replica) * size
            places = permutation[first : tf.minimum(first + size, n)]
            places = places if chosen is None else tf.gather(chosen, places)
            of_batch = {k: tf.gather(v, places) for k, v in strings.items()}
            return unpack(tf.gather(rows, places), of_batch)

        @as_written
        def steps_of(permutation: Any) -> Any:
            numbers = tf.data.Dataset.range(steps * part.replicas)
            return numbers.map(as_written(lambda i: (permutation, i)))

        epochs = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
        order = epochs.map(permute).flat_map(steps_of)
        batches = order.map(batch, num_parallel_calls=2, deterministic=True)
        return _finish(batches, steps * part.replicas)

    def _shuffled_in_windows(
        self,
        splits: tuple[str, ...],
        names: tuple[str, ...],
        batch_size: int,
        seed: int,
        keep: float,
        part: Part,
        left_out: Fold | None,
    ) -> tf.data.Dataset:
        replicas = part.workers * part.replicas
        workers = self._shards_of_workers(splits, part.workers)
        shards, rows = workers[part.worker][0], min(rows for _, rows in workers)
        positives = sum(self.manifest["splits"][split]["positives"] for split in splits)
        share = positives / sum(self.num_rows(split) for split in splits)
        rows = math.floor(rows * (share + keep * (1 - share)))
        if left_out:
            rows = rows * (left_out.folds - 1) // left_out.folds
        batch_of_worker = batch_size // part.workers
        steps = rows // batch_of_worker if replicas > 1 else -(-rows // batch_size)
        self._check_steps(steps, batch_size, rows)
        order = tf.data.Dataset.from_tensor_slices(shards).shuffle(len(shards), seed=seed)
        wanted = (*names, ROW) if left_out else names
        blocks = order.interleave(
            as_written(lambda shard: self._records(shard, wanted).batch(BLOCK_ROWS)),
            cycle_length=INTERLEAVED_SHARDS,
        )
        blocks = blocks.map(self._decode(wanted), num_parallel_calls=2, deterministic=True)
        chances = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)

        @as_written
        def choose(chance: Any, block: Any) -> Any:
            drawn = tf.random.stateless_uniform(tf.shape(block[0])[:1], [seed, chance])
            kept = (self._labels(names, block[0]) > 0) | (drawn < keep)
            return tf.nest.map_structure(lambda column: tf.boolean_mask(column, kept), block)

        @as_written
        def shuffle(chance: Any, window: Any) -> Any:
            places = tf.range(tf.shape(window[0], tf.int64)[0])
            places = tf.random.experimental.stateless_shuffle(places, [chance, seed])
            return tf.nest.map_structure(lambda column: tf.gather(column, places), window)

        if left_out:
            blocks = blocks.map(_without(left_out))
        if keep < 1:
            blocks = tf.data.Dataset.zip(chances, blocks).map(choose)
        windows = tf.data.Dataset.zip(chances, blocks.rebatch(SHUFFLE_ROWS)).map(shuffle)
        windows = windows.prefetch(1)  # the next one is prepared while this one is trained on
        if keep < 1 or left_out:
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

    def columns(
        self, split: str, names: Sequence[str], shards: slice | None = None
    ) -> dict[str, np.ndarray]:
        """Whole columns `[N]` of a split: features, `row_id`, `time`, `label` or `user_key`.

        Fields of side outputs are `[N, values]`. `shards` are those to read, in order; all by
        default.
        """
        names_of_shards = self._shards(split)[shards or slice(None)]
        found: dict[str, np.ndarray] = {}
        for folder in self._folders:
            chosen = [name for name in names if name in folder.fields]
            if chosen:
                paths = [f"{folder.directory}/{shard}" for shard in names_of_shards]
                parts = [read_columns(path, folder.layout, chosen) for path in paths]
                for name in chosen:
                    values = np.concatenate([part[name] for part in parts])
                    found[name] = values if name in folder.lists else values[:, 0]
        texts = [name for name in names if name not in found and self.schema[name]]
        if texts:
            specs = dict.fromkeys(texts, TEXT)
            records = tf.data.TFRecordDataset(
                [f"{self.directory}/{shard}" for shard in names_of_shards], self._compression
            )
            batches = [tf.io.parse_example(batch, specs) for batch in records.batch(8192)]
            found |= {k: np.concatenate([batch[k].numpy() for batch in batches]) for k in texts}
        return {name: found[name] for name in names}

    @cached_property
    def _compression(self) -> str:
        return "GZIP" if self.manifest["config"]["compression"] == "gzip" else ""

    def _names(self, features: Sequence[str] | None) -> tuple[str, ...]:
        if features is None:
            return tuple(feature.name for feature in self.schema.inputs)
        added = [name for folder in self._folders[1:] for name in folder.fields]
        return tuple(name if name in added else self.schema[name].name for name in features)

    def _shards(self, split: str) -> list[str]:
        shards = self.manifest["splits"][split]["shards"]
        if not shards:
            raise DataError(f"{self.directory}: the split {split!r} has no rows")
        return [shard["name"] for shard in shards]

    def _shards_of_workers(
        self, splits: Sequence[str], workers: int
    ) -> list[tuple[list[str], int]]:
        """Each worker's shards and their number of rows, which are nearly equal."""
        shards = [shard for split in splits for shard in self.manifest["splits"][split]["shards"]]
        if len(shards) < workers:
            raise DataError(
                f"{self.directory}: {len(shards)} training shards cannot be spread over {workers} "
                "workers; set training.in_memory, or prepare from more, smaller files"
            )
        found: list[tuple[list[str], int]] = [([], 0)] * workers
        for shard in sorted(shards, key=lambda shard: -shard["rows"]):
            i = min(range(workers), key=lambda i: found[i][1])
            names, rows = found[i]
            found[i] = [*names, shard["name"]], rows + shard["rows"]
        return found

    def _check_steps(self, steps: int, batch_size: int, rows: int) -> None:
        if not steps:
            raise DataError(
                f"{self.directory}: {rows:,} training rows do not fill one batch of {batch_size:,}"
            )

    def _records(self, shards: Any, names: tuple[str, ...]) -> tf.data.Dataset:
        """For each row of these shards a tuple: its record, and the records of its side outputs."""
        return tf.data.Dataset.zip(
            tuple(
                tf.data.TFRecordDataset(tf.strings.join([f"{folder}/", shards]), self._compression)
                for folder, _ in self._packed(names)
            )
        )

    def _in_order(self, split: str, batch_size: int, names: tuple[str, ...]) -> tf.data.Dataset:
        batches = self._blocks(self._shards(split), names, batch_size).map(self._unpack(names))
        return _finish(batches, -(-self.num_rows(split) // batch_size))

    def _blocks(
        self, shards: list[str], names: tuple[str, ...], rows: int = 8192
    ) -> tf.data.Dataset:
        """Decoded rows in the log's order, some at a time."""
        records = self._records(shards, names).batch(rows)
        return records.map(self._decode(names), num_parallel_calls=2, deterministic=True)

    def _decode(self, names: tuple[str, ...]) -> Callable[..., Any]:
        """Records `[n]` of each folder -> packed rows, and texts and `ROW` as `{name: [n]}`."""
        parts, specs = self._packed(names), dict.fromkeys(self._texts(names), TEXT)
        if ROW in names:
            specs[ROW] = INTEGER

        @as_written
        def decode(*records: Any) -> Any:
            texts = tf.io.parse_example(records[0], specs) if specs else {}
            found = [packed.decode(r) for (_, packed), r in zip(parts, records, strict=True)]
            return tf.concat(found, axis=1), texts

        return decode

    def _unpack(self, names: tuple[str, ...]) -> Callable[[Any, Any], Any]:
        parts = [packed for _, packed in self._packed(names)]

        @as_written
        def unpack(rows: Any, texts: dict[str, Any]) -> Any:
            found: dict[str, Any] = {}
            for packed, columns in zip(
                parts, tf.split(rows, [p.num_columns for p in parts], axis=1), strict=True
            ):
                found |= packed.unpack(columns)
            label = found.pop(LABEL)
            return found | texts, label

        return unpack

    def _labels(self, names: tuple[str, ...], rows: Any) -> Any:
        """float32 `[n]` of packed rows; the dataset's own columns are the first."""
        return self._packed(names)[0][1].column(rows, LABEL)

    def _packed(self, names: Sequence[str]) -> list[tuple[Path, Packed]]:
        """The directories with numbers of these fields, and their layouts; the dataset first.
        `ROW` is in none of them: it has 64 bits."""
        parts = []
        for i, folder in enumerate(self._folders):
            found = [name for name in names if name in folder.fields and name != ROW]
            found += [] if i else [LABEL]
            if found:
                parts.append((folder.directory, Packed(folder.layout, folder.lists, found)))
        return parts

    def _texts(self, names: Sequence[str]) -> list[str]:
        texts = [feature.name for feature in self.schema if isinstance(feature, Text)]
        return [name for name in names if name in texts]


def _without(fold: Fold) -> Callable[[Any, dict[str, Any]], Any]:
    """Blocks of rows, with their `ROW`, to those that are not in a fold."""

    @as_written
    def leave_out(rows: Any, more: dict[str, Any]) -> Any:
        folds = tf.numpy_function(fold_of, [more.pop(ROW), fold.folds], tf.int64)
        kept = tf.ensure_shape(folds != fold.index, [None])
        return tf.nest.map_structure(lambda column: tf.boolean_mask(column, kept), (rows, more))

    return leave_out


def _finish(batches: tf.data.Dataset, steps: int) -> tf.data.Dataset:
    options = tf.data.Options()
    # No setting here is tuned by tf.data. Its tuning thread would delay the end of an iterator to
    # 5.1, 10.2, 20.5... seconds after its start.
    options.autotune.enabled = False
    batches = batches.prefetch(2).apply(tf.data.experimental.assert_cardinality(steps))
    return batches.with_options(options)


def _rows(manifest: dict[str, Any]) -> dict[str, int]:
    return {s["name"]: s["rows"] for split in manifest["splits"].values() for s in split["shards"]}


def _check_shards(directory: Path, manifest: dict[str, Any], advice: str) -> None:
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            path = directory / shard["name"]
            size = path.stat().st_size if path.is_file() else None
            if size != shard["bytes"]:
                raise DataError(
                    f"{path}: {'missing' if size is None else f'{size:,} bytes'} where the "
                    f"manifest says {shard['bytes']:,} bytes; {advice}"
                )
