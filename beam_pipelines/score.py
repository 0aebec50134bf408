"""Scores rows in files with an exported model.

    python -m beam_pipelines.score --model saved_models/movielens-1m-dcnv2 \\
        --rows 'candidates/*.parquet' --ids user_id movie_id --output scores

It takes Beam's options too. Rows hold raw values, one column per feature, in Parquet, CSV or JSON
Lines, as in the log that the model was trained on. The output has a Parquet file for each piece of
the input, with the columns of `--ids`, `row_id` (the row's place in its piece, from 0) and `score`.
A file is written as soon as its piece is scored: after a kill, a second run scores the other pieces
only, and a run that is done does nothing.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.ml.inference.base import ModelHandler, PredictionResult, RunInference
from pyarrow import fs

import tfctr
from beam_pipelines.running import job
from beam_pipelines.transforms.broadcast import Gather
from tfctr.config import ConfigError, digest
from tfctr.data import files
from tfctr.data.clean import (
    refuse_too_many_bad,
    tally,
    write_dead_letters,
)
from tfctr.data.delimited import Delimited, Rows
from tfctr.data.manifest import DataError, write_manifest
from tfctr.data.readers import (
    DelimitedReader,
    JsonLinesReader,
    ParquetReader,
    Piece,
    Reader,
    Source,
)
from tfctr.data.typed_rows import ROW, set_aside, typed
from tfctr.schema import MISSING_INT, Numeric, Schema, Tokens
from tfctr.serving.c_session import CSession
from tfctr.serving.model_directory import served_schema, signature_defs, versions, without_versions

SCORE = "score"
KEY = b"tfctr.key"  # in a file's metadata: a digest of all that its scores depend on
BAD = b"tfctr.bad"  # and how many rows of its piece were set aside, by reason
ROWS_AT_A_TIME = 4096
SIGNATURE = "serving_default"


@dataclass(frozen=True)
class PieceInputs:
    """The good rows of a piece, as inputs of the model."""

    piece: Piece
    ids: pa.Table  # `row_id` and the columns that are written with the scores
    inputs: dict[str, np.ndarray]  # raw tensors by feature, of `serving_default`
    bad: dict[str, int]  # rows set aside, by reason


@dataclass(frozen=True)
class ScoredPiece:
    """A piece whose scores are written."""

    rows: int
    bad: dict[str, int]


class SavedModelHandler(ModelHandler[PieceInputs, PredictionResult, CSession]):
    """Runs `serving_default` of a version through TensorFlow's C API.

    Args:
        version: the version's folder, on every worker.
    """

    def __init__(self, version: str) -> None:
        super().__init__()
        self.version = version
        definition = signature_defs(Path(version))[SIGNATURE]
        self.inputs = {alias: tensor.name for alias, tensor in definition.inputs.items()}
        self.output = definition.outputs["scores"].name

    def load_model(self) -> CSession:
        return CSession(self.version)

    def run_inference(
        self,
        batch: Sequence[PieceInputs],
        model: CSession,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[PredictionResult]:
        for read in batch:
            scores = [np.zeros(0, np.float32)]
            for start in range(0, read.ids.num_rows, ROWS_AT_A_TIME):
                part = slice(start, start + ROWS_AT_A_TIME)
                given = {self.inputs[alias]: values[part] for alias, values in read.inputs.items()}
                scores.append(model.run(given, [self.output])[self.output])
            yield PredictionResult(read, np.concatenate(scores))


class _ReadPiece(beam.DoFn):
    """A piece -> its rows, as a batch of one; nothing if its scores are already written."""

    def __init__(self, job: "Scores") -> None:
        self.job = job

    def process(self, piece: Piece) -> Iterator[list[PieceInputs]]:
        if self.job.written(piece) is not None:
            return
        schema, ids = self.job.schema, self.job.ids
        wanted = dict.fromkeys([*(f.source_column for f in schema.inputs), *ids])
        rows: Rows = self.job.reader.read(piece, list(wanted))
        columns, checks = typed(piece.path, rows.table, list(schema.inputs), ())
        inputs = set_aside(rows, columns, checks)
        places = np.searchsorted(rows.numbers, inputs[ROW].to_numpy())
        kept = pa.table(
            {name: rows.table[name].take(pa.array(places)) for name in ids} | {ROW: inputs[ROW]}
        )
        if rows.bad:
            path = f"{self.job.output}/dead_letters/part-{piece.index:05d}.jsonl"
            write_dead_letters(path, piece.path, rows.bad)
        tensors = {
            feature.name: raw_tensor(feature, inputs[feature.name].combine_chunks())
            for feature in schema.inputs
        }
        yield [PieceInputs(piece, kept, tensors, tally(rows.bad))]


class _WriteScores(beam.DoFn):
    def __init__(self, job: "Scores") -> None:
        self.job = job

    def process(self, result: PredictionResult) -> Iterator[int]:
        read: Any = result.example
        table = read.ids.append_column(SCORE, pa.array(result.inference, pa.float32()))
        about = {KEY: self.job.key(read.piece).encode(), BAD: json.dumps(read.bad).encode()}
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata(about), sink)
        files.write(self.job.path(read.piece), sink.getvalue())
        yield read.piece.index


class Scores(beam.PTransform):
    """Rows -> one dict: `scored`, the indices of the pieces that this run has scored; writes the
    scores to files.

    Args:
        version: the version's folder.
        reader: of the rows.
        ids: columns that are written with the scores.
        output: path or URI of the directory.
        inputs: a fingerprint of each file of rows, by its path.
    """

    def __init__(
        self,
        version: str,
        reader: Reader,
        ids: Sequence[str],
        output: str,
        inputs: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.version, self.reader, self.ids = version, reader, list(ids)
        self.output, self.inputs = output, inputs
        self.schema = served_schema(Path(version))
        self.model = _checksums(Path(version))

    def key(self, piece: Piece) -> str:
        """A digest of all that a piece's scores depend on; a file with another key is rewritten."""
        file = self.inputs[piece.path]
        return digest([self.model, self.ids, file, piece.start, piece.stop])

    def path(self, piece: Piece) -> str:
        return f"{self.output}/part-{piece.index:05d}.parquet"

    def written(self, piece: Piece) -> ScoredPiece | None:
        """The counts of a piece, if its file exists and has its key."""
        try:
            with files.open_to_read(self.path(piece)) as file:
                found = pq.read_metadata(file)
        except (OSError, pa.ArrowInvalid):
            return None
        about = found.metadata or {}
        if about.get(KEY) != self.key(piece).encode():
            return None
        return ScoredPiece(found.num_rows, json.loads(about[BAD]))

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        handler = SavedModelHandler(self.version)  # an element is many rows already
        scored = (
            pipeline
            | "Pieces" >> beam.Create(self.reader.pieces())
            | "Spread" >> beam.Reshuffle()
            | "ReadPiece" >> beam.ParDo(_ReadPiece(self))
            | "Score" >> RunInference(handler.with_no_batching())
            | "Write" >> beam.ParDo(_WriteScores(self))
        )
        return (
            {"scored": scored}
            | "Gather" >> Gather()
            | "Summarise" >> beam.Map(lambda found: {"scored": sorted(found["scored"])})
        )


def raw_tensor(feature: Any, values: pa.Array) -> np.ndarray:
    """A typed column as a signature takes it: `[B]`, or `[B, M]` for lists, which are padded;
    missing values are those of `tfctr.serving.raw_values`."""
    if isinstance(feature, Numeric):
        return np.asarray(values.fill_null(np.nan).cast(pa.float32()))
    missing = b"" if feature.dtype == "string" else MISSING_INT
    dtype = object if feature.dtype == "string" else np.int64
    flat = values.flatten() if feature.is_list else values
    if feature.dtype == "string":
        flat = flat.cast(pa.binary())
    tokens = flat.fill_null(missing).to_numpy(zero_copy_only=False)
    if not feature.is_list:
        return np.asarray(tokens, dtype)
    lengths = values.value_lengths().to_numpy()
    width = feature.max_length
    found = np.full((len(values), width), missing, dtype)
    found[np.arange(width) < lengths[:, np.newaxis]] = tokens
    return found


def _newest(model: str) -> Path:
    """The version's folder that a path names: the path itself, or the newest version in it."""
    folder = Path(model)
    if (folder / "saved_model.pb").is_file():
        return folder
    found = versions(folder)
    if not found:
        raise ConfigError(
            f"{model}: neither a SavedModel nor a folder of versions: {without_versions(folder)}"
        )
    return found[max(found)]


def _reader(patterns: Sequence[str], schema: Schema) -> Any:
    """A reader of the rows in files of one kind."""
    found = (path for pattern in patterns for path in files.matching(pattern))
    paths = tuple(dict.fromkeys(found))
    if not paths:
        raise ConfigError(f"rows: no file matches {', '.join(patterns)}")
    kinds = {Path(path.removesuffix(".gz")).suffix for path in paths}
    if kinds == {".parquet"}:
        return ParquetReader(paths)
    if kinds == {".csv"}:
        return DelimitedReader(paths, Delimited())
    if kinds == {".jsonl"}:
        lists = [feature for feature in schema.inputs if feature.is_list]
        return JsonLinesReader(
            paths, {f.source_column: getattr(f, "separator", None) or "|" for f in lists}
        )
    raise ConfigError(
        f"rows: found {', '.join(sorted(kinds))}; give files of one kind: .parquet, .csv or .jsonl"
    )


def _delete_others(output: str, paths: set[str]) -> None:
    """Deletes scores of pieces that no longer exist, and unfinished files of killed runs."""
    system, inner = files.filesystem(output)
    for info in system.get_file_info(fs.FileSelector(inner)):
        name = info.base_name
        if name.startswith("part-") and f"{output}/{name}" not in paths:
            system.delete_file(info.path)


def _checksums(version: Path) -> list[list[Any]]:
    paths = sorted(path for path in version.rglob("*") if path.is_file())
    return [[str(p.relative_to(version)), google_crc32c.value(p.read_bytes())] for p in paths]


def score(
    model: str,
    rows: Sequence[str],
    output: str,
    ids: Sequence[str] = (),
    max_bad_share: float = 0.01,
    beam_args: list[str] | None = None,
) -> dict[str, Any]:
    """Writes the scores of rows to a directory.

    Args:
        model: folder of a version, or of a model, whose newest version is taken. Workers read it.
        rows: paths, URIs or globs of files of one kind.
        output: path or URI of the directory.
        ids: columns that are written with the scores.
        max_bad_share: float. Largest share of bad rows, which are put in `dead_letters/`.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.

    Returns:
        The manifest: `splits`, `counts`, `bad_reasons`, `inputs`.

    Raises:
        ConfigError: no model; no file; a column that is missing or has a wrong type.
        DataError: too many rows are bad.
    """
    output, version = output.rstrip("/"), _newest(model)
    schema = served_schema(version)
    for feature in schema.inputs:
        if isinstance(feature, Tokens):
            raise ConfigError(
                f"{version}: {feature.name} holds tokens of texts, which rows do not have"
            )
    reader = _reader(rows, schema)
    there = reader.names()
    for name in dict.fromkeys([*(f.source_column for f in schema.inputs), *ids]):
        if name not in there:
            raise ConfigError(f"rows: no column {name!r}; columns: {', '.join(there)}")
    for taken in (ROW, SCORE):
        if taken in ids:
            raise ConfigError(f"ids: found {taken!r}, a column of the output itself; rename yours")
    prints = Source(reader, {}).fingerprint()
    inputs = dict(zip(reader.paths, prints, strict=True))
    scores = Scores(str(version), reader, ids, output, inputs)
    job.run(scores, "score", version.parent.name, output, beam_args or [])
    pieces = reader.pieces()
    found = [part for piece in pieces if (part := scores.written(piece))]
    if len(found) < len(pieces):
        raise DataError(f"{output}: files were deleted during the run; run it again")
    _delete_others(output, {scores.path(piece) for piece in pieces})
    reasons: Counter[str] = Counter()
    for part in found:
        reasons.update(part.bad)
    good, bad = sum(part.rows for part in found), sum(reasons.values())
    log = {"rows": {"rows": good + bad, "bad": bad, "bad_reasons": reasons}}
    refuse_too_many_bad(version.parent.name, log, max_bad_share, f"{output}/dead_letters")
    result = {
        "versions": {"tfctr": tfctr.__version__},
        "inputs": prints,
        "splits": {"scores": {"rows": good}},
        "counts": {"read": good + bad, "bad": bad},
        "bad_reasons": dict(reasons),
    }
    write_manifest(result, f"{output}/manifest.json")
    return result


class ScoreOptions(job.JobOptions):
    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        job.add_output(parser, __doc__)
        parser.add_argument("--model", required=True, help="folder of a model, or of a version")
        parser.add_argument("--rows", required=True, nargs="+", help="files, or globs")
        parser.add_argument("--ids", nargs="*", default=[], help="columns to write with the scores")
        parser.add_argument(
            "--max-bad-share", type=float, default=0.01, help="largest share of bad rows"
        )


def _write(options: ScoreOptions) -> str:
    paths = (options.model, options.rows, options.output)
    share = options.max_bad_share
    return job.summary_line(score(*paths, options.ids, share, options.beam_args))


def main(argv: list[str] | None = None) -> int:
    return job.command(ScoreOptions, argv, _write)


if __name__ == "__main__":
    sys.exit(job.run_main(__spec__))
