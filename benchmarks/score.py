"""Rows a second of `beam_pipelines.score`, beside the model alone in a loop.

    python -m benchmarks.score --rows 1000000 --repeats 3 --record

Generated-world Parquet of 10 and of 20 columns, and an untrained DCNv2 on all their features: the
whole job on Beam's runner in this process, which reads, types and writes the rows, and the same
SavedModel asked for the same rows, whose tensors are there, by the same C session and as many at a
time. In turn; CPU seconds of all threads.
"""

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console

from beam_pipelines.prepare import prepare
from beam_pipelines.score import (
    SavedModelHandler,
    Scores,
    _ReadPiece,
    raw_tensors,
    score,
)
from benchmarks.prepare import seconds
from benchmarks.record import Result, record
from benchmarks.world import world_config, write_world
from tfctr import backbones, serving
from tfctr.data.dataset import Dataset
from tfctr.data.rows_to_score import RowsToScore


def measured(folder: Path, columns: int, rows: int, repeats: int) -> list[Result]:
    log = folder / "rows.parquet"
    write_world(log, rows, columns)
    prepare(world_config(log), str(folder / "data"))
    data = Dataset.open(folder / "data")
    model = backbones.create(
        "dcn_v2", data.schema, embedding_dim=16, num_cross_layers=3, hidden_units=[256, 128, 64]
    )
    version = serving.export(model, data, folder / "model")
    handler = SavedModelHandler(str(version), model.schema)
    reading = Scores(str(version), RowsToScore([str(log)], [*model.schema.inputs]), [], "nowhere")
    read = [
        raw_tensors(model.schema, found.features)
        for piece in reading.rows.reader.pieces()
        for (found,) in _ReadPiece(reading).process(piece)
    ]
    session = handler.load_model()

    def alone() -> None:
        for tensors in read:
            handler.scores(tensors, session)

    def job() -> None:
        shutil.rmtree(folder / "scores", ignore_errors=True)
        score(str(version), [str(log)], str(folder / "scores"), ["user_id", "item_id"])

    alone()
    job()  # once before it counts
    taken: dict[str, list[float]] = {"the model alone": [], "the job": []}
    for _ in range(repeats):
        taken["the model alone"].append(seconds(alone)[0])
        taken["the job"].append(seconds(job)[0])
    written = (folder / "scores").glob("part-*.parquet")
    assert sum(pq.read_metadata(path).num_rows for path in written) == rows
    medians = {what: statistics.median(of) for what, of in taken.items()}
    name = f"{columns} columns"
    return [
        *(Result(f"{name}: {what}", rows / s, "rows/s of a core") for what, s in medians.items()),
        Result(
            f"{name}: the job over the model alone",
            medians["the model alone"] / medians["the job"],
            "ratio",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()
    results = []
    for columns in (10, 20):
        with tempfile.TemporaryDirectory() as temporary:
            results += measured(Path(temporary), columns, args.rows, args.repeats)
    for result in results:
        Console().print(f"{result.what}: {result.value:,.2f} {result.unit}")
    if args.record:
        record(
            "Scores of rows in a batch",
            "benchmarks.score",
            results,
            f"medians of {args.repeats} repeats",
            f"{args.rows:,} rows.",
        )


if __name__ == "__main__":
    main()
