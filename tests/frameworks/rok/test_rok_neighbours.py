"""The second form of ROK, from a log to a served student."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from beam_pipelines import neighbour_hints
from beam_pipelines.neighbour_hints import write_neighbour_hints
from tests.conftest import content_of
from tests.serving.evaluated import assert_served_as_evaluated
from tests.world_log import data_config, write_log
from tfctr.config import ConfigError, load_run
from tfctr.data import Dataset, World
from tfctr.data.manifest import DataError, read_manifest
from tfctr.frameworks.rok.similar_users import NUMBERS
from tfctr.frameworks.statistics.config import Statistics
from tfctr.frameworks.statistics.neighbour_statistics import NUMBERS as OF_ITEMS
from tfctr.frameworks.statistics.stages import create_statistics, numbers_of_rows
from tfctr.frameworks.statistics.user_statistics import USUAL
from tfctr.stages import Run
from tfctr.stages.training import TrainingStage

USERS, LATEST = 3, 20
ROWS = 1_200
QUICK = {"batch_size": 256, "epochs": 1, "in_memory": True, "optimizer": {"learning_rate": 0.01}}
METHOD = {"name": "rok_neighbours", "knowledge": "knowledge.yaml"}


def write_configs(folder: Path, log: Path, **changes: dict[str, Any]) -> Path:
    """The path of a student's config, the others beside it; `changes` by file."""
    contents: dict[str, dict[str, Any]] = {
        "data": data_config(log).model_dump(mode="json", exclude_none=True),
        "tables": {
            "name": "tables",
            "data": "data.yaml",
            "items": "past_item",
            "grades": "past_click",
            "neighbours": 6,
            "factors": 3,
            "steps": 1,
        },
        "neighbours": {
            "name": "neighbours",
            "tables": "tables.yaml",
            "users": USERS,
            "latest": LATEST,
        },
        "knowledge": {
            "name": "knowledge",
            "teacher": "neighbours.yaml",
            "embedding_dim": 4,
            "state_dim": 4,
            "hidden_units": [16],
            "training": QUICK,
        },
        "run": {
            "name": "student",
            "data": "data.yaml",
            "frameworks": [METHOD],
            "model": {
                "backbone": "dcn_v2",
                "features": ["user_id", "age_group", "item_id", "category"],
                "embedding_dim": 4,
                "hidden_units": [16],
            },
            "training": QUICK,
            "export": {"directory": str(folder / "saved_models")},
        },
    }
    for name, content in contents.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content | changes.get(name, {})))
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An exported student, of a log of 4 pieces in 2 files."""
    folder = tmp_path_factory.mktemp("rok_neighbours")
    write_log(folder, World(num_users=60, num_items=30, num_events=ROWS, seed=3), 2, ROWS // 4)
    made = Run(load_run(write_configs(folder, folder)), folder / "work", Console(quiet=True))
    made.export()
    return made


@pytest.mark.slow
def test_a_student_starts_from_an_earlier_one_with_its_knowledge_base(run: Run) -> None:
    folder = run.work.parent
    content = yaml.safe_load((folder / "run.yaml").read_text())
    later = content | {"name": "later", "starts_from": "run.yaml"}
    (folder / "later.yaml").write_text(yaml.safe_dump(later))
    trained = Run(load_run(folder / "later.yaml"), run.work, Console(quiet=True)).trained
    data = Dataset.open(run.data_folder)
    model = trained.create_student(data, Console(quiet=True))
    logits = [m.predict(data.test(8192), verbose=0) for m in (model, run.load_model())]
    np.testing.assert_array_equal(*logits)
    (folder / "later.yaml").unlink()


def hints_of(run: Run) -> tuple[Dataset, Path]:
    hints = run.before["rok_neighbours"]["hints"].path
    return Dataset.open(run.data_folder, [hints]), hints


def test_hints_are_those_of_a_loop_over_strictly_earlier_rows(run: Run) -> None:
    data, hints = hints_of(run)
    method = run.config.method("rok_neighbours")
    tables = method.knowledge.teacher.tables
    statistics = create_statistics(Statistics(name="statistics", tables=tables), data.schema)
    statistics.build()
    statistics.set_tables(run.before["rok_neighbours"]["tables"].load())
    names = [*tables.reads, "row_id", "time", "label", "hint"]
    parts = {split: data.columns(split, names) for split in ("train", "valid", "test")}
    for split, part in parts.items():
        numbers = numbers_of_rows(statistics, tables, part, training=split == "train")
        np.testing.assert_allclose(part["hint"][:, :OF_ITEMS], numbers[:, -OF_ITEMS:], atol=1e-5)
        tables_of_row = 1 - part["user_id"] % 2 if split == "train" else 2
        part["population"] = np.zeros(len(part["time"]), int) + tables_of_row
    whole = {name: np.concatenate([p[name] for p in parts.values()]) for name in parts["train"]}
    users = [
        statistics.encode(
            whole["past_item"], whole["past_click"], np.full(len(whole["time"]), population)
        )
        for population in range(3)
    ]
    tastes = np.stack([np.array(user["tastes"])[:, 0] for user in users], axis=1)
    usual = np.stack([np.array(user["numbers"])[:, USUAL] for user in users], axis=1)
    assert len(whole["time"]) == ROWS
    for row in np.random.default_rng(1).permutation(len(whole["time"]))[:60]:
        expected = by_a_loop(whole, tastes, usual, row)
        np.testing.assert_allclose(whole["hint"][row, OF_ITEMS:], expected, atol=1e-4)
    assert np.ptp(whole["hint"], axis=0).min() > 0
    described = (read_manifest(hints / "manifest.json") or {})["splits"]["train"]
    train = parts["train"]["hint"]
    np.testing.assert_allclose(described["mean"], train.mean(axis=0, dtype=float), atol=1e-6)
    np.testing.assert_allclose(described["std"], train.std(axis=0, dtype=float), atol=1e-5)


def by_a_loop(
    rows: dict[str, np.ndarray], tastes: np.ndarray, usual: np.ndarray, row: int
) -> list[float]:
    population = rows["population"][row]
    same = rows["item_id"] == rows["item_id"][row]
    earlier = np.flatnonzero(same & (rows["time"] < rows["time"][row]))
    order = np.lexsort((rows["row_id"][earlier], rows["time"][earlier]))
    earlier = earlier[order][-LATEST:]
    clicks = rows["label"][earlier]
    mean = (clicks.sum() + 2.5) / (len(earlier) + 5)
    mine, theirs = tastes[row, population], tastes[earlier, population]
    lengths = np.linalg.norm(mine) * np.linalg.norm(theirs, axis=1)
    s = np.maximum(theirs @ mine / np.maximum(lengths, 1e-12), 0)
    best = np.argsort(-s)[:USERS]
    s, d, u = s[best], clicks[best] - mean, usual[earlier[best], population]
    total = s.sum() + 0.5
    return [
        mean,
        np.log1p(len(earlier)),
        (s * d).sum() / total,
        (s**2 * d).sum() / ((s**2).sum() + 0.5),
        (s * d).sum() / total,  # of the five most similar, which are all three here
        (s * u).sum() / total,
        s.sum(),
        s.max(initial=0),
    ]


@pytest.mark.slow
def test_hints_do_not_depend_on_how_many_rows_are_read_at_a_time(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbour_hints, "BATCH", 50)
    teacher = run.config.method("rok_neighbours").knowledge.teacher
    paths = (str(run.data_folder), str(run.work / "tables"), str(tmp_path / "again"))
    write_neighbour_hints(teacher, *paths)
    whole, _ = hints_of(run)
    found = Dataset.open(run.data_folder, [tmp_path / "again"])
    for split in ("train", "valid"):
        hints = [data.columns(split, ["row_id", "hint"]) for data in (whole, found)]
        np.testing.assert_array_equal(hints[0]["row_id"], hints[1]["row_id"])
        np.testing.assert_allclose(hints[0]["hint"], hints[1]["hint"], atol=1e-5)


def test_hints_are_of_these_tables(run: Run, tmp_path: Path) -> None:
    teacher = run.config.method("rok_neighbours").knowledge.teacher
    other = teacher.tables.model_copy(update={"factors": 2})
    changed = teacher.model_copy(update={"tables": other})
    paths = (str(run.data_folder), str(run.work / "tables"), str(tmp_path / "hints"))
    with pytest.raises(DataError, match=r"no tables of tables for .*make them first"):
        write_neighbour_hints(changed, *paths)
    assert not (tmp_path / "hints").exists()


def test_a_second_run_makes_nothing_again(run: Run) -> None:
    before = content_of(run.work)
    run.export()
    assert content_of(run.work) == before


def test_a_request_has_the_scores_that_are_evaluated(run: Run) -> None:
    model = run.load_model()
    trained = run.before["rok_neighbours"]["knowledge"].load()
    for mine, theirs in zip(model.knowledge.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert_served_as_evaluated(run, 20, model)


@pytest.mark.slow
def test_given_hints_are_evaluated_and_not_served(run: Run, tmp_path: Path) -> None:
    path = write_configs(tmp_path, run.work.parent, run={"frameworks": [METHOD | {"given": True}]})
    given = Run(load_run(path, ["name=given"]), run.work, Console(quiet=True))
    assert np.isfinite(json.loads(given.evaluate().read_text())["test"]["log_loss"])
    model = given.load_model()
    _, hints = hints_of(run)
    described = (read_manifest(hints / "manifest.json") or {})["splits"]["train"]
    np.testing.assert_allclose(model.knowledge.mean, described["mean"], rtol=1e-5)
    assert not any(isinstance(s, TrainingStage) for s in given.before["rok_neighbours"].values())
    assert model.knowledge.size == OF_ITEMS + NUMBERS
    with pytest.raises(ConfigError, match="given: "):
        given.export()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"tables": {"neighbours": 0}},
            "neighbours.yaml: tables: tables has no similar items; set neighbours there, e.g. 50",
        ),
        (
            {"knowledge": {"features": ["item_id", "past_item"]}},
            "knowledge.yaml: features: found 'past_item'; allowed: user_id, age_group",
        ),
        ({"knowledge": {"features": ["age_group"]}}, "features: none is of the candidate"),
        ({"knowledge": {"sums": 3}}, "sums: found 3; half of them forget, so it must be even"),
        ({"knowledge": {"imitation": 0}}, "imitation, clicks: both are 0"),
        ({"run": {"name": "neighbours"}}, "'neighbours' is the teacher's name too"),
        ({"knowledge": {"name": "tables"}}, "'tables' is the tables's name too"),
    ],
)
def test_a_mistake_in_the_configs_is_named(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    path = write_configs(tmp_path, tmp_path, **changes)
    with pytest.raises(ConfigError) as error:
        load_run(path)
    assert says in str(error.value)
    assert len(str(error.value).splitlines()) == 1
