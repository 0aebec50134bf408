"""What a request for 100 candidates costs: students, their backbone, ROK's teacher with a search.

    python -m benchmarks.serving configs/movielens-1m/rok/dcnv2.yaml --work work --record
    python -m benchmarks.serving configs/demo/ecdctr/ecdctr.yaml --section "E-CDCTR: ..." --record

All configs are of one backbone. Students and their backbone are SavedModels, the teacher a
TensorFlow function behind an exact search in this process (`tfctr.retrieval.bm25`): no network, no
parsing. Weights cost the same whatever they hold, so what `--work` lacks is made but not trained.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import tensorflow as tf
from rich.console import Console

from beam_pipelines.days import write_days
from benchmarks.in_turn import median_seconds
from benchmarks.record import Result, record
from tfctr import serving
from tfctr.config import RunConfig, load_run, read
from tfctr.data.dataset import Dataset
from tfctr.data.days import DaysDataset
from tfctr.data.snapshots import SIDES
from tfctr.frameworks.ecdctr import EcdctrServed, EcdctrStudent
from tfctr.frameworks.ecdctr.config import RolloutConfig, load_rollout
from tfctr.retrieval.bm25 import Bm25Index, idf
from tfctr.retrieval.similar_rows import CLICKED, LABEL, NO_ROW, NOT_CLICKED, PREFIX
from tfctr.serving.warmup import read_warmup
from tfctr.stages import Run, create_model
from tfctr.stages.train import create_parts

CANDIDATES = 100
SHARES = (0.1, 0.3, 1.0)  # of the pool's rows, those that are searched


def served(
    model: Any, data: Dataset, folder: Path, tables: Literal["float32", "int8"] = "float32"
) -> Callable[[], Any]:
    """One request of an exported model."""
    version = serving.export(model, data, folder, tables)
    rank = tf.saved_model.load(str(version)).signatures["rank"]
    for log in read_warmup(version):
        request = log.predict_log.request
        if request.model_spec.signature_name == "rank":
            inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
    assert next(iter(rank(**inputs).values())).shape[1] == CANDIDATES
    return lambda: rank(**inputs)["scores"].numpy()


def pool_split(data: Dataset) -> str:
    return "pool" if "pool" in data.manifest["splits"] else "train"


def searched(config: RunConfig, model: Any, data: Dataset, share: float) -> Callable[[], Any]:
    """One request of the teacher: a search for each candidate, then its scores."""
    similar = config.method("rim").similar
    fields, k = similar.fields, similar.k
    names = [feature.name for feature in model.of_found]
    pool = data.columns(pool_split(data), ["row_id", "time", "label", *names])
    rows = int(share * len(pool["time"]))
    pool = {name: values[:rows] for name, values in pool.items()}
    weights = {
        name: idf(np.bincount(pool[name].ravel(), minlength=data.schema[name].num_ids), rows)
        for name in fields
    }
    columns = {name: pool[name] for name in fields}
    index = Bm25Index(columns, pool["time"], pool["row_id"], weights)
    test = data.columns("test", ["time", *names])
    asked = {
        name: test[name][:CANDIDATES]
        if data.schema[name].side == "item"
        else np.repeat(test[name][:1], CANDIDATES, axis=0)
        for name in names
    }
    times = np.full(CANDIDATES, test["time"][0])
    score = tf.function(lambda features: tf.sigmoid(model(features, training=False)))

    def request() -> Any:
        found, _ = index.search({name: asked[name] for name in fields}, times, k)
        labels = np.where(pool["label"][found] > 0, CLICKED, NOT_CLICKED)
        features = asked | {LABEL: np.where(found < 0, NO_ROW, labels)}
        for name in names:
            features[PREFIX + name] = pool[name][found].reshape(CANDIDATES, -1)
        return score({name: tf.constant(values) for name, values in features.items()}).numpy()

    return request


@dataclass(frozen=True)
class Models:
    """The student of a run or a rollout, and its backbone, untrained; and their rows."""

    name: str
    backbone: str  # its name and that of the rows
    data: Dataset
    plain: Any
    student: Any


def models_in(path: Path, work: Path, folder: Path, console: Console) -> Models:
    """Those of a config file; `folder` takes a rollout's vocabularies."""
    if "days" in read(path):
        rollout = load_rollout(path)
        found = models_of_rollout(rollout, work, folder / f"{rollout.name}-log")
        return Models(rollout.name, f"{rollout.model.backbone} of {rollout.days.name}", *found)
    config = load_run(path)
    found = models_of(config, work, console)
    return Models(config.name, f"{config.model.backbone} of {config.data.name}", *found)


def models_of(config: RunConfig, work: Path, console: Console) -> tuple[Dataset, Any, Any]:
    """A run's dataset, and its backbone and its student, untrained."""
    run = Run(config, work, console)
    run.prepare()
    data = run.open_data()
    student = create_parts(config, data.schema, run.before)[0]
    plain = create_model(config.model_copy(update={"frameworks": ()}), data.schema)
    return data, plain, student


def models_of_rollout(config: RolloutConfig, work: Path, folder: Path) -> tuple[Dataset, Any, Any]:
    """A rollout's rows, its backbone, and its ads model as it is served, untrained."""
    assert config.end
    assert config.tiny
    log = write_days(config.days, config.end, str(work / config.days.name))
    data = DaysDataset(log, {"train": [(max(log.days), "ads")]}, len(log.days) - 1)
    data.write_vocabularies(folder / "vocabularies")
    number, keys = config.tiny.snapshots, [config.days.data.user, config.days.data.item]
    dim = config.tiny.model.create(data.schema).field_dim
    student = EcdctrStudent(config.model.create(data.schema), *keys, number, dim)
    student.build()
    sizes = {side: data.schema[key].num_ids for side, key in zip(SIDES, keys, strict=True)}
    tables = {
        side: (np.ones((ids, number * dim), np.float32), np.ones((ids, number)))
        for side, ids in sizes.items()
    }
    return data, config.model.create(data.schema), EcdctrServed(student, tables)


def requests_of(
    paths: list[Path], work: Path, folder: Path, console: Console
) -> dict[str, Callable[[], Any]]:
    """A request of each model, by name; the backbone is the first."""
    requests: dict[str, Callable[[], Any]] = {}
    for path in paths:
        is_rollout = "days" in read(path)
        config: Any = load_rollout(path) if is_rollout else load_run(path)
        data, plain, student = (
            models_of_rollout(config, work, folder)
            if is_rollout
            else models_of(config, work, console)
        )
        if not requests:
            requests["backbone"] = served(plain, data, folder / "backbone")
        requests[config.name] = served(student, data, folder / config.name)
        if not is_rollout and (rok := config.method("rok")):
            teacher = rok.knowledge.teacher
            rim = create_model(teacher, data.schema)
            for share in SHARES:
                rows = int(share * data.num_rows(pool_split(data)))
                name = f"RIM, searching {rows:,} rows"
                requests[name] = searched(teacher, rim, data, share)
    return requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path, help="run configs of one backbone")
    parser.add_argument("--work", type=Path, help="where datasets are kept")
    parser.add_argument("--repeats", type=int, default=200, help="requests of each")
    parser.add_argument("--section", default="The cost of a request", help="of the record")
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        work, folder = args.work or Path(temporary), Path(temporary)
        requests = requests_of(args.configs, work, folder, console)
        repeats = {  # the teacher is far slower, and its median settles early
            name: args.repeats // 10 if name.startswith("RIM") else args.repeats
            for name in requests
        }
        medians = median_seconds(requests, repeats, warm_up=5)
    results = [Result(name, 1000 * seconds, "ms") for name, seconds in medians.items()]
    students = [name for name in medians if name != "backbone" and not name.startswith("RIM")]
    for name in students:
        ratio = medians[name] / medians["backbone"]
        results.append(Result(f"{name} over its backbone", ratio, "ratio"))
    for name in medians:
        if name.startswith("RIM"):
            ratio = medians[name] / medians[students[0]]
            results.append(Result(f"{name}: over {students[0]}", ratio, "ratio"))
    for result in results:
        console.print(f"{result.what}: {result.value:.3f} {result.unit}")
    if args.record:
        note = f"Medians (p50) of a request for {CANDIDATES} candidates of one user, in turn."
        runs = f"medians of {args.repeats} requests"
        record(args.section, "benchmarks.serving", results, runs, note)


if __name__ == "__main__":
    main()
