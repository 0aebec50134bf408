"""Scores rows in files with an exported model.

    python -m beam_pipelines.score --model saved_models/movielens-1m-dcnv2 \\
        --rows 'candidates/*.parquet' --ids user_id movie_id --output scores

It takes Beam's options too. Rows hold raw values, one column per feature, in Parquet, CSV, TSV or
JSON Lines, as in the log that the model was trained on; with `--config` the tables of its data
config are joined. The output has a Parquet file for each piece of the input, with the columns of
`--ids` or, with `--whole-rows`, all of them, `row_id` (the row's place in its piece, from 0) and
`score`. A file is written as soon as its piece is scored: after a kill, a second run scores the
other pieces only, and a run that is done does nothing.
"""

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from tfctr.config import ConfigError, DataConfig, digest, load_data
from tfctr.data import files
from tfctr.data.clean import refuse_too_many_bad, tally, write_dead_letters
from tfctr.data.manifest import DataError, write_manifest
from tfctr.data.readers import Piece
from tfctr.data.rows_to_score import RowsToScore
from tfctr.data.typed_rows import ROW
from tfctr.schema import MISSING_INT, Numeric, Schema, Tokens, Vector
from tfctr.serving.c_session import CSession, Strings
from tfctr.serving.model_directory import served_schema, signature_defs, versions, without_versions

SCORE = "score"
KEY = b"tfctr.key"  # in a file's metadata: a digest of all that its scores depend on
COUNTS = b"tfctr.counts"  # and how many rows were set aside, by reason, and had no match, by table
ROWS_AT_A_TIME = 4096
SHOWN = 10  # columns in the command's line
SIGNATURE = "serving_default"


@dataclass(frozen=True)
class PieceCounts:
    """Rows set aside, by reason, and rows without a match, by joined table."""

    bad: dict[str, int]
    unmatched: dict[str, int]


@dataclass(frozen=True)
class PieceInputs:
    """The good rows of a piece.

    Arrow's columns, not arrays of strings: Beam pickles elements to measure them, which would take
    as long as the model.
    """

    piece: Piece
    kept: pa.Table  # the columns that are written with the scores, and `row_id`
    features: pa.Table  # those that the model reads, typed
    counts: PieceCounts


@dataclass(frozen=True)
class ScoredPiece:
    """A piece whose scores are written."""

    rows: int
    counts: PieceCounts


class SavedModelHandler(ModelHandler[PieceInputs, PredictionResult, CSession]):
    """Runs `serving_default` of a version through TensorFlow's C API.

    Args:
        version: the version's folder, on every worker.
        schema: of the features that it takes.
    """

    def __init__(self, version: str, schema: Schema) -> None:
        super().__init__()
        self.version, self.schema = version, schema
        definition = signature_defs(Path(version))[SIGNATURE]
        self.inputs = {alias: tensor.name for alias, tensor in definition.inputs.items()}
        self.output = definition.outputs["scores"].name

    def load_model(self) -> CSession:
        return CSession(self.version)

    def get_num_bytes(self, batch: Sequence[PieceInputs]) -> int:
        return sum(read.features.nbytes for read in batch)

    def run_inference(
        self,
        batch: Sequence[PieceInputs],
        model: CSession,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[PredictionResult]:
        for read in batch:
            yield PredictionResult(
                read, self.scores(raw_tensors(self.schema, read.features), model)
            )

    def scores(self, tensors: Mapping[str, np.ndarray | Strings], model: CSession) -> np.ndarray:
        """The scores `[N]` of the inputs of `serving_default`, given by feature."""
        scores = [np.zeros(0, np.float32)]
        for start in range(0, len(next(iter(tensors.values()))), ROWS_AT_A_TIME):
            part = slice(start, start + ROWS_AT_A_TIME)
            given = {self.inputs[alias]: values[part] for alias, values in tensors.items()}
            scores.append(model.run(given, [self.output])[self.output])
        return np.concatenate(scores)


class _ReadPiece(beam.DoFn):
    """A piece -> its rows, as a batch of one; nothing if its scores are already written."""

    def __init__(self, job: "Scores") -> None:
        self.job = job

    def process(self, piece: Piece) -> Iterator[list[PieceInputs]]:
        if self.job.written(piece) is not None:
            return
        read = self.job.rows.read(piece, self.job.keep)
        if read.bad:
            path = f"{self.job.output}/dead_letters/part-{piece.index:05d}.jsonl"
            write_dead_letters(path, piece.path, read.bad)
        names = [f.name for f in self.job.schema.inputs if not isinstance(f, Vector)]
        kept = {name: read.kept[name] for name in read.kept.column_names}
        kept = pa.table(kept | {ROW: read.features[ROW]})  # with its rows, if no column is kept
        counts = PieceCounts(tally(read.bad), read.unmatched)
        yield [PieceInputs(piece, kept, read.features.select(names), counts)]


class _WriteScores(beam.DoFn):
    def __init__(self, job: "Scores") -> None:
        self.job = job

    def process(self, result: PredictionResult) -> Iterator[int]:
        read: Any = result.example
        table = read.kept.append_column(SCORE, pa.array(result.inference, pa.float32()))
        counts = json.dumps(asdict(read.counts))
        about = {KEY: self.job.key(read.piece).encode(), COUNTS: counts.encode()}
        sink = pa.BufferOutputStream()
        # A dictionary of values that do not repeat takes longer to try than all else in a file.
        names = [name for name in table.column_names if name not in (ROW, SCORE)]
        repeated = [*names, *(f"{name}.list.element" for name in names)]  # a list's values too
        pq.write_table(table.replace_schema_metadata(about), sink, use_dictionary=repeated)
        files.write(self.job.path(read.piece), sink.getvalue())
        yield read.piece.index


class Scores(beam.PTransform):
    """Rows -> one dict: `scored`, the indices of the pieces that this run has scored; writes the
    scores to files.

    Args:
        version: the version's folder.
        rows: the rows.
        keep: columns that are written with the scores.
        output: path or URI of the directory.
    """

    def __init__(self, version: str, rows: RowsToScore, keep: Sequence[str], output: str) -> None:
        super().__init__()
        self.version, self.rows, self.keep, self.output = version, rows, list(keep), output
        self.schema = served_schema(Path(version))
        self.prints = rows.fingerprint()
        self.of_file = dict(zip(rows.paths, self.prints, strict=False))
        tables = {name: key for name, (_, key) in rows.joined.source.tables.items()}
        self.made_from = [
            *(_checksums(Path(version)), self.keep),
            *(tables, self.prints[len(rows.paths) :], str(replace(rows.reader, paths=()))),
        ]

    def key(self, piece: Piece) -> str:
        """A digest of all that a piece's scores depend on; a file with another key is rewritten."""
        return digest([self.made_from, self.of_file[piece.path], piece.start, piece.stop])

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
        return ScoredPiece(found.num_rows, PieceCounts(**json.loads(about[COUNTS])))

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        handler = SavedModelHandler(self.version, self.schema)  # an element is many rows already
        scored = (
            pipeline
            | "Pieces" >> beam.Create(self.rows.reader.pieces())
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


def raw_tensors(schema: Schema, features: pa.Table) -> dict[str, np.ndarray | Strings]:
    """The inputs of `serving_default`, by feature, of typed rows."""
    return {
        feature.name: without_vectors(feature, features.num_rows)
        if isinstance(feature, Vector)
        else raw_tensor(feature, features[feature.name].combine_chunks())
        for feature in schema.inputs
    }


def raw_tensor(feature: Any, values: pa.Array) -> np.ndarray | Strings:
    """A typed column as a signature takes it: `[B]`, or `[B, M]` for lists, which are padded;
    missing values are those of `tfctr.serving.raw_values`."""
    if isinstance(feature, Numeric):
        return np.asarray(values.fill_null(np.nan).cast(pa.float32()))
    flat = values.flatten() if feature.is_list else values
    if feature.dtype == "int":
        tokens = flat.fill_null(MISSING_INT).to_numpy().astype(np.int64, copy=False)
        return _padded(tokens, values, feature, MISSING_INT) if feature.is_list else tokens
    # The strings stay where Arrow has them: an object each would take as long as to read them.
    flat = flat.cast(pa.large_binary()).fill_null(b"")
    if not len(flat):
        shape = (len(values), feature.max_length) if feature.is_list else (0,)
        return Strings.of(np.full(shape, b"", object))
    _, offsets, data = flat.buffers()
    ends = np.frombuffer(offsets, np.int64)[flat.offset : flat.offset + len(flat) + 1]
    starts, sizes = ends[:-1], np.diff(ends)
    if feature.is_list:  # the first 0 bytes are the missing value
        starts, sizes = (_padded(of_tokens, values, feature, 0) for of_tokens in (starts, sizes))
    return Strings(data, starts, sizes)


def _padded(tokens: np.ndarray, lists: pa.Array, feature: Any, missing: int) -> np.ndarray:
    """What belongs to the tokens of lists, one list after the other, as `[B, M]`."""
    lengths = lists.value_lengths().fill_null(0).to_numpy()
    found = np.full((len(lists), feature.max_length), missing, tokens.dtype)
    found[np.arange(feature.max_length) < lengths[:, np.newaxis]] = tokens
    return found


def without_vectors(feature: Vector, rows: int) -> np.ndarray:
    """`[rows, W]`: a batch leaves out the vectors that only a request gives; `tfctr refresh` makes
    a version that has them."""
    return np.full((rows, feature.max_length), np.nan, np.float32)


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
    config: DataConfig | None = None,
    whole_rows: bool = False,
) -> dict[str, Any]:
    """Writes the scores of rows to a directory.

    Args:
        model: folder of a version, or of a model, whose newest version is taken. Workers read it.
        rows: paths, URIs or globs of files of one kind.
        output: path or URI of the directory.
        ids: columns that are written with the scores.
        max_bad_share: float. Largest share of bad rows, which are put in `dead_letters/`.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.
        config: a data config, whose tables are joined to the rows.
        whole_rows: whether all columns are written with the scores, not only `ids`.

    Returns:
        The manifest: `splits`, `counts`, `bad_reasons`, `ignored` (columns), `inputs`.

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
    read = [feature for feature in schema.inputs if not isinstance(feature, Vector)]
    to_score = RowsToScore(rows, read, config)
    _refuse_missing(to_score, config, ids)
    keep = to_score.names if whole_rows else ids
    for taken in (ROW, SCORE):
        if taken in keep:
            raise ConfigError(
                f"{'rows' if whole_rows else 'ids'}: found {taken!r}, a column of the output "
                "itself; rename yours"
            )
    scores = Scores(str(version), to_score, keep, output)
    job.run(scores, "score", version.parent.name, output, beam_args or [])
    pieces = to_score.reader.pieces()
    found = [part for piece in pieces if (part := scores.written(piece))]
    if len(found) < len(pieces):
        raise DataError(f"{output}: files were deleted during the run; run it again")
    _delete_others(output, {scores.path(piece) for piece in pieces})
    reasons: Counter[str] = Counter()
    unmatched: Counter[str] = Counter()
    for part in found:
        reasons.update(part.counts.bad)
        unmatched.update({f"unmatched_{k}": n for k, n in part.counts.unmatched.items()})
    good, bad = sum(part.rows for part in found), sum(reasons.values())
    log = {"rows": {"rows": good + bad, "bad": bad, "bad_reasons": reasons}}
    refuse_too_many_bad(version.parent.name, log, max_bad_share, f"{output}/dead_letters")
    result = {
        "versions": {"tfctr": tfctr.__version__},
        "inputs": scores.prints,
        "splits": {"scores": {"rows": good}},
        "counts": {"read": good + bad, "bad": bad, **unmatched},
        "bad_reasons": dict(reasons),
        "ignored": [name for name in to_score.unread if name not in keep],
    }
    write_manifest(result, f"{output}/manifest.json")
    return result


def _refuse_missing(rows: RowsToScore, config: DataConfig | None, ids: Sequence[str]) -> None:
    """Raises `ConfigError` for features and ids that the rows do not have."""
    missing = [*rows.missing, *(name for name in ids if name not in rows.names)]
    if missing:
        more = "" if config else "; --config joins the tables of a data config"
        raise ConfigError(
            f"rows: no column {', '.join(map(repr, dict.fromkeys(missing)))}; columns: "
            f"{', '.join(rows.names)}{more}"
        )


class ScoreOptions(job.JobOptions):
    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        job.add_output(parser, __doc__)
        parser.add_argument("--model", required=True, help="folder of a model, or of a version")
        parser.add_argument("--rows", required=True, nargs="+", help="files, or globs")
        parser.add_argument("--ids", nargs="*", default=[], help="columns to write with the scores")
        parser.add_argument(
            "--whole-rows", action="store_true", help="write all columns with the scores"
        )
        parser.add_argument(
            "--config", help="YAML file of the data or a run, whose tables are joined to the rows"
        )
        parser.add_argument(
            "--max-bad-share", type=float, default=0.01, help="largest share of bad rows"
        )


def _write(options: ScoreOptions) -> str:
    manifest = score(
        options.model,
        options.rows,
        options.output,
        options.ids,
        options.max_bad_share,
        options.beam_args,
        load_data(options.config) if options.config else None,
        options.whole_rows,
    )
    counts, ignored = manifest["counts"], manifest["ignored"]
    said = [job.summary_line(manifest)]
    said += [f"{counts[name]:,} {name}" for name in counts if name.startswith("unmatched")]
    if ignored:
        shown = ", ".join(ignored[:SHOWN]) + (", ..." if len(ignored) > SHOWN else "")
        said.append(f"{len(ignored)} columns that the model does not read are ignored: {shown}")
    return "; ".join(said)


def main(argv: list[str] | None = None) -> int:
    # `RunInference` says so on every machine without the package of another of Beam's parts.
    logging.getLogger().addFilter(lambda line: "Resource module" not in line.getMessage())
    return job.command(ScoreOptions, argv, _write)


if __name__ == "__main__":
    sys.exit(job.run_main(__spec__))
