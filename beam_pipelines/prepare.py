"""Raw logs to a dataset directory: clean, split, fit, write.

    python -m beam_pipelines.prepare --config configs/movielens-1m/data.yaml --output work/ml-1m

takes any of Beam's own options as well: `--runner`, `--setup_file=./setup.py`, ...
"""

import argparse
import logging
import platform
import sys
import uuid
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
from pyarrow import fs

import tfctr
from beam_pipelines.clean import Clean, Staged, tally, write_dead_letters
from beam_pipelines.fit import FitNumbers, FitVocabularies
from beam_pipelines.shards import Shard, WriteShards
from beam_pipelines.split import SPLITS, AssignSplits
from tfctr.config import ConfigError, DataConfig, digest, load_data
from tfctr.data import files
from tfctr.data.manifest import DataError, write_manifest


class Prepare(beam.PTransform):
    """A data config -> one dict: all that the manifest says of the dataset in `folder`."""

    def __init__(self, config: DataConfig, folder: str) -> None:
        super().__init__()
        self.config = config
        self.folder = folder

    def expand(self, pipeline: Any) -> beam.PCollection:
        config, schema, folder = self.config, self.config.feature_schema, self.folder
        clean = Clean(config, folder)
        _ = clean.cleaner.homes  # a config that does not fit its source fails here, not on a worker
        pieces = (
            pipeline
            | "Pieces" >> beam.Create(clean.cleaner.source.events.pieces())
            | "SpreadPieces" >> beam.Reshuffle()
        )
        staged = pieces | "Clean" >> clean
        split, cuts = staged | "AssignSplits" >> AssignSplits(config.split, config.user)
        vocabularies = split | "FitVocabularies" >> FitVocabularies(schema, folder)
        numbers = split | "FitNumbers" >> FitNumbers(schema)
        shards = (split, vocabularies) | "WriteShards" >> WriteShards(
            schema, config.user, folder, config.compression
        )
        return (
            pipeline
            | "Once" >> beam.Create([None])
            | "Summarise"
            >> beam.Map(
                _summarise,
                beam.pvalue.AsList(staged),
                beam.pvalue.AsSingleton(cuts),
                beam.pvalue.AsDict(vocabularies),
                beam.pvalue.AsDict(numbers),
                beam.pvalue.AsList(shards),
            )
        )


def _summarise(
    _: None,
    staged: list[Staged],
    cuts: dict[str, int],
    vocabularies: dict[str, Any],
    numbers: dict[str, Any],
    shards: list[Shard],
) -> dict[str, Any]:
    counts: dict[str, int] = {}
    reasons: dict[str, int] = {}
    for piece in staged:
        for name, count in piece.counts.items():
            counts[name] = counts.get(name, 0) + count
        for why, count in piece.reasons.items():
            reasons[why] = reasons.get(why, 0) + count
    splits: dict[str, Any] = {}
    for split in SPLITS:
        parts = sorted((s for s in shards if s.split == split), key=lambda shard: shard.name)
        features: dict[str, dict[str, int]] = {}
        for part in parts:
            for name, found in part.counts.items():
                total = features.setdefault(name, {})
                for what, count in found.items():
                    total[what] = total.get(what, 0) + count
        splits[split] = {
            "rows": sum(part.rows for part in parts),
            "positives": sum(part.positives for part in parts),
            "features": features,
            "shards": [{"name": p.name, "rows": p.rows, "bytes": p.bytes} for p in parts],
        }
    return {
        "counts": {name: counts[name] for name in sorted(counts)},
        "bad_reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        "cuts": cuts,
        "vocabularies": {name: vocabularies[name] for name in sorted(vocabularies)},
        "numbers": {name: numbers[name] for name in sorted(numbers)},
        "splits": splits,
    }


def prepare(config: DataConfig, output: str, beam_args: list[str] | None = None) -> dict[str, Any]:
    """Runs the pipeline and puts the dataset directory at `output`, whole or not at all.

    Args:
        config: the data config.
        output: path or URI of the directory; one that is there is replaced.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.

    Returns:
        The manifest.

    Raises:
        ConfigError: the config does not fit the source.
        DataError: too many bad rows, or a split without rows.
    """
    args = list(beam_args or [])
    if not any(arg.startswith("--runner") for arg in args):
        args.append("--runner=FnApiRunner")  # DirectRunner would first try to download another
    if not any(arg.startswith("--job_name") for arg in args):
        args.append(f"--job_name=tfctr-prepare-{config.name.lower()}")
    options = PipelineOptions(args)
    options.view_as(SetupOptions).save_main_session = False
    folder = f"{output.rstrip('/')}.tmp-{uuid.uuid4().hex[:8]}"
    system, inner = files.filesystem(folder)
    try:
        job = Prepare(config, folder)
        clean = Clean(config, folder)
        with beam.Pipeline(options=options) as pipeline:
            _ = (
                pipeline
                | "Prepare" >> job
                | "WriteSummary" >> beam.Map(write_manifest, f"{folder}/summary.json")
            )
        summary = files.read_json(f"{folder}/summary.json")
        tables = _table_dead_letters(clean, folder)
        manifest = {
            "format": 1,
            "config": config.model_dump(mode="json"),
            "config_digest": digest(config),
            "inputs": clean.cleaner.source.fingerprint(),
            "versions": {
                "tfctr": tfctr.__version__,
                "beam": beam.__version__,
                "pyarrow": pa.__version__,
                "python": platform.python_version(),
            },
            "tables": tables,
            **summary,
        }
        _check(config, manifest, folder)
        measured = {
            name: {
                "vocabulary_size": manifest["vocabularies"][feature.vocabulary]["vocabulary_size"]
            }
            for feature in config.feature_schema
            if (name := feature.name) and hasattr(feature, "vocabulary")
        }
        for name, found in manifest["numbers"].items():
            kept = ("mean", "std", "boundaries")
            measured[name] = {key: found[key] for key in kept if key in found}
        schema = config.feature_schema.fitted(measured)
        manifest["schema"] = schema.model_dump(mode="json")
        write_manifest(manifest, f"{folder}/manifest.json")
        system.delete_dir(f"{inner}/staged")
        system.delete_file(f"{inner}/summary.json")
        _publish(system, inner, files.filesystem(output.rstrip("/"))[1])
        return manifest
    finally:
        if system.get_file_info(inner).type == fs.FileType.Directory:
            system.delete_dir(inner)


def _table_dead_letters(clean: Clean, folder: str) -> dict[str, Any]:
    """The joined tables' bad rows, written beside those of the events."""
    found = {}
    for name, (_, table, rows) in clean.cleaner.tables.items():
        if rows.bad:
            path = f"{folder}/dead_letters/{name}.jsonl"
            write_dead_letters(path, name, rows.bad)
        found[name] = {"rows": table.num_rows, "bad_reasons": tally(rows.bad)}
    return found


def _check(config: DataConfig, manifest: dict[str, Any], folder: str) -> None:
    read, bad = manifest["counts"].get("read", 0), manifest["counts"].get("bad", 0)
    if read == 0:
        raise DataError(f"{config.name}: the source has no rows")
    if bad > config.max_bad_share * read:
        kept = f"{folder.rpartition('.tmp-')[0]}.dead_letters"
        system, inner = files.filesystem(folder)
        target = files.filesystem(kept)[1]
        if system.get_file_info(target).type == fs.FileType.Directory:
            system.delete_dir(target)
        system.move(f"{inner}/dead_letters", target)
        worst = ", ".join(f"{why} ({n:,})" for why, n in list(manifest["bad_reasons"].items())[:3])
        raise DataError(
            f"{config.name}: {bad:,} of {read:,} rows are bad, more than max_bad_share = "
            f"{config.max_bad_share:g}; most often: {worst}. They lie in {kept}"
        )
    for split in SPLITS:
        share = getattr(config.split, split, 1)
        if share and not manifest["splits"][split]["rows"]:
            raise DataError(
                f"{config.name}: no row falls into {split}; {read - bad:,} good rows are too few "
                "for the split's shares, or all have one time"
            )


def _publish(system: fs.FileSystem, made: str, output: str) -> None:
    """Puts the directory in its place; one that was there goes only when the new one is whole."""
    old = f"{made}.old"
    replaced = system.get_file_info(output).type == fs.FileType.Directory
    if replaced:
        system.move(output, old)
    system.create_dir(str(PurePosixPath(output).parent), recursive=True)
    system.move(made, output)
    if replaced:
        system.delete_dir(old)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--config", required=True, help="YAML file: a data config or a run config")
    parser.add_argument("--output", required=True, help="the dataset directory to make")
    known, beam_args = parser.parse_known_args(argv)
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    try:
        manifest = prepare(load_data(known.config), known.output, beam_args)
    except (ConfigError, DataError) as error:
        print(error, file=sys.stderr)
        return 1
    rows = {split: found["rows"] for split, found in manifest["splits"].items()}
    print(f"{known.output}: {rows}, {manifest['counts']['bad']:,} bad rows set aside")
    return 0


if __name__ == "__main__":
    sys.exit(main())
