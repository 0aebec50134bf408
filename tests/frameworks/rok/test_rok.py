"""ROK: the teacher's hints, their imitation, and the student that carries the knowledge base."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from rich.console import Console
from typer.testing import CliRunner

from beam_pipelines.hints import write_hints
from beam_pipelines.transforms import model_inputs
from tests.conftest import world_config
from tests.serving.batching import BASIC, assert_merged_is_each
from tests.training import later_run
from tfctr.cli import app
from tfctr.config import ConfigError, load_run
from tfctr.data import Dataset
from tfctr.data.manifest import DataError, read_manifest
from tfctr.stages import Run, build

SOURCE = {"format": "world", "users": 60, "items": 50, "events": 4_000, "seed": 3}
ROK = {"name": "rok", "knowledge": "knowledge.yaml"}
QUICK = {"batch_size": 256, "epochs": 2, "optimizer": {"learning_rate": 0.01}}


def write_configs(folder: Path, **changes: dict[str, Any]) -> Path:
    """The path of a student's config, the others beside it; `changes` by file."""
    contents: dict[str, dict[str, Any]] = {
        "data": world_config(source=SOURCE).model_dump(mode="json"),
        "similar": {
            "name": "similar",
            "data": "data.yaml",
            "fields": ["item_id", "age_group"],
            "k": 3,
        },
        "rim": {
            "name": "rim",
            "frameworks": [{"name": "rim", "similar": "similar.yaml"}],
            "model": {"backbone": "rim", "embedding_dim": 4, "hidden_units": [16]},
            "training": QUICK,
        },
        "knowledge": {
            "name": "knowledge",
            "teacher": "rim.yaml",
            "embedding_dim": 4,
            "hidden_units": [32],
            "training": QUICK | {"epochs": 4},
        },
        "rok": {
            "name": "rok",
            "frameworks": [ROK],
            "model": {"backbone": "deepfm", "embedding_dim": 4, "hidden_units": [16]},
            "training": QUICK,
            "export": {"directory": str(folder / "saved_models")},
        },
    }
    for name, content in contents.items():
        text = yaml.safe_dump(content | changes.get(name, {}))
        (folder / f"{name}.yaml").write_text(text)
    return folder / "rok.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained student, in a folder with all that it was made from."""
    folder = tmp_path_factory.mktemp("rok")
    run = Run(load_run(write_configs(folder)), folder / "work", Console(quiet=True))
    run.prepare()
    run.train()
    return run


def test_hints_are_what_the_teacher_makes_of_each_row(run: Run) -> None:
    teacher = run.other(run.config.method("rok").knowledge.teacher)
    model, hints = teacher.load_model(), run.before["rok"]["hints"].path
    data = Dataset.open(run.data_folder, [run.work / "similar", hints])
    reads = list(model.reads)
    for split in ("train", "valid", "test"):
        columns = data.columns(split, [*reads, "hint"])
        expected = np.array(model.aggregate({name: columns[name] for name in reads}))
        np.testing.assert_allclose(
            columns["hint"], expected.reshape(len(expected), -1), atol=1e-6, rtol=1e-4
        )
    described = (read_manifest(hints / "manifest.json") or {})["splits"]["train"]
    train = data.columns("train", ["hint"])["hint"]
    np.testing.assert_allclose(described["mean"], train.mean(axis=0, dtype=float), atol=1e-6)
    np.testing.assert_allclose(described["std"], train.std(axis=0, dtype=float), atol=1e-5)


def test_hints_do_not_depend_on_how_many_rows_are_taught_at_a_time(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_inputs, "BATCH", 100)
    folders = [str(run.work / name) for name in ("rim/model.keras", "world", "similar")]
    write_hints(*folders, str(tmp_path / "hints"))
    found = Dataset.open(run.data_folder, [tmp_path / "hints"]).columns("valid", ["hint"])
    whole = Dataset.open(run.data_folder, [run.before["rok"]["hints"].path]).columns(
        "valid", ["hint"]
    )
    np.testing.assert_allclose(found["hint"], whole["hint"], atol=1e-6)


def test_stages_that_are_done_are_skipped(run: Run) -> None:
    paths = [
        run.folder / "model.keras",
        run.work / "knowledge" / "knowledge.keras",
        run.work / "rim" / "model.keras",
        run.work / "rim" / "hints" / "manifest.json",
        run.work / "similar" / "manifest.json",
    ]
    before = [path.stat().st_mtime_ns for path in paths]
    run.prepare()
    run.train()
    assert build(run.before["rok"]["knowledge"], run.console) == paths[1]
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_another_teacher_makes_another_student(run: Run, tmp_path: Path) -> None:
    path = write_configs(tmp_path, rim={"training": QUICK | {"seed": 2}})
    other = Run(load_run(path), run.work, Console(quiet=True))
    with pytest.raises(DataError, match="trained with another config or other data"):
        other.load_model()


def test_a_frozen_knowledge_base_is_the_trained_one(run: Run) -> None:
    trained = keras.models.load_model(run.work / "knowledge" / "knowledge.keras")
    student = run.load_model()
    for mine, theirs in zip(student.knowledge.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert not student.knowledge.trainable_variables
    assert student.backbone.trainable_variables


@pytest.mark.slow
def test_a_tuned_one_learns_on_and_one_without_losses_starts_at_random(tmp_path: Path) -> None:
    path = write_configs(
        tmp_path,
        knowledge={"imitation": 0.0, "contrastive": 0.0},
        rok={"frameworks": [ROK | {"tuned": True}]},
    )
    run = Run(load_run(path), tmp_path / "work", Console(quiet=True))
    run.prepare()
    run.train()
    assert run.load_model().knowledge.trainable_variables
    assert not (run.work / "rim" / "model.keras").exists()  # clicks alone need no teacher
    assert not (run.work / "knowledge").exists()


def test_a_knowledge_base_that_is_not_trained_is_known_by_its_config(tmp_path: Path) -> None:
    untrained, keys = {"imitation": 0.0, "contrastive": 0.0}, set()
    for width in (16, 32):
        path = write_configs(tmp_path, knowledge=untrained | {"hidden_units": [width]})
        keys.add(Run(load_run(path), tmp_path / "work").trained.key())
    assert len(keys) == 2


def test_the_student_is_served_without_pool_index_or_search(run: Run) -> None:
    data, student = Dataset.open(run.data_folder), run.load_model()
    version = run.export()
    served = tf.saved_model.load(str(version))
    inputs = served.signatures["serving_default"].structured_input_signature[1]
    assert set(inputs) == {feature.name for feature in data.schema.inputs}
    held = [shape for name, shape in tf.train.list_variables(str(version / "variables/variables"))]
    numbers = sum(int(np.prod(shape)) for shape in held if shape)
    assert numbers == student.count_params()
    added = sum(layer.count_params() for layer in (student.to_field, student.of_knowledge))
    parts = student.backbone.count_params() + student.knowledge.count_params()
    assert numbers == parts + added
    assert_merged_is_each(version, BASIC)


@pytest.mark.slow
def test_the_commands_do_all_of_it(tmp_path: Path) -> None:
    path, work = write_configs(tmp_path), ["--work", str(tmp_path / "work")]
    prepared = CliRunner().invoke(app, ["prepare", str(path), *work])
    assert prepared.exit_code == 0, prepared.output
    assert (tmp_path / "work" / "similar" / "manifest.json").is_file()
    done = CliRunner().invoke(app, ["run", str(path), *work])
    assert done.exit_code == 0, done.output
    for stage in ("retrieve is done", "train rim", "hints", "imitate", "train deepfm", "export"):
        assert stage in done.output, stage
    teacher = CliRunner().invoke(app, ["run", str(tmp_path / "rim.yaml"), *work])
    assert teacher.exit_code == 0, teacher.output
    assert "train is done" in teacher.output
    refused = CliRunner().invoke(app, ["export", str(tmp_path / "rim.yaml"), *work])
    assert refused.exit_code == 1
    assert "rim: rim reads side outputs, which a server does not have" in refused.output


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"knowledge": {"teacher": "plain.yaml"}},
            "knowledge.yaml: teacher: plain is no teacher; name a run with frameworks: [{name: rim",
        ),
        (
            {"rok": {"data": "other.yaml"}},
            "rok.yaml: data: 'other' is not the data of frameworks.rok.knowledge, 'world'",
        ),
        ({"rok": {"name": "knowledge"}}, "'knowledge' is the knowledge's name too"),
        (
            {"rok": {"frameworks": [ROK | {"use": ["all"]}]}},
            "rok.yaml: frameworks[0].use[0]: found 'all'; input should be 'instance' or 'feature'",
        ),
        (
            {"rok": {"frameworks": [{"name": "rok"}]}},
            "frameworks[0].knowledge: missing; it is required",
        ),
        ({"knowledge": {"mask_rate": 1}}, "mask_rate: found 1; input should be less than 1"),
    ],
)
def test_a_mistake_in_the_configs_is_named(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    path = write_configs(tmp_path, **changes)
    plain = {"name": "plain", "data": "data.yaml", "model": {"backbone": "lr"}}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(plain))
    other = world_config(name="other").model_dump(mode="json")
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(ConfigError) as error:
        load_run(path)
    assert says in str(error.value)


def test_who_is_given_similar_rows_has_to_read_them(tmp_path: Path) -> None:
    write_configs(tmp_path, rim={"model": {"backbone": "lr"}})
    with pytest.raises(ConfigError, match="found 'lr', which does not read the rows"):
        load_run(tmp_path / "rim.yaml")


def test_who_reads_similar_rows_has_to_be_given_them(run: Run, tmp_path: Path) -> None:
    write_configs(tmp_path, rim={"name": "alone", "frameworks": [], "data": "data.yaml"})
    alone = Run(load_run(tmp_path / "rim.yaml"), run.work, Console(quiet=True))
    with pytest.raises(ConfigError, match="alone: model: the backbone rim reads side outputs"):
        alone.train()


def test_a_student_goes_on_with_its_knowledge_base(run: Run, tmp_path: Path) -> None:
    start = {"name": "later", "starts_from": f"{run.work.parent}/rok.yaml"}
    path = write_configs(
        tmp_path,
        data={"name": "later-data", "source": later_run.LOG},
        similar={"name": "later-similar"},
        rim={"name": "later-rim"},
        knowledge={"name": "later-knowledge"},
        rok=start | {"training": later_run.TRAINING},
    )
    later = Run(load_run(path), run.work, Console(quiet=True))
    later.prepare()
    later.train()
    later_run.assert_carried_on(later, "knowledge", "item_id")
    made = {folder.name for folder in run.work.iterdir()}
    assert not made & {"later-rim", "later-knowledge"}  # nothing is trained before
