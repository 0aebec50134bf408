"""Every Beam job gives the same bytes on the runners that share it out to other machines."""

import datetime
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.runners.dask.dask_runner import DaskRunner
from apache_beam.runners.dask.overrides import dask_overrides

from beam_pipelines.days import write_days
from beam_pipelines.embed import embed
from beam_pipelines.hints import write_hints
from beam_pipelines.neighbour_hints import write_neighbour_hints
from beam_pipelines.prepare import prepare
from beam_pipelines.retrieve import retrieve
from beam_pipelines.running import dask_partitions
from beam_pipelines.score import score
from beam_pipelines.scores import write_scores
from beam_pipelines.sequences import write_sequences
from beam_pipelines.snapshots import join_snapshots
from beam_pipelines.statistics import write_statistics
from beam_pipelines.teacher_logits import write_logits
from beam_pipelines.textify import textify
from tests.conftest import WORLD_FEATURES, content_of, world_config
from tests.language.encoders import bert_tensors, write_bert
from tests.serving import raw_rows
from tests.world_log import HISTORIES, data_config, write_log
from tfctr.backbones import LR
from tfctr.data import World
from tfctr.data.dataset import Dataset
from tfctr.data.snapshots import Snapshot
from tfctr.frameworks.ecdctr.config import DaysConfig
from tfctr.frameworks.rok.config import NeighboursConfig
from tfctr.frameworks.rok.rim import RIM
from tfctr.frameworks.srp4ctr.config import SequencesConfig
from tfctr.frameworks.statistics.config import TablesConfig
from tfctr.language.config import TextConfig
from tfctr.retrieval.config import RetrievalConfig
from tfctr.serving import export

DAY = datetime.date(2024, 1, 1)
DASK = "--runner=apache_beam.runners.dask.dask_runner.DaskRunner"
PIECES = 9
DOMAIN = {"name": "domain", "kind": "categorical", "side": "context"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The log's folder, an encoder's, and a SavedModel with rows for it."""
    folder = tmp_path_factory.mktemp("models")
    world = World(num_users=100, num_items=60, num_events=2_400, seed=3)
    write_log(folder, world, 3, 300)  # 9 pieces: what a single one hides
    encoder = write_bert(folder / "encoder", bert_tensors())
    data = raw_rows.fake_dataset(folder / "v")
    version = export(LR(raw_rows.SCHEMA), data, folder / "m")
    columns = {f.source_column: raw_rows.ROWS[f.name] for f in raw_rows.SCHEMA.inputs}
    rows = pa.concat_tables([pa.table(columns)] * 20)
    pq.write_table(rows, folder / "rows.parquet", row_group_size=30)
    return {
        "log": str(folder),
        "encoder": str(encoder),
        "version": str(version),
        "rows": str(folder / "rows.parquet"),
    }


def run_all(folder: Path, models: dict[str, str], beam_args: list[str]) -> dict[str, bytes]:
    """Every job on small data: what they wrote."""

    def at(name: str) -> str:
        return str(folder / name)

    features = [*WORLD_FEATURES, DOMAIN, *HISTORIES]
    config = data_config(models["log"], features=features)
    prepare(config, at("data"), beam_args)
    by_time = data_config(models["log"], split={"by": "global_time"}, features=WORLD_FEATURES)
    prepare(by_time, at("by_time"), beam_args)
    write_sequences(
        SequencesConfig(name="windows", data=config, stride=3), at("data"), at("windows"), beam_args
    )
    tables = TablesConfig(
        name="tables",
        data=config,
        items="past_item",
        grades="past_click",
        attributes=("category", "tags"),
        neighbours=4,
        factors=2,
        steps=2,
    )
    write_statistics(tables, at("data"), at("tables"), beam_args=beam_args)
    neighbours = NeighboursConfig(name="neighbours", tables=tables, users=3, latest=20)
    write_neighbour_hints(neighbours, at("data"), at("tables"), at("neighbours"), beam_args)
    similar = RetrievalConfig(
        name="similar", data=config, fields=("item_id", "age_group"), k=3, pool=0.9
    )
    retrieve(similar, at("data"), at("similar"), beam_args)
    texts = TextConfig.model_validate(
        {
            "name": "texts",
            "data": config,
            "encoder": {"folder": models["encoder"]},
            "texts": {"item": {"template": "Title is {title}, {category}.", "max_tokens": 32}},
        }
    )
    textify(texts, at("data"), at("texts"), beam_args)
    embed(texts, at("vectors"), beam_args=beam_args)
    schema = Dataset.open(folder / "data", [folder / "similar"]).schema
    teacher = RIM(schema, embedding_dim=2, hidden_units=(4,))
    teacher.build()
    for weight in teacher.weights:
        weight.assign(np.cos(np.arange(np.prod(weight.shape))).reshape(weight.shape))
    teacher.save(at("teacher.keras"))
    write_hints(at("teacher.keras"), at("data"), at("similar"), at("hints"), "", beam_args)
    logits = [at("teacher.keras")], at("data"), [at("similar")], "taught", at("logits")
    write_logits(*logits, "", beam_args)
    rows = np.arange(0, 2_400, 2)
    scores = pa.table({"row_id": rows, "p": rows / 2_400})
    pq.write_table(scores, folder / "scores.parquet", row_group_size=150)
    write_scores([at("scores.parquet")], "p", at("data"), "x", at("beside"), beam_args=beam_args)
    (folder / "teacher.keras").unlink()  # a zip, which knows when it was written
    days = DaysConfig.model_validate(
        {
            "name": "days",
            "data": config,
            "domain": {"feature": "domain", "organic": "organic", "ads": "ads"},
            "first": DAY,
            "measured_days": 2,
        }
    )
    last = DAY + datetime.timedelta(days=3)
    log = write_days(days, last, at("days"), beam_args)
    tokens = {"user": pa.array([1, 2, 3]), "item": pa.array([1, 2])}
    vectors = {side: np.ones((len(found), 2), np.float32) for side, found in tokens.items()}
    until = DAY + datetime.timedelta(days=1)
    Snapshot(DAY, until, 2, tokens, vectors).write(folder / "snapshots" / str(until))
    chosen = {DAY: [], last: [(until, "a")]}
    join_snapshots(log, chosen, folder / "snapshots", 1, 2, folder / "joined", beam_args)
    score(models["version"], [models["rows"]], at("scores"), ["item"], 0.01, beam_args)
    return content_of(folder)


@pytest.fixture(scope="module")
def expected(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    side_inputs = []
    built = beam.pvalue.AsSideInput.__init__

    def noted(self: Any, collection: Any) -> None:
        side_inputs.append(collection)
        built(self, collection)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(beam.pvalue.AsSideInput, "__init__", noted)
        found = run_all(tmp_path_factory.mktemp("here"), models, [])
    assert side_inputs == []  # Dask would compute them again and again, and wrongly
    assert len({name for name in found if name.startswith("data/train/")}) == PIECES
    jobs = {"data", "by_time", "windows", "tables", "similar", "texts", "hints", "days", "joined"}
    jobs |= {"logits", "beside", "neighbours", "scores"}
    assert {Path(name).parts[0] for name in found} >= jobs
    return found


def assert_same(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []


@pytest.fixture
def worker_pool() -> Iterator[str]:
    """The address of workers in processes of their own, as on another machine."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    module = "apache_beam.runners.worker.worker_pool_main"
    # It starts its workers as "python".
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    pool = subprocess.Popen(
        [sys.executable, "-m", module, f"--service_port={port}"], env=os.environ | {"PATH": path}
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"127.0.0.1:{port}"
    pool.terminate()
    pool.wait()


@pytest.mark.slow
def test_the_portable_runner_with_a_worker_pool(
    worker_pool: str, models: dict[str, str], expected: Any, tmp_path: Path
) -> None:
    args = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=EXTERNAL"]
    args.append(f"--environment_config={worker_pool}")
    assert_same(run_all(tmp_path, models, args), expected)


@pytest.mark.slow
def test_processes(models: dict[str, str], expected: Any, tmp_path: Path) -> None:
    args = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    assert_same(run_all(tmp_path, models, args), expected)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        yield cluster


@pytest.mark.processes
def test_dask(cluster: Any, models: dict[str, str], expected: Any, tmp_path: Path) -> None:
    args = [DASK, f"--dask_client_address={cluster.scheduler_address}"]
    assert_same(run_all(tmp_path, models, args), expected)


def joined_partitions(cluster: Any, **options: int) -> tuple[int, int]:
    """Partitions on Dask of 9 elements as they are made, and after joins."""
    dask_partitions.install()
    pipeline = beam.Pipeline("FnApiRunner")
    made = pipeline | beam.Create([(i, i) for i in range(9)])
    found = made
    for i in range(3):
        found = {"one": made, "more": found} | f"Join {i}" >> beam.CoGroupByKey()
    pipeline.replace_all(dask_overrides())
    visitor = DaskRunner.to_dask_bag_visitor(options)
    with cluster.get_client():
        pipeline.visit(visitor)
    numbers = [bag.npartitions for bag in visitor.bags.values()]
    return numbers[0], numbers[-1]


@pytest.mark.processes
def test_dask_has_as_many_partitions_as_its_workers_need(cluster: Any) -> None:
    assert joined_partitions(cluster) == (3, 4)  # 3 elements each; two for each thread
    assert joined_partitions(cluster, npartitions=2) == (2, 2)
    assert joined_partitions(cluster, partition_size=1) == (9, 4)


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing_and_doubles_nothing(
    cluster: Any, tmp_path: Path
) -> None:
    source = {"format": "world", "users": 300, "items": 60, "events": 400_000, "seed": 3}
    config = world_config(source=source)
    prepare(config, str(tmp_path / "one"))
    killed = []

    def kill() -> None:
        while not list(tmp_path.glob("two.tmp-*/staged/*")):
            time.sleep(0.01)
        killed.append(next(iter(cluster.workers.values())).pid)
        subprocess.run(["kill", "-9", str(killed[0])], check=True)

    thread = threading.Thread(target=kill)
    thread.start()
    prepare(
        config,
        str(tmp_path / "two"),
        [DASK, f"--dask_client_address={cluster.scheduler_address}"],
    )
    thread.join()
    assert killed
    assert_same(content_of(tmp_path / "two"), content_of(tmp_path / "one"))
