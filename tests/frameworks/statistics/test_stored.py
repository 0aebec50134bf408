"""Statistics that are computed once for all rows and read by trainings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from beam_pipelines.numbers import main
from tests.conftest import content_of
from tests.frameworks.statistics.test_statistics import write_configs
from tests.serving.evaluated import assert_served_as_evaluated
from tfctr.config import ConfigError, load_data, load_run
from tfctr.data import Dataset
from tfctr.frameworks.ecdctr.config import load_rollout
from tfctr.frameworks.statistics.config import STORED
from tfctr.frameworks.statistics.stages import create_statistics, numbers_of_rows
from tfctr.stages import Run

CONFIGS = Path(__file__).parents[3] / "configs"
STORED_NUMBERS = {"frameworks.statistics.stored": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("stored")
    write_configs(made)
    return made


def student(folder: Path, name: str, **changes: Any) -> Run:
    """A run of the folder's data whose name and further keys are these."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"extends": "run.yaml", "name": name} | changes))
    return Run(load_run(path), folder / "work", Console(quiet=True))


@pytest.fixture(scope="module")
def stored(folder: Path) -> Run:
    made = student(folder, "stored", **STORED_NUMBERS)
    made.evaluate()
    return made


def test_numbers_are_those_that_a_student_computes(stored: Run) -> None:
    (method,) = stored.config.frameworks
    stages = stored.before["statistics"]
    data = Dataset.open(stored.data_folder, [stages["numbers"].path])
    statistics = create_statistics(method, data.schema)
    statistics.build()
    statistics.set_tables(stages["tables"].load())
    for split in ("train", "valid", "test"):
        found = data.columns(split, [*method.tables.reads, STORED])
        numbers = found.pop(STORED)
        expected = numbers_of_rows(statistics, method.tables, found, training=split == "train")
        np.testing.assert_allclose(numbers, expected, rtol=1e-4, atol=1e-4)
        other = numbers_of_rows(statistics, method.tables, found, training=split != "train")
        assert np.abs(numbers - other).max() > 0.1


def test_a_student_learns_the_same_from_them(stored: Run, folder: Path) -> None:
    computed = student(folder, "computed")
    computed.evaluate()
    for ours, theirs in zip(
        stored.load_model().weights, computed.load_model().weights, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)
    losses = [json.loads((r.folder / "metrics.json").read_text()) for r in (stored, computed)]
    assert abs(losses[0]["test"]["log_loss"] - losses[1]["test"]["log_loss"]) < 1e-4


def test_a_trained_student_reads_events_is_served_and_refreshed(stored: Run, folder: Path) -> None:
    model = stored.load_model()
    assert STORED not in model.reads
    assert {"past_item", "past_click"} <= set(model.reads)
    stored.export()
    assert_served_as_evaluated(stored, 20)
    stored.refresh(load_data(folder / "data.yaml"))  # tables of all rows of the log
    assert (stored.export_folder / "2").is_dir()


def test_a_student_that_learns_from_teachers_reads_them_too(stored: Run, folder: Path) -> None:
    method = {"name": "statistics", "tables": "tables.yaml", "knots": 8, "attribute_fadings": [6]}
    distill = {"name": "distill", "teachers": ["stored.yaml"]}
    made = student(folder, "taught", frameworks=[method | {"stored": True}, distill])
    made.evaluate()
    auc = json.loads((made.folder / "metrics.json").read_text())["test"]["auc"]
    assert auc > 0.55
    # A teacher is asked for a training row as it was trained: its label is in none of the tables.
    teacher = stored.load_model()
    (logits,) = made.before["distill"].values()
    data = Dataset.open(
        stored.data_folder, [stored.before["statistics"]["numbers"].path, logits.path]
    )
    found = data.columns("train", [*teacher.reads, STORED, logits.field])
    taught = found.pop(logits.field)[:, 0]
    np.testing.assert_allclose(taught, teacher(found, training=False), atol=1e-4)
    del found[STORED]
    assert np.abs(taught - teacher(found, training=False)).max() > 0.1


def test_a_teacher_without_them_is_refused(folder: Path) -> None:
    student(folder, "computing")
    distill = {"name": "distill", "teachers": ["computing.yaml"]}
    with pytest.raises(ConfigError, match=r"computing: statistics: without stored numbers"):
        student(folder, "taught-with-labels", frameworks=[distill])


def command(stored: Run, tables: Path, folder: Path) -> int:
    """Writes to `folder / "numbers"`."""
    path = stored.work.parent / "tables.yaml"
    method = {"name": "statistics", "tables": str(path), "attribute_fadings": [6]}
    (folder / "statistics.yaml").write_text(yaml.safe_dump(method))
    given = {
        "config": folder / "statistics.yaml",
        "data": stored.data_folder,
        "tables": tables,
        "output": folder / "numbers",
    }
    return main([f"--{name}={value}" for name, value in given.items()])


def test_numbers_by_command(stored: Run, tmp_path: Path) -> None:
    stages = stored.before["statistics"]
    assert command(stored, stages["tables"].path, tmp_path) == 0
    expected, found = (content_of(path) for path in (stages["numbers"].path, tmp_path / "numbers"))
    shards = [name for name in expected if name.endswith(".tfrecord")]
    assert len(shards) == 3
    assert {name: found[name] for name in shards} == {name: expected[name] for name in shards}


def test_tables_of_other_data(stored: Run, tmp_path: Path) -> None:
    assert command(stored, stored.data_folder, tmp_path) == 1
    assert not (tmp_path / "numbers").exists()


@pytest.mark.parametrize(
    ("training", "says"),
    [
        ({"training.oov_rate": {"item_id": 0.1}}, "oov_rate: stored numbers are those of the row"),
        ({"training.refit": True}, "training.refit: stored numbers of validation rows know"),
    ],
)
def test_trainings_that_stored_numbers_do_not_fit(
    training: dict[str, Any], says: str, folder: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        student(folder, "refused", **STORED_NUMBERS, **training)


def test_a_rollout_computes_its_numbers(tmp_path: Path) -> None:
    histories = CONFIGS / "demo" / "ecdctr" / "histories.yaml"
    content = {"extends": f"{histories}#statistics", **STORED_NUMBERS}
    (tmp_path / "rollout.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match="statistics: stored: a rollout makes the tables again"):
        load_rollout(tmp_path / "rollout.yaml")
