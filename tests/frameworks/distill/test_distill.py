"""Distillation: teachers' logits beside the rows, and a student that learns from them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from beam_pipelines.teacher_logits import write_logits
from tests.conftest import WORLD_FEATURES, world_config
from tests.layers.test_layers import INPUTS, SCHEMA
from tests.serving.evaluated import assert_served_as_evaluated
from tfctr import backbones
from tfctr.config import ConfigError, load_run
from tfctr.data import Dataset
from tfctr.data.manifest import DataError
from tfctr.frameworks.distill import Distillation
from tfctr.optimizers import LazyAdam
from tfctr.stages import Run

SOURCE = {"format": "world", "users": 60, "items": 50, "events": 4_000, "seed": 3}
PLAIN = [f["name"] for f in WORLD_FEATURES if f["kind"] != "text"]
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
    model = Distillation(student, ["a", "b"], weight=0.3, temperature=2.0)
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


def test_a_student_learns_what_its_teacher_knows_and_its_labels_do_not_say() -> None:
    rng = np.random.default_rng(2)
    schema = SCHEMA.select(["item", "user"])
    rows = {f.name: rng.integers(0, f.num_ids, 4000) for f in schema.inputs}
    truth = rng.normal(size=9)[rows["item"]] + rng.normal(size=9)[rows["user"]]
    student = backbones.create("lr", schema)
    model = Distillation(student, ["taught"], weight=1.0, temperature=1.0)
    model.compile(LazyAdam(0.05))
    taught = {"taught": truth[:, None].astype("float32")}
    model.fit(rows | taught, rng.integers(0, 2, 4000), epochs=4, batch_size=100, verbose=0)
    np.testing.assert_allclose(student.predict(rows, verbose=0), truth, atol=0.1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"teachers": ["first.yaml", "first.yaml"]}, r"teachers: 'first' is given twice"),
        ({"teachers": []}, r"teachers: .*at least 1"),
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
    other = world_config(source=SOURCE | {"seed": 4}, name="other").model_dump(mode="json")
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(ConfigError, match=r"is not the data of frameworks\.distill\.teachers\.1"):
        load_run(write_configs(tmp_path, second={"data": "other.yaml"}))


def test_rows_of_another_dataset_are_refused(run: Run, tmp_path: Path) -> None:
    teacher = run.before["distill"]["first"].teacher
    with pytest.raises(DataError, match=r"nothing: no dataset of this version here"):
        write_logits(
            str(teacher.trained.path), str(tmp_path / "nothing"), [], "x", str(tmp_path / "out")
        )
