"""Looks up tokens' ids, and writes TFRecord shards."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from beam_pipelines.tfrecord.examples import INT64_WIDTH, Field, encode
from beam_pipelines.transforms.broadcast import ToPieces
from beam_pipelines.transforms.fit import own_vocabularies, read_vocabularies
from beam_pipelines.transforms.histories import read_past
from beam_pipelines.transforms.split import DROPPED, SPLITS, SplitPiece
from tfctr.data import files
from tfctr.data.clean import LABEL, TIME, USER_KEY
from tfctr.data.encode import encoded
from tfctr.data.fingerprint import row_keys
from tfctr.data.histories import history_features
from tfctr.data.typed_rows import ROW
from tfctr.data.vocabulary import Vocabulary
from tfctr.schema import OOV_ID, PAD_ID, History, Numeric, Schema, Text


@dataclass(frozen=True)
class Shard:
    """One split's rows of one piece; `counts` per feature: missing values and OOV tokens; `times`:
    the first and the last."""

    split: str
    name: str
    rows: int
    positives: int
    times: tuple[int, int]
    bytes: int
    counts: dict[str, dict[str, int]]


def example_fields(schema: Schema, sizes: dict[str, int], has_user: bool) -> list[Field]:
    """The fields of a dataset's Examples: numbers first, then texts."""
    fields = [Field(ROW, width=INT64_WIDTH), Field(TIME, width=INT64_WIDTH), Field(LABEL)]
    if has_user:
        fields.append(Field(USER_KEY, width=INT64_WIDTH))
    for feature in schema.inputs:
        if isinstance(feature, Numeric):
            fields.append(Field(feature.name))
        else:
            length = feature.max_length if feature.is_list else 1
            fields.append(Field.ids(feature.name, sizes[feature.vocabulary], length))
    return fields + [Field(f.name, values=0) for f in schema if isinstance(f, Text)]


class Encoder:
    """Converts typed columns to Examples': ids `[N]` or `[N, max_length]`, floats, texts."""

    def __init__(self, schema: Schema, user: str | None, folder: str) -> None:
        self.schema = schema
        self.user = user
        self.folder = folder

    @cached_property
    def vocabularies(self) -> dict[str, Vocabulary]:
        return read_vocabularies(self.schema, self.folder)

    @cached_property
    def fields(self) -> list[Field]:
        sizes = {name: vocabulary.size for name, vocabulary in self.vocabularies.items()}
        return example_fields(self.schema, sizes, self.user is not None)

    def columns(self, table: pa.Table) -> dict[str, Any]:
        """The columns for `encode`, for every row of a cleaned table, without histories."""
        columns: dict[str, Any] = {name: table[name].to_numpy() for name in (ROW, TIME, LABEL)}
        if self.user is not None:
            columns[USER_KEY] = row_keys(table[self.user].combine_chunks())
        for feature in self.schema:
            if isinstance(feature, History):
                continue  # needs more than this row
            values = table[feature.name].combine_chunks()
            if isinstance(feature, Text):
                columns[feature.name] = values
            else:
                columns[feature.name] = encoded(feature, values, self.vocabularies)
        return columns


class WriteShards(beam.PTransform):
    """`SplitPiece` -> `Shard`: one file per piece and split, named after both.

    `vocabularies` is the output of `FitVocabularies`: the shards wait for it and read its files.
    """

    def __init__(
        self, schema: Schema, user: str | None, folder: str, compression: str, num_pieces: int
    ) -> None:
        super().__init__()
        self.encoder = Encoder(schema, user, folder)
        self.compression = compression
        self.num_pieces = num_pieces
        self.num_own = len(own_vocabularies(schema))

    def expand(self, inputs: Any) -> beam.PCollection:
        pieces, vocabularies = inputs
        return (
            (pieces, {"vocabularies": vocabularies})
            | "Wait" >> ToPieces(self.num_pieces, vocabularies=self.num_own)
            | "Pieces" >> beam.Keys()
            | "WritePiece" >> beam.FlatMap(_write_piece, self.encoder, self.compression)
        )


def _write_piece(piece: SplitPiece, encoder: Encoder, compression: str) -> Iterator[Shard]:
    histories = history_features(encoder.schema)
    names = [f.name for f in encoder.schema if f not in histories]
    table, codes = piece.columns([ROW, TIME, LABEL, *names]), piece.split()
    if (codes >= DROPPED).any():
        table, codes = table.filter(pa.array(codes < DROPPED)), codes[codes < DROPPED]
    columns = encoder.columns(table)
    past = read_past(piece) if histories else None
    suffix = ".tfrecord.gz" if compression == "gzip" else ".tfrecord"
    for code, split in enumerate(SPLITS):
        rows = np.flatnonzero(codes == code)
        if not len(rows):
            continue
        chosen = columns
        if len(rows) < len(codes):
            chosen = {
                name: values[rows] if isinstance(values, np.ndarray) else values.take(rows)
                for name, values in columns.items()
            }
        if past is not None:
            chosen = chosen | past.columns(histories, rows)
        counts = {f.name: _missing_and_unknown(f, chosen[f.name]) for f in encoder.schema.inputs}
        if past is not None:  # an event may have no value
            for history in histories:
                counts[history.name]["missing"] = int((past.lengths[rows] == 0).sum())
        content: Sequence[bytes | memoryview] = encode(encoder.fields, chosen)
        if compression == "gzip":
            content = [files.compress(content)]
        name = f"{split}/part-{piece.index:05d}{suffix}"
        files.write(f"{encoder.folder}/{name}", *content)
        yield Shard(
            split,
            name,
            len(rows),
            int(chosen[LABEL].sum()),
            (int(chosen[TIME].min()), int(chosen[TIME].max())),
            sum(len(part) for part in content),
            counts,
        )


def _missing_and_unknown(feature: Any, values: np.ndarray) -> dict[str, int]:
    if isinstance(feature, Numeric):
        return {"missing": int(np.isnan(values).sum())}
    first = values[:, 0] if feature.is_list else values
    return {"missing": int((first == PAD_ID).sum()), "unknown": int((values == OOV_ID).sum())}
