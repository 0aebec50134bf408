"""How long tables of statistics take as the log grows, and how long a further day takes.

    python -m benchmarks.statistics --events 1000000 10000000 --repeats 3 --record

Events of the generated world, 100 a user and 20,000 items, in Parquet files of many row groups,
through Beam's own runner. The tables are made of all events but those of the last day, 1% of them;
then the last day is added. Wall-clock seconds, so on a machine with nothing else to do.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from beam_pipelines.statistics import write_statistics
from benchmarks.processes import processes
from benchmarks.record import Result, record
from benchmarks.world import write_events
from tfctr.config import DataConfig
from tfctr.data.world import World
from tfctr.frameworks.statistics.config import TablesConfig
from tfctr.stages import prepare

EVENTS_OF_USER = 100
ITEMS = 20_000
DAY = 100  # the last one of so many days of equally many events
COLUMNS = ("user_id", "item_id", "click", "timestamp")
SETTINGS = {"factors": 16, "steps": 20, "neighbours": 50}


def write_logs(folder: Path, events: int) -> None:
    """`before.parquet` and `day.parquet`."""
    world = World(num_users=events // EVENTS_OF_USER, num_items=ITEMS, num_events=events)
    last = events - events // DAY
    write_events(folder / "before.parquet", world, COLUMNS, range(last))
    write_events(folder / "day.parquet", world, COLUMNS, range(last, events))


def tables_config(log: Path) -> TablesConfig:
    features: list[dict[str, Any]] = [
        {"name": "user_id", "kind": "categorical", "side": "user", "dtype": "int"},
        {"name": "item_id", "kind": "categorical", "side": "item", "dtype": "int"},
        {"name": "past_item", "kind": "history", "shares": "item_id", "max_length": 1},
        {"name": "past_click", "kind": "history", "column": "click", "max_length": 1},
    ]
    content = {
        "name": log.stem,
        "source": {"format": "parquet", "events": str(log)},
        "label": {"column": "click"},
        "time": {"column": "timestamp"},
        "user": "user_id",
        "item": "item_id",
        "features": features,
    }
    data = DataConfig.model_validate(content)
    histories = {"items": "past_item", "grades": "past_click"}
    return TablesConfig.model_validate({"name": "tables", "data": data, **histories, **SETTINGS})


def measure(events: int, repeats: int, beam_args: list[str]) -> tuple[list[float], list[float]]:
    """Seconds of each repeat: of the tables, and of adding the day."""
    whole, added = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_logs(folder, events)
        config, day = (tables_config(folder / f"{name}.parquet") for name in ("before", "day"))
        data, output = str(folder / "data"), str(folder / "tables")
        prepare(config.data, folder / "data", beam_args, Console(quiet=True))
        for _ in range(repeats):
            start = time.perf_counter()
            write_statistics(config, data, output, beam_args=beam_args, log=config.data)
            made = time.perf_counter()
            write_statistics(config, data, output, beam_args=beam_args, log=day.data, add_to=output)
            whole.append(made - start)
            added.append(time.perf_counter() - made)
    return whole, added


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--processes", type=int, default=2, help="of Beam's runner")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()
    beam_args = processes(args.processes)
    results = []
    console = Console()
    before: tuple[int, float] | None = None
    for events in args.events:
        whole, added = (
            statistics.median(times) for times in measure(events, args.repeats, beam_args)
        )
        what = f"{events:,} events"
        results += [
            Result(f"{what}: tables", whole, "s"),
            Result(f"{what}: tables, speed", events / whole, "rows/s"),
            Result(f"{what}: a day of 1% added", added, "s"),
            Result(f"{what}: all tables over a day added", whole / added, "ratio"),
        ]
        if before is not None:
            growth = (whole / before[1]) / (events / before[0])
            results.append(Result(f"{what}: time over {before[0]:,}, an event", growth, "ratio"))
        before = events, whole
        for result in results[-5:]:
            console.print(f"{result.what}: {result.value:,.2f} {result.unit}")
    if args.record:
        record(
            "Statistics as the log grows",
            "benchmarks.statistics",
            results,
            f"medians of {args.repeats}",
        )


if __name__ == "__main__":
    main()
