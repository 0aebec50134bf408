"""Writes a vector of the text of each item of a log, for the method `vectors`.

    python -m beam_pipelines.embed --config configs/movielens-1m/ctrl/text.yaml \\
        --output work/movielens-1m-sentences-vectors

It takes Beam's options too. The config is one of texts; the text that is made of features of the
item's side alone is read by the encoder, and its vector is the mean of the last layer over the
text's tokens. There is one for each token of `--feature` in the log and in its joined tables,
whatever the split: new items are what vectors are for.

The output is Parquet files with two columns: the tokens, named as in the log, and `vector`, lists
of float32. An item's text is that of its first row in the log or, if it has none, in its table.
Tokens are grouped by a hash; a worker encodes a group at a time. So the files are the same however
many workers there are.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import tfctr
from beam_pipelines.running import job
from beam_pipelines.transforms.broadcast import Gather
from beam_pipelines.transforms.clean_pieces import Clean
from tfctr.config import ConfigError, DataConfig, digest, load
from tfctr.data import files
from tfctr.data.clean import Staged, add_up, read_staged, refuse_too_many_bad
from tfctr.data.conform import conform, decoded
from tfctr.data.fingerprint import row_keys
from tfctr.data.joined_tables import JoinedTables, is_first
from tfctr.data.manifest import DataError, write_manifest
from tfctr.data.readers import Piece
from tfctr.data.sources import open_source
from tfctr.data.users import rows_by_bucket
from tfctr.language.config import TextConfig, embedded_feature, embedded_text
from tfctr.language.text import total_counts
from tfctr.schema import Categorical, Schema

VECTOR = "vector"  # the column of the vectors
GROUPS = 64  # of tokens; each is a file, and one is in a worker's memory at a time
NO_GROUP = -1  # the key of counts, in place of a group


@dataclass(frozen=True)
class WrittenVectors:
    """A group's file, and the counts of its texts (`Texts.counts`)."""

    name: str
    rows: int
    bytes: int
    width: int
    counts: dict[str, int]


class Embed(beam.PTransform):
    """A log -> one dict: the summary, for the manifest, of the vectors in `folder`.

    Args:
        config: of the texts.
        feature: whose tokens get vectors.
        text: the name of the text.
        encoder: preset or folder of the encoder.
        folder: to write to.
    """

    def __init__(
        self, config: TextConfig, feature: Categorical, text: str, encoder: str, folder: str
    ) -> None:
        super().__init__()
        self.config, self.feature, self.text = config, feature, text
        self.encoder, self.folder = encoder, folder
        data = _what_is_read(config.data, [feature.name, *config.texts[text].features])
        self.clean = Clean(data, folder, keeps_dropped=True)

    def expand(self, pipeline: Any) -> beam.PCollection:
        joined = self.clean.cleaner.joined
        first_rows = _FirstRows(
            self.clean.cleaner.config.feature_schema,
            self.feature.name,
            self.config.texts[self.text].features,
        )
        staged = pipeline | "Clean" >> self.clean
        found = [staged | "OfEvents" >> beam.FlatMap(first_rows.of_events)]
        pieces = len(self.clean.pieces)
        for name, (reader, _) in joined.source.tables.items():
            if self.feature.name in [feature.name for feature in joined.of_table(name)]:
                of_table = reader.pieces()
                pieces += len(of_table)
                found.append(
                    pipeline
                    | f"Pieces {name}" >> beam.Create(of_table)
                    | f"Spread {name}" >> beam.Reshuffle()
                    | f"Of {name}" >> beam.FlatMap(first_rows.of_table, joined, name)
                )
        encode = _EncodeGroup(self.config, self.feature, self.text, self.encoder, self.folder)
        vectors = (
            found
            | "Meet" >> beam.Flatten()
            | "GatherTokens" >> beam.GroupByKey()
            | "Encode" >> beam.ParDo(encode)
        )
        return (
            {"staged": staged, "vectors": vectors}
            | "Gather" >> Gather()
            | "Summarise" >> beam.Map(_summarise, len(self.clean.pieces), pieces)
        )


def _what_is_read(data: DataConfig, names: Sequence[str]) -> DataConfig:
    """A data config with these features only, and those that tables are joined by."""
    keys = {key for _, key in open_source(data).tables.values()}
    kept = [
        feature.name
        for feature in data.feature_schema
        if feature.name in names
        or (isinstance(feature, Categorical) and feature.source_column in keys)
    ]
    features = data.feature_schema.select(kept).features
    return data.model_copy(update={"features": features, "min_history": 0})


@dataclass(frozen=True)
class _FirstRows:
    """Pieces -> the first row of each token in a piece, by group of tokens; and counts.

    A part of a group is `(rank, piece's index, rows)`. Sorted parts are in the order in which rows
    count: those of the log, then those of each table.
    """

    schema: Schema
    feature: str
    of_text: Sequence[str]

    @property
    def names(self) -> list[str]:
        return [*dict.fromkeys([self.feature, *self.of_text])]

    def of_events(self, piece: Staged) -> Iterator[tuple[int, Any]]:
        yield from self._by_group(read_staged(piece.path, self.names), (0, piece.index))

    def of_table(self, piece: Piece, joined: JoinedTables, name: str) -> Iterator[tuple[int, Any]]:
        """A row of a table has no value of a feature that other tables or the log have."""
        table, _ = joined.read_table(name, piece, 0)
        rank = 1 + [*joined.source.tables].index(name)
        yield from self._by_group(table, (rank, piece.index))

    def _by_group(self, table: pa.Table, place: tuple[int, int]) -> Iterator[tuple[int, Any]]:
        columns = {name: self._column(table, name) for name in self.names}
        keys = columns[self.feature]
        kept = is_first(keys) & keys.is_valid().to_numpy(zero_copy_only=False)
        table = pa.table(columns).filter(pa.array(kept))
        yield NO_GROUP, job.RowCounts(pieces=1, sent=table.num_rows)
        keys = row_keys(table[self.feature].combine_chunks())
        for group, rows in rows_by_bucket(keys, GROUPS):
            yield group, (*place, table.take(pa.array(rows)))

    def _column(self, table: pa.Table, name: str) -> pa.Array:
        if name in table.column_names:
            return decoded(table[name].combine_chunks())
        kind = conform(self.schema[name], pa.array([], pa.binary()))[0].type
        return pa.nulls(table.num_rows, kind)


class _EncodeGroup(beam.DoFn):
    """A group of tokens -> its file, and counts. Each worker loads the encoder once."""

    def __init__(
        self, config: TextConfig, feature: Categorical, text: str, encoder: str, folder: str
    ) -> None:
        self.config, self.feature, self.text = config, feature, text
        self.where, self.folder = encoder, folder

    def setup(self) -> None:
        from tfctr.language.text_vectors import TextVectors

        self.vectors = TextVectors(self.config, self.text, self.where)

    def process(self, group: tuple[int, Iterable[Any]]) -> Iterator[WrittenVectors | job.RowCounts]:
        number, parts = group
        if number == NO_GROUP:
            yield from parts
            return
        tables = [table for _, _, table in sorted(parts, key=lambda part: part[:2])]
        rows = pa.concat_tables(tables).combine_chunks()
        yield job.RowCounts(arrived=rows.num_rows)
        key = self.feature.name
        rows = rows.filter(pa.array(is_first(rows[key].combine_chunks()))).sort_by(key)
        vectors, texts = self.vectors.encode(rows)
        name, width = f"part-{number:05d}.parquet", vectors.shape[1]
        offsets = pa.array(np.arange(len(vectors) + 1) * width, pa.int32())
        lists = pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel()))
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({self.feature.source_column: rows[key], VECTOR: lists}), sink)
        content = sink.getvalue()
        files.write(f"{self.folder}/{name}", content)
        yield WrittenVectors(name, len(vectors), len(content), width, texts.counts)


def _summarise(found: dict[str, list[Any]], pieces: int, of_all: int) -> dict[str, Any]:
    counts, reasons = add_up(found["staged"], pieces)
    parts = found["vectors"]
    rows = [part for part in parts if isinstance(part, job.RowCounts)]
    job.check_rows_arrived("tokens", rows, of_all)
    written = [part for part in parts if isinstance(part, WrittenVectors)]
    written.sort(key=lambda part: part.name)
    return {
        "counts": {"read": 0, "bad": 0} | counts,  # of a log without pieces there are none
        "bad_reasons": reasons,
        "rows": sum(part.rows for part in written),
        "width": written[0].width if written else 0,
        "shards": [{"name": p.name, "rows": p.rows, "bytes": p.bytes} for p in written],
        "texts": total_counts(part.counts for part in written) if written else {},
    }


def embed(
    config: TextConfig,
    output: str,
    feature: str | None = None,
    text: str | None = None,
    key: str = "",
    encoder: str | None = None,
    beam_args: list[str] | None = None,
) -> dict[str, Any]:
    """Writes vectors of the texts of all items of a log to a directory, whole or not at all.

    Args:
        config: templates, the data and the encoder.
        output: path or URI of the directory; an existing one is replaced.
        feature: whose tokens get vectors. Defaults to the `item` of the data.
        text: the name of the text. Defaults to the only one of the item's features alone.
        key: identifies the inputs; it is copied to the manifest.
        encoder: preset or folder of the encoder. Defaults to the config's.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.

    Returns:
        The manifest: `rows`, `width` of the vectors, `shards`, and `texts`, counts of tokens.

    Raises:
        ConfigError: no such encoder, feature or text; the text names a feature that is not of the
            item's side, or may be longer than the encoder allows; the data config does not fit its
            source.
        DataError: too many bad rows; no row has a token; a vector is not finite.
    """
    from tfctr.language.pretrained import (
        load_text_backbone,
        load_tokenizer,
        locate,
        refuse_longer_text,
    )

    of, text = embedded_feature(config, feature), embedded_text(config, text)
    if of.source_column == VECTOR:
        raise ConfigError(
            f"{config.name}: {of.name} reads the column {VECTOR!r}, and the vectors' column has "
            "this name; rename it in the log"
        )
    encoder = encoder or locate(config.encoder)
    load_tokenizer(encoder)  # errors are raised here, not on a worker
    refuse_longer_text(config, text, load_text_backbone(encoder))
    with job.directory(output) as folder:
        transform = Embed(config, of, text, encoder, folder)
        summary = job.run(transform, "embed", config.name, folder, beam_args or [])
        counts, tables = summary["counts"], transform.clean.set_aside_tables()
        events = {
            "rows": counts["read"],
            "bad": counts["bad"],
            "bad_reasons": summary["bad_reasons"],
        }
        with job.dead_letters_kept(folder, output) as kept:
            logs = {**tables, "events": events}
            share = config.data.max_bad_share
            refuse_too_many_bad(config.name, logs, share, f"{folder}/dead_letters", kept)
        if not summary["rows"]:
            raise DataError(f"{config.name}: no row has a value of {of.name}")
        manifest = {
            "key": key,
            "config": config.model_dump(mode="json"),
            "config_digest": digest(config),
            "feature": of.name,
            "text": text,
            "encoder": encoder,
            "inputs": transform.clean.cleaner.source.fingerprint(),
            "versions": {"tfctr": tfctr.__version__, "beam": beam.__version__},
            "tables": tables,
            **summary,
        }
        write_manifest(manifest, f"{folder}/manifest.json")
        job.delete_folders(folder, "staged")
        return manifest


def described(manifest: dict[str, Any]) -> str:
    """A line for people: how many vectors there are, and what was read."""
    rows, texts, bad = manifest["rows"], manifest["texts"], manifest["counts"]["bad"]
    aside = f"; {bad:,} bad rows set aside" if bad else ""
    return (
        f"vectors of {manifest['width']} numbers for {rows:,} {manifest['feature']}; "
        f"{texts['tokens'] / rows:.1f} tokens a text, at most {texts['longest']}; "
        f"{texts['cut']:,} cut; {texts['unknown_tokens']:,} unknown tokens{aside}"
    )


class EmbedOptions(job.JobOptions):
    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        job.add_output(parser, __doc__)
        parser.add_argument("--config", required=True, help="YAML file: a text config")
        parser.add_argument("--feature", help="whose tokens get vectors; default: the data's item")
        parser.add_argument("--text", help="name of the text; default: the only one of items")
        parser.add_argument("--encoder", help="preset or folder; default: the config's")


def _write(options: EmbedOptions) -> str:
    config = load(options.config, TextConfig)
    where = options.output, options.feature, options.text
    return described(embed(config, *where, encoder=options.encoder, beam_args=options.beam_args))


def main(argv: list[str] | None = None) -> int:
    return job.command(EmbedOptions, argv, _write)


if __name__ == "__main__":
    sys.exit(job.run_main(__spec__))
