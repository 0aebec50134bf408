"""Trees on the strict form of statistics: a training row reads tables as of its week.

    python -m benchmarks.movielens.strict configs/movielens-1m/statistics/dcnv2.yaml --record

In a training row of the package, the tables are those of the other half of the users: they know
nothing of the row, but what others did after it. In the strict form they are of all events before
the row's week, its user's too. Each week's events are added to the tables of the week before, as a
rollout adds a day. Validation and test rows read the tables of the whole training period in both.
The rows of the first week, which have no tables, are no training rows of the strict form.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from beam_pipelines.numbers import BATCH
from beam_pipelines.statistics import write_statistics
from beam_pipelines.transforms.model_inputs import in_batches
from benchmarks.movielens.__main__ import measured, of_seed
from benchmarks.record import difference_text, record_table
from benchmarks.trees import Numbers, Trees, columns
from tfctr.comparison import ScoredRows
from tfctr.config import RunConfig, find_input, load_run
from tfctr.data import files
from tfctr.frameworks.statistics.stages import create_statistics, numbers_of_rows
from tfctr.stages import Run, build

WEEK = 7 * 24 * 60 * 60  # seconds
FILES = ("users.dat", "movies.dat")  # beside the ratings
HEADERS = ("trees on", "test AUC", "over the package's", "GAUC", "over the package's", "log loss")


class StrictNumbers(Numbers):
    """As `Numbers`, but a training row's are those of the tables as of its week."""

    name = "strict-numbers"

    def __init__(self, run: Run, beam_args: Sequence[str] = ()) -> None:
        method = run.config.method("statistics")
        super().__init__(run, method)
        self.beam_args = list(beam_args)
        self.folder = run.work / f"{method.tables.name}-strict-numbers"
        self.path = self.folder / "numbers.npz"

    def _rows(self, data: Any, plain: Sequence[Any], split: str) -> Any:
        if split != "train":
            return super()._rows(data, plain, split)
        config = self.method.tables
        statistics = create_statistics(self.method, data.schema)
        statistics.build()
        names = list(dict.fromkeys([*config.reads, *(feature.name for feature in plain)]))
        rows = data.columns("train", ["time", "label", *names])
        weeks = (rows["time"] - rows["time"].min()) // WEEK
        numbers = np.empty((len(weeks), statistics.num_numbers), np.float32)
        compute = partial(numbers_of_rows, statistics, config, training=False)
        for week, tables in enumerate(self._tables(rows["time"]), start=1):
            statistics.set_tables(tables)
            if (of_week := weeks == week).any():
                batch = {name: rows[name][of_week] for name in config.reads}
                numbers[of_week] = in_batches(compute, batch, of_week.sum(), BATCH)
        later = weeks > 0
        rows = {name: values[later] for name, values in rows.items()}
        return numbers[later], [*columns(plain, rows)], rows["label"]

    def _tables(self, times: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        """The tables of all events before the second week of the times, before the third, ..."""
        config = self.method.tables
        log = find_input(config.data.source.path, config.data.directory)
        with tempfile.TemporaryDirectory() as temporary:
            tables = Path(temporary) / "tables"
            # Not the last week, which no later row reads.
            starts = range(int(times.min()), int(times.max()) - WEEK + 1, WEEK)
            for number, start in enumerate(starts):
                week = Path(temporary) / f"week-{number}"
                write_week(log, week, start)
                source = config.data.source.model_copy(update={"path": str(week)})
                write_statistics(
                    config,
                    str(self.dataset.path),
                    str(tables),
                    beam_args=self.beam_args,
                    log=config.data.model_copy(update={"source": source}),
                    add_to=str(tables) if number else None,
                )
                with np.load(tables / "tables.npz") as found:
                    yield dict(found)


def write_week(log: Path, folder: Path, start: int) -> None:
    """MovieLens 1M in a folder, with the ratings of the seven days from `start` on, in seconds.

    Args:
        log: the zip, or the folder in it.
    """
    inner = f"{log}!ml-1m/" if log.is_file() else f"{log}/"
    folder.mkdir()
    for name in FILES:
        with files.open_to_read(inner + name) as table:
            (folder / name).write_bytes(table.read())
    with files.open_to_read(f"{inner}ratings.dat") as ratings:
        kept = [r for r in ratings if start <= int(r.rsplit(b"::", 1)[1]) < start + WEEK]
    (folder / "ratings.dat").write_bytes(b"".join(kept))


def trees(config: RunConfig, work: Path, beam_args: Sequence[str]) -> tuple[Trees, Trees]:
    """The stages of the trees on the package's numbers, and on those of the strict form."""
    run = Run(config, work, Console(quiet=True))
    method = config.method("statistics")
    strict = StrictNumbers(run, beam_args)
    return Trees(run, Numbers(run, method)), Trees(run, strict, f"{config.name}-strict-trees")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="a run config of statistics on MovieLens 1M")
    parser.add_argument("--work", type=Path, help="keeps what is made; defaults to a new folder")
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args, beam_args = parser.parse_known_args()
    config = of_seed(load_run(args.config), 1)
    method = config.method("statistics")
    if not method or not method.stored:
        parser.error(f"{args.config}: it needs the method statistics with stored: true")
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        found = trees(config, args.work or Path(temporary), beam_args)
        for stage in found:
            build(stage, console)
        package, strict = (ScoredRows.read([stage.folder]) for stage in found)
        over = strict.over(package)
        table = []
        for name, stage in zip(("the package's numbers", "the strict form's"), found, strict=True):
            of_test = measured(stage.folder)
            differences = (
                [
                    difference_text(over[key].mean, (over[key].low, over[key].high))
                    for key in ("auc", "gauc")
                ]
                if stage is found[1]
                else ["", ""]
            )
            auc, gauc = (f"{of_test[name]:.4f}" for name in ("auc", "gauc"))
            loss = f"{of_test['log_loss']:.4f}"
            table.append([name, auc, differences[0], gauc, differences[1], loss])
    for cells in (HEADERS, *table):
        console.print(" | ".join(cells))
    if args.record:
        note = "In brackets: 95% intervals of resampled users, the same for both."
        record_table(
            "The strict form of statistics on MovieLens 1M",
            "benchmarks.movielens.strict",
            HEADERS,
            table,
            "seed 1",
            note,
        )


if __name__ == "__main__":
    main()
