"""How fast raw rows become TFRecords, and where the time goes.

    python -m benchmarks.prepare --rows 1000000 --repeats 3 --record

Generated-world Parquet of 10 and of 20 columns, and MovieLens-1M where `TFCTR_DATA_HOME` has it,
through the whole of `prepare` on Beam's runner in this process: rows a second of one core's time
(CPU time, so other work on the machine counts little). Then each step's function on every piece
without Beam; what is left of the whole is Beam's. Every repeat measures everything once, in turn.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from beam_pipelines.prepare import prepare
from beam_pipelines.transforms import fit, shards, split
from beam_pipelines.transforms.clean_pieces import Clean, _CleanPiece
from beam_pipelines.transforms.histogram import Histogram, quantiles
from beam_pipelines.transforms.join import _first_rows
from benchmarks.record import Result, record
from benchmarks.world import world_config, write_world
from tfctr.config import DataConfig, load_data
from tfctr.data.clean import TIME

MOVIELENS = Path(__file__).parent.parent / "configs" / "movielens-1m" / "data.yaml"
STEPS = ("read and clean", "split", "fit", "look up and write", "Beam")


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, all its threads, and what the work gave."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def steps(config: DataConfig, folder: str) -> list[float]:
    """CPU seconds of every step but Beam, the pieces one after another."""
    clean = Clean(config, folder)
    reader, schema = clean.cleaner.source.events, config.feature_schema
    pieces = clean.pieces

    def read_and_clean() -> Any:
        first = dict(_first_rows({"pieces": [(p.index, reader.count(p)) for p in pieces]}))
        clean_piece = _CleanPiece(clean.cleaner, folder)
        return [staged for p in pieces for staged in clean_piece.process((p, first[p.index]))]

    def cut() -> Any:
        histogram = Histogram()
        state = histogram.create_accumulator()
        for piece in staged:
            state = histogram.add_input(state, split._column(piece, TIME))
        cuts = quantiles(state, [0.8, 0.9])
        return [split._split_by_time(piece, {"cuts": [cuts]}) for piece in staged]

    def fit_vocabularies() -> None:
        transform = fit.FitVocabularies(schema, folder, len(pieces))
        counts: dict[str, list[Any]] = {}
        for piece in pieces_split:
            for name, found in fit._count_tokens(piece, tuple(transform.owners)):
                counts.setdefault(name, []).append(found)
        for name, parts in counts.items():
            merged = fit.merge_counts(parts)
            fit._write_vocabulary((name, merged), transform.owners, folder, len(parts))

    def write() -> None:
        encoder = shards.Encoder(schema, config.user, folder)
        for piece in pieces_split:
            list(shards._write_piece(piece, encoder, "none"))

    times = []
    took, staged = seconds(read_and_clean)
    times.append(took)
    took, pieces_split = seconds(cut)
    times.append(took)
    times += [seconds(work)[0] for work in (fit_vocabularies, write)]
    return times


def measure(rows: int, repeats: int) -> dict[str, tuple[int, list[list[float]]]]:
    """By data set: its rows, and a repeat a list of CPU seconds: the whole, then its steps."""
    with tempfile.TemporaryDirectory() as temporary:
        configs = {}
        for columns in (10, 20):
            path = Path(temporary) / f"{columns}.parquet"
            write_world(path, rows, columns)
            configs[f"{columns} columns"] = world_config(path)
        home = os.environ.get("TFCTR_DATA_HOME")
        if home and (Path(home) / "ml-1m.zip").exists():
            configs["MovieLens-1M"] = load_data(MOVIELENS)
        found: dict[str, tuple[int, list[list[float]]]] = {}
        for repeat in range(repeats + 1):  # the first one warms up
            for name, config in configs.items():
                output = f"{temporary}/out"
                shutil.rmtree(output, ignore_errors=True)
                whole, manifest = seconds(lambda c=config, o=output: prepare(c, o))  # type: ignore[misc]
                shutil.rmtree(output)
                parts = steps(config, output)
                if repeat:
                    _, repeated = found.setdefault(name, (manifest["counts"]["read"], []))
                    repeated.append([whole, *parts, whole - sum(parts)])
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the generated world")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()

    results: list[Result] = []
    table = Table("data", "rows/s a core", *(f"{step} (s)" for step in STEPS))
    for name, (rows, repeated) in measure(args.rows, args.repeats).items():
        whole, *parts = (statistics.median(times) for times in zip(*repeated, strict=True))
        table.add_row(name, f"{rows / whole:,.0f}", *(f"{part:.2f}" for part in parts))
        results.append(Result(f"prepare, {name}, {rows:,} rows", rows / whole, "rows/s a core"))
        results += [
            Result(f"{name}: {step}", part, "s") for step, part in zip(STEPS, parts, strict=True)
        ]
    Console().print(table)
    if args.record:
        record(
            "Raw rows to TFRecords",
            "benchmarks.prepare",
            results,
            f"medians of {args.repeats} repeats",
            "CPU time of one process; reading, vocabulary look-up and writing included.",
        )


if __name__ == "__main__":
    main()
