"""From raw logs to a dataset directory: clean, split, fit, write.

    python -m beam_pipelines.prepare --config configs/movielens-1m/data.yaml --output work/ml-1m

It takes Beam's options too: `--runner`, `--setup_file=./setup.py`, ...
"""

import argparse
import platform
import sys
from typing import Any

import apache_beam as beam
import pyarrow as pa

import tfctr
from beam_pipelines.running import job
from beam_pipelines.tfrecord.examples import layout
from beam_pipelines.transforms.broadcast import Gather
from beam_pipelines.transforms.clean_pieces import Clean
from beam_pipelines.transforms.fit import (
    FitNumbers,
    FitVocabularies,
    measured,
    own_vocabularies,
)
from beam_pipelines.transforms.histories import AddHistories
from beam_pipelines.transforms.shards import WriteShards, example_fields
from beam_pipelines.transforms.split import SPLITS, AssignSplits
from tfctr.config import DataConfig, Split, SplitConfig, digest, load_data
from tfctr.data.arrived import check_arrived
from tfctr.data.clean import EXAMPLES, add_up, num_examples, refuse_too_many_bad
from tfctr.data.histories import history_features
from tfctr.data.listed_tokens import listed_tokens
from tfctr.data.manifest import FORMAT, DataError, write_manifest
from tfctr.data.sources import inputs_of
from tfctr.data.summary import described, warnings
from tfctr.schema import FIRST_TOKEN_ID, TOKEN_KINDS, Numeric, Schema


class Prepare(beam.PTransform):
    """A data config -> one dict: the summary, for the manifest, of the dataset in `folder`."""

    def __init__(self, config: DataConfig, folder: str) -> None:
        super().__init__()
        self.config = config
        self.folder = folder
        self.clean = Clean(config, folder)
        self.listed = listed_tokens(config)
        for tokens in self.listed.values():
            tokens.read()  # errors are found here, not on a worker

    def expand(self, pipeline: Any) -> beam.PCollection:
        config, schema, folder = self.config, self.config.feature_schema, self.folder
        number = len(self.clean.pieces)
        staged = pipeline | "Clean" >> self.clean
        split, cuts = staged | "AssignSplits" >> AssignSplits(
            config.split, config.user, number, folder
        )
        vocabularies = split | "FitVocabularies" >> FitVocabularies(
            schema, folder, number, self.listed
        )
        numbers = split | "FitNumbers" >> FitNumbers(schema, number)
        if history_features(schema):
            split = (split, vocabularies) | "AddHistories" >> AddHistories(config, folder, number)
        shards = (split, vocabularies) | "WriteShards" >> WriteShards(
            schema, config.user, folder, config.compression, number
        )
        found = {"pieces": split, "cuts": cuts, "vocabularies": vocabularies, "numbers": numbers}
        own = len(own_vocabularies(schema)) if number else 0
        return (
            {**found, "shards": shards}
            | "Gather" >> Gather(cuts=1, vocabularies=own)
            | "Summarise" >> beam.Map(_summarise, number)
        )


def _summarise(found: dict[str, list[Any]], pieces: int) -> dict[str, Any]:
    counts, reasons = add_up(found["pieces"], pieces)
    (cuts,) = found["cuts"]
    splits: dict[str, Any] = {}
    for split in SPLITS:
        parts = sorted((s for s in found["shards"] if s.split == split), key=lambda s: s.name)
        if split not in EXAMPLES and not parts:
            continue
        features: dict[str, dict[str, int]] = {}
        for part in parts:
            for name, counted in part.counts.items():
                total = features.setdefault(name, {})
                for what, count in counted.items():
                    total[what] = total.get(what, 0) + count
        splits[split] = {
            "rows": sum(part.rows for part in parts),
            "positives": sum(part.positives for part in parts),
            "times": [min(p.times[0] for p in parts), max(p.times[1] for p in parts)]
            if parts
            else None,
            "features": features,
            "shards": [{"name": p.name, "rows": p.rows, "bytes": p.bytes} for p in parts],
        }
    return {
        "counts": {name: counts[name] for name in sorted(counts)},
        "bad_reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        "cuts": cuts,
        "vocabularies": dict(sorted(found["vocabularies"])),
        "numbers": dict(sorted(found["numbers"])),
        "splits": splits,
    }


def prepare(config: DataConfig, output: str, beam_args: list[str] | None = None) -> dict[str, Any]:
    """Runs the pipeline and writes the dataset directory `output`, whole or not at all.

    Args:
        config: the data config.
        output: path or URI of the directory; an existing one is replaced.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.

    Returns:
        The manifest.

    Raises:
        ConfigError: the config does not fit the source.
        DataError: too many bad rows, or a split without rows.
    """
    with job.directory(output) as folder:
        transform = Prepare(config, folder)
        summary = job.run(transform, "prepare", config.name, folder, beam_args or [])
        manifest = {
            "format": FORMAT,
            "config": config.model_dump(mode="json"),
            "config_digest": digest(config),
            "inputs": inputs_of(config),
            "versions": {
                "tfctr": tfctr.__version__,
                "beam": beam.__version__,
                "pyarrow": pa.__version__,
                "python": platform.python_version(),
            },
            "tables": transform.clean.set_aside_tables(),
            **summary,
        }
        with job.dead_letters_kept(folder, output) as kept:
            _check(config, manifest, f"{folder}/dead_letters", kept)
        manifest["schema"] = _fitted(config, manifest).model_dump(mode="json")
        sizes = {name: v["vocabulary_size"] for name, v in manifest["vocabularies"].items()}
        fields = example_fields(config.feature_schema, sizes, config.user is not None)
        manifest["layout"] = layout(fields)
        write_manifest(manifest, f"{folder}/manifest.json")
        job.delete_folders(folder, "staged")
        return manifest


def _check(config: DataConfig, manifest: dict[str, Any], letters: str, kept: str) -> None:
    counts, name = manifest["counts"], config.name
    if not counts.get("read"):
        raise DataError(f"{name}: the source has no rows")
    events = {"rows": counts["read"], "bad": counts["bad"], "bad_reasons": manifest["bad_reasons"]}
    logs = {**manifest["tables"], "events": events}
    refuse_too_many_bad(name, logs, config.max_bad_share, letters, kept)
    good, other = num_examples(counts), counts.get("other_days", 0)
    held_out = counts.get("held_out", 0)
    if not good and not held_out and other:
        raise DataError(
            f"{name}: all {other:,} good rows are of other days than time.since and time.before say"
        )
    written = sum(split["rows"] for split in manifest["splits"].values())
    check_arrived(f"{name}: good rows", written, good)
    for split in SPLITS:
        if not _needs_rows(config.split, split) or manifest["splits"][split]["rows"]:
            continue
        why = f"{good:,} rows are too few for the split's shares, or all have one time"
        if not isinstance(config.split, Split):
            why = "the column or files that give the splits have none for it"
        elif split == "train" and held_out:
            why = f"its {held_out:,} rows are of held-out tokens; choose a smaller split.hold_out"
        raise DataError(f"{name}: no row falls into {split}; {why}")
    for feature in config.feature_schema:
        if getattr(feature, "vocabulary", None) == feature.name:
            found = manifest["vocabularies"][feature.name]
            if found["vocabulary_size"] - found.get("from_files", 0) == FIRST_TOKEN_ID:
                raise DataError(
                    f"{name}: feature {feature.name!r}: none of its {found['tokens']:,} values in "
                    f"the training rows occurs min_count = {feature.min_count} times; lower it, or "
                    "leave the feature out"
                )
        if isinstance(feature, Numeric) and "mean" not in manifest["numbers"][feature.name]:
            raise DataError(
                f"{name}: feature {feature.name!r} has no value in the training rows; leave it out"
            )


def _needs_rows(config: SplitConfig, split: str) -> bool:
    if isinstance(config, Split):
        return split == "train" or getattr(config, split) > 0
    return split in ("train", "valid")


def _fitted(config: DataConfig, manifest: dict[str, Any]) -> Schema:
    found: dict[str, dict[str, Any]] = {}
    for feature in config.feature_schema:
        if isinstance(feature, TOKEN_KINDS):
            size = manifest["vocabularies"][feature.vocabulary]["vocabulary_size"]
            found[feature.name] = {"vocabulary_size": size}
        elif isinstance(feature, Numeric):
            found[feature.name] = measured(feature, manifest["numbers"][feature.name])
    return config.feature_schema.fitted(found)


class PrepareOptions(job.JobOptions):
    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        job.add_output(parser, __doc__)
        parser.add_argument(
            "--config", required=True, help="YAML file: a data config or a run config"
        )


def _write(options: PrepareOptions) -> str:
    manifest = prepare(load_data(options.config), options.output, options.beam_args)
    return "; ".join([*described(manifest), *warnings(manifest)])


def main(argv: list[str] | None = None) -> int:
    return job.command(PrepareOptions, argv, _write)


if __name__ == "__main__":
    sys.exit(job.run_main(__spec__))
