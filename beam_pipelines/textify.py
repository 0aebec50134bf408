"""Writes the texts of every row of a dataset, as tokens of an encoder.

    python -m beam_pipelines.textify --config configs/movielens-1m/ctrl/text.yaml \\
        --data work/movielens-1m --output work/movielens-1m-text

It takes Beam's options too. The output has a shard for each shard of the dataset, with the same
rows in the same order: `row_id` and, for each text, its tokens, the positions of its features in
them, a key that equal texts share, and the text itself.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np

from beam_pipelines.running import job
from beam_pipelines.tfrecord.examples import INT64_WIDTH, Field
from beam_pipelines.transforms.fit import read_vocabularies
from beam_pipelines.transforms.side_outputs import (
    EachShard,
    Written,
    by_split,
    describe,
    open_manifest,
    open_manifest_of,
    write_shard,
)
from tfctr.config import digest, load
from tfctr.data.records import read_columns, read_texts
from tfctr.data.typed_rows import ROW
from tfctr.language.config import TextConfig, text_fields
from tfctr.language.text import Textifier, total_counts
from tfctr.schema import Schema, Text


@dataclass(frozen=True)
class WrittenTexts(Written):
    """A shard of texts, with counts and the distinct tokens, by the text's name."""

    counts: dict[str, dict[str, int]]
    used: dict[str, np.ndarray]


class _WriteShard(beam.DoFn):
    """A shard's name -> `WrittenTexts`. Each worker loads the tokenizer once."""

    def __init__(self, config: TextConfig, encoder: str, data: str, folder: str) -> None:
        self.config, self.encoder, self.data, self.folder = config, encoder, data, folder

    def setup(self) -> None:
        from tfctr.language.pretrained import load_tokenizer

        manifest = open_manifest(self.data)
        self.layout = manifest["layout"]
        self.schema = Schema.model_validate(manifest["schema"])
        tokenizer = load_tokenizer(self.encoder)
        self.textifier = Textifier(
            self.config, self.schema, read_vocabularies(self.schema, self.data), tokenizer
        )
        self.fields = fields_of(self.config, tokenizer.vocabulary_size())

    def process(self, name: str) -> Iterable[WrittenTexts]:
        rows, columns = self._read(name)
        counts, used, found = {}, {}, {ROW: rows}
        for text in self.config.texts:
            texts = self.textifier.textify(text, columns)
            counts[text], used[text] = texts.counts, np.unique(texts.tokens)
            spans = texts.spans.reshape(len(rows), -1)
            made = (texts.tokens, spans, texts.keys, texts.texts)
            found |= dict(zip(text_fields(text), made, strict=True))
        written = write_shard(self.folder, name, self.fields, found)
        yield WrittenTexts(**written, counts=counts, used=used)

    def _read(self, shard: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Row ids, and the columns of the features in the texts."""
        asked = dict.fromkeys(n for t in self.config.texts.values() for n in t.features)
        texts = [feature.name for feature in self.schema if isinstance(feature, Text)]
        numbers = [name for name in asked if name not in texts]
        path = f"{self.data}/{shard}"
        columns: dict[str, Any] = read_columns(path, self.layout, [ROW, *numbers])
        columns = {
            name: values if name != ROW and self.schema[name].is_list else values[:, 0]
            for name, values in columns.items()
        }
        rows = columns.pop(ROW)
        if len(numbers) < len(asked):
            columns |= read_texts(path, self.layout, texts)
        return rows, columns


def fields_of(config: TextConfig, vocabulary_size: int) -> list[Field]:
    """The fields of a row of the output: numbers first, then texts."""
    numbers, texts = [Field(ROW, width=INT64_WIDTH)], []
    for name, template in config.texts.items():
        tokens, spans, key, text = text_fields(name)
        numbers.append(Field.ids(tokens, vocabulary_size, template.max_tokens))
        numbers.append(Field.ids(spans, template.max_tokens, 2 * len(template.features)))
        numbers.append(Field.ids(key, 2**31, 2))
        texts.append(Field(text, values=0))
    return numbers + texts


def _summarise(written: list[WrittenTexts]) -> dict[str, Any]:
    """By split: the shards, counts (sums, and the longest text), and the tokens that occur."""
    splits = {}
    for split, (shards, parts) in by_split(written).items():
        texts: dict[str, dict[str, Any]] = {}
        for text in parts[0].counts:
            texts[text] = dict(total_counts(part.counts[text] for part in parts))
            used = [part.used[text] for part in parts]
            texts[text]["used_tokens"] = np.unique(np.concatenate(used)).tolist()
        splits[split] = shards | {"texts": texts}
    return {"splits": splits}


def textify(
    config: TextConfig,
    data: str,
    output: str,
    beam_args: list[str] | None = None,
    encoder: str | None = None,
) -> dict[str, Any]:
    """Writes the texts of all rows to a directory at `output`, whole or not at all.

    Args:
        config: templates and the encoder.
        data: path or URI of the dataset directory.
        output: path or URI of the directory; an existing one is replaced.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.
        encoder: preset or folder of the tokenizer. Defaults to the config's.

    Returns:
        The manifest.

    Raises:
        ConfigError: no such encoder.
        DataError: `data` is not a dataset of this config.
    """
    from tfctr.language.pretrained import load_tokenizer, locate

    manifest = open_manifest_of(config.data, data)
    encoder = encoder or locate(config.encoder)
    tokenizer = load_tokenizer(encoder)  # errors are raised here, not on a worker
    with job.directory(output) as folder:
        write = _WriteShard(config, encoder, data.rstrip("/"), folder)
        summary = job.run(
            EachShard(data, write, _summarise),
            "textify",
            config.name,
            folder,
            beam_args or [],
        )
        about = {
            "config": config.model_dump(mode="json", exclude={"data"}),
            "config_digest": digest(config),
            "vocabulary_size": tokenizer.vocabulary_size(),
            "special_tokens": {
                name: getattr(tokenizer, f"{name}_token_id")
                for name in ("pad", "start", "end", "mask")
            },
        }
        fields = fields_of(config, tokenizer.vocabulary_size())
        return describe(folder, manifest, fields, **about, **summary)


class TextifyOptions(job.JobOptions):
    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        job.add_output(parser, __doc__)
        parser.add_argument("--config", required=True, help="YAML file: a text config")
        parser.add_argument("--data", required=True, help="the dataset directory")
        parser.add_argument("--encoder", help="preset or folder; default: the config's")


def _write(options: TextifyOptions) -> str:
    config, encoder = load(options.config, TextConfig), options.encoder
    return job.summary_line(
        textify(config, options.data, options.output, options.beam_args, encoder)
    )


def main(argv: list[str] | None = None) -> int:
    return job.command(TextifyOptions, argv, _write)


if __name__ == "__main__":
    sys.exit(job.run_main(__spec__))
