"""Side outputs of a dataset: for each of its shards, one with more fields of the same rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

import tfctr
from beam_pipelines.tfrecord.examples import INT64_WIDTH, Field, encode, layout
from beam_pipelines.transforms.broadcast import Gather
from beam_pipelines.transforms.split import SPLITS
from tfctr.config import DataConfig, data_digest, digest
from tfctr.data import files
from tfctr.data.manifest import FORMAT, DataError, read_manifest, write_manifest
from tfctr.data.sources import inputs_of
from tfctr.data.typed_rows import ROW


@dataclass(frozen=True)
class Written:
    """A written shard."""

    split: str
    name: str
    rows: int
    bytes: int


class EachShard(beam.PTransform):
    """Nothing -> the result of `summarise` on the list of all written shards.

    Args:
        data: path or URI of the dataset directory.
        write: a shard's name -> `Written`s.
        summarise: a list of them -> one element.
    """

    def __init__(
        self, data: str, write: beam.DoFn, summarise: Callable[[list[Any]], dict[str, Any]]
    ) -> None:
        super().__init__()
        splits = open_manifest(data)["splits"].values()
        self.shards = [shard["name"] for found in splits for shard in found["shards"]]
        self.write = write
        self.summarise = summarise

    def expand(self, pipeline: Any) -> beam.PCollection:
        summarise = self.summarise
        written = (
            pipeline
            | "Shards" >> beam.Create(self.shards)
            | "Spread" >> beam.Reshuffle()
            | "Write" >> beam.ParDo(self.write)
        )
        return (
            {"shards": written}
            | "Gather" >> Gather(shards=len(self.shards))
            | "Summarise" >> beam.Map(lambda found: summarise(found["shards"]))
        )


def write_shard(
    folder: str, name: str, fields: Sequence[Field], columns: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes a shard and returns its `Written`.

    Args:
        folder: path or URI of the directory.
        name: of the shard, the same as the dataset's: `split/part-00000.tfrecord[.gz]`.
        fields: of a row.
        columns: as for `encode`.
    """
    content: Sequence[bytes | memoryview] = encode(fields, columns)
    if name.endswith(".gz"):
        content = [files.compress(content)]
    files.write(f"{folder}/{name}", *content)
    return {
        "split": name.partition("/")[0],
        "name": name,
        "rows": len(columns[fields[0].name]),
        "bytes": sum(len(part) for part in content),
    }


def describe(
    folder: str, manifest: Mapping[str, Any], fields: Sequence[Field], **more: Any
) -> dict[str, Any]:
    """Writes the manifest of side outputs, and returns it.

    Args:
        folder: path or URI of the directory.
        manifest: of the dataset.
        fields: of a row.
        more: its other entries, `splits` among them.
    """
    result = {
        "format": FORMAT,
        "data": data_digest(manifest),
        "versions": {"tfctr": tfctr.__version__, "beam": beam.__version__},
        "layout": layout(fields),
        **more,
    }
    write_manifest(result, f"{folder}/manifest.json")
    return result


def fields_of(name: str, size: int = 1) -> list[Field]:
    """The fields of side outputs with a row's id and `size` floats."""
    return [Field(ROW, width=INT64_WIDTH), Field(name, size)]


def splits_of(written: Iterable[Any]) -> dict[str, Any]:
    """The manifest's entry of all written shards."""
    return {"splits": {split: shards for split, (shards, _) in by_split(written).items()}}


def by_split(written: Iterable[Any]) -> dict[str, tuple[dict[str, Any], list[Any]]]:
    """For each split with rows, the manifest's entry of its shards, and all written shards."""
    written = sorted(written, key=lambda part: part.name)
    splits: dict[str, tuple[dict[str, Any], list[Any]]] = {}
    for split in SPLITS:
        parts = [part for part in written if part.split == split]
        if parts:
            shards = [{"name": p.name, "rows": p.rows, "bytes": p.bytes} for p in parts]
            splits[split] = {"rows": sum(part.rows for part in parts), "shards": shards}, parts
    return splits


def open_manifest(folder: str) -> dict[str, Any]:
    """The manifest of a dataset or of its side outputs.

    Raises:
        DataError: there is none of this version.
    """
    manifest = read_manifest(f"{folder.rstrip('/')}/manifest.json")
    if manifest is None or manifest.get("format") != FORMAT:
        raise DataError(f"{folder}: no dataset of this version here; run `tfctr prepare`")
    return manifest


def open_manifest_of(config: DataConfig, data: str) -> dict[str, Any]:
    """The manifest of the dataset that a config describes.

    Raises:
        DataError: `data` is not a dataset of this config.
    """
    manifest = open_manifest(data)
    if manifest["config_digest"] != digest(config):
        raise DataError(f"{data}: prepared with another config; run `tfctr prepare` again")
    return manifest


def open_manifest_with_log(config: DataConfig, data: str) -> dict[str, Any]:
    """The same, for a job that reads the dataset's log again.

    Raises:
        DataError: as above; the log, or a file of tokens, has changed since.
    """
    manifest = open_manifest_of(config, data)
    if manifest["inputs"] != inputs_of(config):
        raise DataError(f"{data}: the log changed since it was prepared; run `tfctr prepare` again")
    return manifest
