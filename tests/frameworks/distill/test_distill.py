"""Distillation: teachers' logits beside the rows, and a student that learns from them."""

import io
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from beam_pipelines.scores import main, write_scores
from beam_pipelines.teacher_logits import write_logits
from tests.conftest import WORLD_FEATURES, world_config
from tests.layers.test_layers import INPUTS, SCHEMA
from tests.serving.evaluated import assert_served_as_evaluated
from tfctr import backbones
from tfctr.config import ConfigError, load_run
from tfctr.data import Dataset
from tfctr.data.folds import fold_of
from tfctr.data.manifest import DataError, read_manifest
from tfctr.frameworks.distill import Distillation
from tfctr.optimizers import LazyAdam
from tfctr.schema import FIRST_TOKEN_ID
from tfctr.stages import Run

SOURCE = {"format": "world", "users": 60, "items": 50, "events": 4_000, "seed": 3}
PLAIN = [f["name"] for f in WORLD_FEATURES if f["kind"] != "text"]
SCORES = {"name": "trees", "files": "trees-*.parquet", "column": "p"}
QUICK = {"batch_size": 512, "epochs": 1, "optimizer": {"learning_rate": 0.01}}


def write_configs(folder: Path, **changes: Any) -> Path:
    """The path of a student's config, its two teachers' beside it."""
    teacher = {
        "data": "data.yaml",
        "model": {"backbone": "lr", "features": PLAIN},
        "training": QUICK,
    }
    contents: dict[str, Any] = {
        "data": world_config(source=SOURCE).model_dump(mode="json"),
        "first": teacher | {"name": "first"},
        "second": teacher | {"name": "second", "training": QUICK | {"seed": 2}},
        "student": {
            "name": "student",
            "frameworks": [{"name": "distill", "teachers": ["first.yaml", "second.yaml"]}],
            "model": {"backbone": "fm", "embedding_dim": 4, "features": PLAIN[:4]},
            "training": QUICK,
            "export": {"directory": str(folder / "saved_models")},
        },
    }
    for name, content in contents.items():
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content | changes.get(name, {})))
    return folder / "student.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("distill")
    made = Run(load_run(write_configs(folder)), folder / "work", Console(quiet=True))
    made.export()
    return made


def test_each_row_has_its_teachers_logits(run: Run) -> None:
    stages = run.before["distill"]
    assert [*stages] == ["first", "second"]
    data = Dataset.open(run.data_folder, [stage.path for stage in stages.values()])
    for name, stage in stages.items():
        teacher = stage.teacher.load_model()
        for split in ("train", "valid", "test"):
            columns = data.columns(split, [*teacher.reads, f"logit of {name}"])
            found = columns.pop(f"logit of {name}")[:, 0]
            np.testing.assert_allclose(found, teacher.predict(columns, verbose=0), atol=1e-5)


def test_only_the_student_is_served(run: Run) -> None:
    model = run.load_model()
    assert sorted(model.reads) == sorted(PLAIN[:4])
    assert_served_as_evaluated(run, 20, model)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def cross_entropy(p: Any, logits: Any) -> Any:
    return -p * np.log(sigmoid(logits)) - (1 - p) * np.log(1 - sigmoid(logits))


def test_the_loss_against_numpy() -> None:
    student = backbones.create("fm", SCHEMA, embedding_dim=4)
    model = Distillation(student, ["a", "b"], weight=0.3, temperature=2.0, pairs=0.0)
    model.compile(LazyAdam(0.0))
    rng = np.random.default_rng(1)
    number = len(next(iter(INPUTS.values())))
    a, b = rng.normal(size=(2, number, 1)).astype("float32")
    clicks = rng.integers(0, 2, number).astype("float32")
    rows = {name: INPUTS[name] for name in student.reads}
    loss = model.fit(rows | {"a": a, "b": b}, clicks, batch_size=number, verbose=0)
    logits = np.array(student(rows), np.float64)
    soft = cross_entropy(sigmoid((a + b)[:, 0] / 2 / 2), logits / 2)
    expected = np.mean(0.7 * cross_entropy(clicks, logits) + 0.3 * 4 * soft)
    assert loss.history["loss"][0] == pytest.approx(expected, rel=1e-5)


def test_rows_without_a_teacher_learn_from_clicks_and_pairs_are_of_one_user() -> None:
    student = backbones.create("fm", SCHEMA, embedding_dim=4)
    model = Distillation(student, ["a", "b"], weight=0.3, temperature=2.0, pairs=0.25, user="who")
    model.compile(LazyAdam(0.0))
    rng = np.random.default_rng(1)
    rows = {name: np.concatenate([INPUTS[name]] * 4) for name in student.reads}
    number = len(rows[student.reads[0]])
    a, b = rng.normal(size=(2, number)).astype("float32")
    a[0] = b[0] = b[1] = np.nan
    users = np.arange(number) % 3 + FIRST_TOKEN_ID - 1  # the first one is unknown
    clicks = rng.integers(0, 2, number).astype("float32")
    given = {"a": a[:, None], "b": b[:, None], "who": users}
    loss = model.fit(rows | given, clicks, batch_size=number, verbose=0)
    logits = np.array(student(rows), np.float64)
    losses, pairs = [], []
    taught = {i: np.nanmean([a[i], b[i]]) for i in range(1, number)}
    for i in range(number):
        losses.append(cross_entropy(clicks[i], logits[i]))
        if i in taught:
            soft = 4 * cross_entropy(sigmoid(taught[i] / 2), logits[i] / 2)
            losses[-1] = 0.7 * losses[-1] + 0.3 * 0.75 * soft
        for j in range(i):
            if i in taught and j in taught and users[i] == users[j] >= FIRST_TOKEN_ID:
                apart = (logits[j] - logits[i]) / 2
                pairs.append(4 * cross_entropy(sigmoid((taught[j] - taught[i]) / 2), apart))
    assert pairs
    expected = np.mean(losses) + 0.3 * 0.25 * np.mean(pairs)
    assert loss.history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_a_student_learns_what_its_teacher_knows_and_its_labels_do_not_say() -> None:
    rng = np.random.default_rng(2)
    schema = SCHEMA.select(["item", "user"])
    rows = {f.name: rng.integers(0, f.num_ids, 4000) for f in schema.inputs}
    truth = rng.normal(size=9)[rows["item"]] + rng.normal(size=9)[rows["user"]]
    student = backbones.create("lr", schema)
    model = Distillation(student, ["taught"], weight=1.0, temperature=1.0, pairs=0.0)
    model.compile(LazyAdam(0.05))
    taught = {"taught": truth[:, None].astype("float32")}
    model.fit(rows | taught, rng.integers(0, 2, 4000), epochs=4, batch_size=100, verbose=0)
    np.testing.assert_allclose(student.predict(rows, verbose=0), truth, atol=0.1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"teachers": ["first.yaml", "first.yaml"]}, r"teachers: 'first' is given twice"),
        ({"teachers": []}, r"teachers: there are none; give a run config, or scores"),
        ({"scores": [SCORES | {"name": "first"}]}, r"teachers: 'first' is given twice"),
        ({"scores": [SCORES | {"kind": "odds"}]}, r"scores\[0\]\.kind: .*'probability' or 'logit'"),
        ({"pairs": 2}, r"pairs: .*less than or equal to 1"),
        ({"weight": 0}, r"weight: .*greater than 0"),
    ],
)
def test_teachers_that_do_not_fit(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    method = {"name": "distill", "teachers": ["first.yaml"]} | changes
    with pytest.raises(ConfigError, match=says):
        load_run(write_configs(tmp_path, student={"frameworks": [method]}))


def test_a_teacher_and_its_student_have_the_same_rows(tmp_path: Path) -> None:
    path = write_configs(tmp_path)
    with pytest.raises(ConfigError, match=r"training\.keep_negatives: found 0\.5; teachers' log"):
        load_run(path, ["training.keep_negatives=0.5"])
    nobody = world_config(source=SOURCE, user=None).model_dump(mode="json")
    method = {"name": "distill", "scores": [SCORES], "pairs": 0.5}
    with pytest.raises(ConfigError, match=r"pairs: found 0\.5; pairs are of one user's rows"):
        load_run(write_configs(tmp_path, student={"frameworks": [method], "data": nobody}))
    other = world_config(source=SOURCE | {"seed": 4}, name="other").model_dump(mode="json")
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(ConfigError, match=r"is not the data of frameworks\.distill\.teachers\.1"):
        load_run(write_configs(tmp_path, second={"data": "other.yaml"}))


def test_rows_of_another_dataset_are_refused(run: Run, tmp_path: Path) -> None:
    teacher = run.before["distill"]["first"].teacher
    with pytest.raises(DataError, match=r"nothing: no dataset of this version here"):
        write_logits(
            [str(teacher.trained.path)], str(tmp_path / "nothing"), [], "x", str(tmp_path / "out")
        )


def test_teachers_tell_of_rows_that_they_have_not_learned_from(tmp_path: Path) -> None:
    method = {"name": "distill", "teachers": ["first.yaml"], "folds": 3}
    path = write_configs(tmp_path, student={"frameworks": [method], "data": "data.yaml"})
    made = Run(load_run(path), tmp_path / "work", Console(quiet=True))
    made.train()
    data = Dataset.open(made.data_folder, [made.before["distill"]["first"].path])
    names = [f"first-without-{index}-of-3" for index in range(3)]
    teachers = [keras.models.load_model(tmp_path / "work" / n / "model.keras") for n in names]
    for split in ("train", "valid", "test"):
        columns = data.columns(split, ["row_id", "logit of first", *teachers[0].reads])
        fold = fold_of(columns.pop("row_id"), 3)
        found = columns.pop("logit of first")[:, 0]
        logits = np.stack([teacher.predict(columns, verbose=0) for teacher in teachers])
        expected = logits[fold, np.arange(len(fold))] if split == "train" else logits.mean(0)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(logits, axis=0).max() > 1e-3  # they are different models


def test_folds_are_of_the_rows_that_a_teacher_learns_from(tmp_path: Path) -> None:
    training = QUICK | {"left_out": {"index": 0, "folds": 2}}
    method = {"name": "distill", "teachers": ["first.yaml"], "folds": 3}
    changes = {"student": {"frameworks": [method]}, "first": {"training": training}}
    with pytest.raises(
        ConfigError, match=r"folds: found 3; first does not learn from all training"
    ):
        load_run(write_configs(tmp_path, **changes))
    changes["first"] = {"training": QUICK | {"left_out": {"index": 2, "folds": 2}}}
    with pytest.raises(ConfigError, match=r"left_out: index: found 2; 2 folds count from 0"):
        load_run(write_configs(tmp_path, **changes))
    changes["first"] = {"training": training | {"refit": True}}
    with pytest.raises(ConfigError, match=r"refit: trains on all rows, and left_out leaves some"):
        load_run(write_configs(tmp_path, **changes))


def write_trees(folder: Path, data: Dataset, without: int) -> dict[int, float]:
    """Files of probabilities of all rows but those of each `without`-th place, and of a stranger;
    two files, of several row groups."""
    parts = [data.columns(split, ["row_id"])["row_id"] for split in ("train", "valid", "test")]
    rows = np.random.default_rng(3).permutation(np.concatenate(parts))
    rows = np.append(rows[rows % without > 0], 10**6)
    probabilities = np.cos(rows) / 2 + 0.5
    probabilities[:2] = 0, 1
    for n, part in enumerate(np.array_split(np.arange(len(rows)), 2)):
        table = pa.table({"row": rows[part], "p": probabilities[part]})
        if n:
            null = pa.table({"row": pa.array([0], pa.int64()), "p": pa.array([None], pa.float64())})
            table = pa.concat_tables([table, null])
        pq.write_table(table, folder / f"trees-{n}.parquet", row_group_size=500)
    return dict(zip(rows.tolist(), np.clip(probabilities, 1e-6, 1 - 1e-6).tolist(), strict=True))


def test_scores_of_files_are_beside_their_rows(tmp_path: Path, run: Run) -> None:
    data = Dataset.open(run.data_folder)
    known = write_trees(tmp_path, data, without=7)
    method = {"name": "distill", "scores": [SCORES | {"row": "row"}], "pairs": 0.5}
    said = io.StringIO()
    path = write_configs(tmp_path, student={"frameworks": [method], "data": "data.yaml"})
    made = Run(load_run(path), tmp_path / "work", Console(file=said, width=200))
    made.train()
    stage = made.before["distill"]["trees"]
    beside = Dataset.open(made.data_folder, [stage.path])
    scored = {}
    for split in ("train", "valid", "test"):
        columns = beside.columns(split, ["row_id", "logit of trees"])
        for row, logit in zip(columns["row_id"], columns["logit of trees"][:, 0], strict=True):
            p = known.get(int(row))
            assert np.isnan(logit) if p is None else sigmoid(logit) == pytest.approx(p, abs=1e-6)
        scored[split] = int(np.isfinite(columns["logit of trees"]).sum())
    assert (
        f"scores of {scored['train']:,} of {data.num_rows('train'):,} training rows"
        in said.getvalue()
    )
    assert "; 1 scores are of no row" in said.getvalue()
    assert made.trained.is_done()
    write_trees(tmp_path, data, without=5)  # other scores, another student
    assert not made.trained.is_done()


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"row_id": [3, 3], "p": [0.5, 0.6]}, r"row_id 3 has two scores"),
        (
            {"row_id": [3], "p": [1.5]},
            r"trees\.parquet: column 'p', row_id 3: found 1\.5, where",
        ),
        ({"row_id": [3], "p": ["x"]}, r"column 'p' holds string, and numbers are needed"),
        ({"row_id": [0.5], "p": [0.5]}, r"column 'row_id' holds double, and integers are needed"),
        ({"row_id": [None, 1], "p": [0.5, 0.5]}, r"column 'row_id' has no value in some rows"),
        ({"row_id": [-1], "p": [0.5]}, r"no training row of .* has a score here, and 1 scores are"),
        ({"row": [1], "p": [0.5]}, r"no column 'row_id'; columns: row, p"),
    ],
)
def test_scores_that_do_not_fit(
    columns: dict[str, Any], says: str, tmp_path: Path, run: Run
) -> None:
    path = tmp_path / "trees.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises((ConfigError, DataError), match=says):
        write_scores([str(path)], "p", str(run.data_folder), "x", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_job_as_a_command(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    known = write_trees(tmp_path, Dataset.open(run.data_folder), without=7)
    given = ["--files", str(tmp_path / "trees-*.parquet"), "--column", "p", "--row", "row"]
    given += ["--data", str(run.data_folder), "--field", "x", "--output", str(tmp_path / "out")]
    assert main(given) == 0
    assert "scores of" in capsys.readouterr().out
    assert sum(s["scored"] for s in _splits(tmp_path / "out").values()) == len(known) - 1
    given[1] = str(tmp_path / "none-*.parquet")
    assert main(given) == 1
    assert "no file matches" in capsys.readouterr().err


def _splits(folder: Path) -> dict[str, Any]:
    return (read_manifest(folder / "manifest.json") or {})["splits"]
