"""SRP4CTR from a log to two served models: what may come next, and how likely it is clicked."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from tests.conftest import WORLD_FEATURES, world_config
from tests.serving.batching import BASIC, assert_merged_is_each
from tests.training import later_run
from tfctr.cli import app
from tfctr.config import ConfigError, load_run
from tfctr.data import Dataset
from tfctr.data.raw_rows import raw_rows
from tfctr.frameworks.srp4ctr.next_item import next_item, without_latest
from tfctr.schema import FIRST_TOKEN_ID
from tfctr.serving import Client, Server, ServingError
from tfctr.serving.exporter.saved_model import model_key
from tfctr.stages import Run, create_model

pytestmark = pytest.mark.processes

LENGTH = 6
TRAINING = {
    "batch_size": 128,
    "epochs": 2,
    "in_memory": True,
    "optimizer": {"name": "lazy_adam", "learning_rate": 0.01, "encoder_rate": 0.5},
}


def write_configs(folder: Path, framework: dict[str, Any], **changes: Any) -> Path:
    source = {"format": "world", "users": 60, "items": 40, "events": 4_000, "seed": 3}
    histories = [
        {"name": "past_item", "kind": "history", "shares": "item_id", "max_length": LENGTH},
        {"name": "past_category", "kind": "history", "shares": "category", "max_length": LENGTH},
        {"name": "past_click", "kind": "history", "column": "click", "max_length": LENGTH},
    ]
    data = world_config(source=source, features=[*histories, *WORLD_FEATURES])
    contents = {
        "data": data.model_dump(mode="json", exclude_none=True),
        "sequences": {"name": "windows", "data": "data.yaml", "stride": 3},
        "encoder": {
            "name": "encoder",
            "sequences": "sequences.yaml",
            "dim": 8,
            "num_layers": 1,
            "training": TRAINING,
        },
        "run": {
            "name": "student",
            "frameworks": [{"name": "srp4ctr", "encoder": "encoder.yaml"} | framework],
            "model": {"backbone": "din", "embedding_dim": 4, "hidden_units": [16]},
            "training": TRAINING,
            "export": {"directory": str(folder / "saved_models")},
        }
        | changes,
    }
    for name, content in contents.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("two-stages")
    made = Run(load_run(write_configs(folder, {})), folder / "work", Console(quiet=True))
    made.prepare()
    made.train()
    made.evaluate()
    made.export()
    made.index(k=10)
    return made


@pytest.fixture(scope="module")
def address(run: Run) -> Iterator[str]:
    """Of a server of both models: to load and warm them up takes a while."""
    index = run.export_folder.with_name("student-candidates")
    models = {"student": run.export_folder, "next": index}
    with Server(models, grpc_port=0, rest_port=0) as server:
        yield f"127.0.0.1:{server.grpc_port}"


def _rows(run: Run, limit: int = 40) -> list[dict[str, Any]]:
    data = Dataset.open(run.data_folder)
    return raw_rows(run.config.data, data, "test", limit).to_pylist()


def _of(run: Run, *sides: str) -> list[str]:
    schema = Dataset.open(run.data_folder).schema
    return [feature.name for feature in schema.side(*sides)]


def test_the_student_starts_where_the_encoder_was_left(run: Run) -> None:
    left = run.before["srp4ctr"]["encoder"].load().encoder
    student = create_model(run.config, Dataset.open(run.data_folder).schema)
    student.build()
    run.config.method("srp4ctr").start(student, run.before["srp4ctr"])
    np.testing.assert_array_equal(student.encoder.places, left.places)
    np.testing.assert_array_equal(student.blocks[0].inner.kernel, left.blocks[0].inner.kernel)


def test_ranked_and_kept_users_have_the_scores_of_rows(run: Run, address: str) -> None:
    rows = _rows(run)
    once, items = _of(run, "user", "context"), _of(run, "item")
    candidates = {name: [row[name] for row in rows] for name in items}
    data = Dataset.open(run.data_folder)
    logits = run.load_model().predict(data.test(8192), verbose=0)[: len(rows)]
    with Client(address, "student") as client:
        scores = client.predict({n: [row[n] for row in rows] for n in (*once, *items)})
        np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-5)
        for row, length in zip(rows[::8], (0, 1, 3, LENGTH, LENGTH), strict=True):
            user = {name: row[name] for name in once}
            user |= {name: row[name][:length] for name in once if name.startswith("past_")}
            alone = client.predict({n: [user[n]] * len(rows) for n in once} | candidates)
            np.testing.assert_allclose(client.rank(user, candidates), alone, atol=1e-5)
            kept = client.encode_user(user)
            np.testing.assert_allclose(client.score(kept, candidates), alone, atol=1e-5)
        nobody = client.encode_user({})
        assert nobody["event_exists"].tolist() == [[0.0] * LENGTH]
        assert np.isfinite(client.score(nobody, candidates)).all()
        assert client.score(nobody, {"item_id": []}).shape == (0,)


def test_merged_requests_have_the_answers_of_each(run: Run) -> None:
    folder = run.export_folder
    assert_merged_is_each(folder / "1", BASIC | {"encode_user", "score"})
    index = folder.with_name("student-candidates") / "1"
    files = {"past_item": "item_id", "past_category": "category"}
    assert_merged_is_each(index, {"serving_default"}, files)


def test_a_user_kept_from_another_version_is_refused(run: Run, address: str) -> None:
    model = run.load_model()
    key = model_key(model)
    with Client(address, "student") as client:
        kept = client.encode_user({"user_id": 3})
        assert kept["model_key"].tolist() == [key]
        model.head.bias.assign_add([0.5])
        assert model_key(model) != key
        kept["model_key"][:] = model_key(model)
        with pytest.raises(ServingError, match="encoded by another version of the model"):
            client.score(kept, {"item_id": [1, 2]})


def test_the_index_gives_the_best_items_that_the_user_has_not_had(run: Run, address: str) -> None:
    model = run.before["srp4ctr"]["encoder"].load()
    data = Dataset.open(run.data_folder)
    tokens = [int(t) for t in data.vocabulary_file("item_id").read_text().split()]
    vectors = np.array(model.vectors("past_item"))
    columns = data.columns("test", list(model.reads))
    queries = np.array(model.queries(columns, "past_item"))
    with Client(address, "next") as client:
        for i, row in list(enumerate(_rows(run)))[::7]:
            had = {token - FIRST_TOKEN_ID for token in columns["past_item"][i]}
            logits = vectors @ queries[i]
            best = [j for j in np.argsort(-logits) if j not in had][:10]
            items, scores = client.recommend({name: row[name] for name in model.reads})
            assert items == [tokens[j] for j in best]
            np.testing.assert_allclose(scores, logits[best], atol=1e-4)
        items, _ = client.recommend({})  # a user without a history
        assert len(items) == 10
        with pytest.raises(ValueError, match="no history 'age_group' in the model; there are: pas"):
            client.recommend({"age_group": "18-24"})
        with pytest.raises(ValueError, match="is an index of items, which has no score of a row"):
            client.predict({"past_item": [[]]})
        history = {name: _rows(run)[0][name] for name in model.reads}
        items, scores = client.recommend(history)
    asked = ["predict", "next", "-", "--server", address]
    result = CliRunner().invoke(app, asked, input=json.dumps(history) + "\n")
    assert json.loads(result.stdout) == {"candidates": items, "scores": scores.tolist()}


def test_hit_rates_are_those_of_a_loop(run: Run) -> None:
    windows = Dataset.open(run.before["srp4ctr"]["sequences"].path)
    model = run.before["srp4ctr"]["encoder"].load()
    found = next_item(model, windows, "past_item")
    vectors = np.array(model.vectors("past_item"))
    ranks = []
    for features, _ in windows.valid(64, features=model.reads):
        before, latest = without_latest(model, features)
        queries = np.array(model.queries(before, "past_item"))
        for window, query, right, events in zip(
            features["past_item"].numpy(),
            queries,
            latest["past_item"].numpy(),
            before["past_item"].numpy(),
            strict=True,
        ):
            own = window[window != 0]
            assert right == own[-1]
            assert events.tolist() == [*own[:-1], *[0] * (LENGTH + 1 - len(own))]
            if right >= FIRST_TOKEN_ID:
                logits = vectors @ query
                ranks.append(int((logits > logits[right - FIRST_TOKEN_ID]).sum()) + 1)
    assert found["windows"] == len(ranks) > 10
    assert found["hit_rate_10"] == pytest.approx(np.mean([r <= 10 for r in ranks]))
    gains = [1 / np.log2(1 + r) if r <= 10 else 0.0 for r in ranks]
    assert found["ndcg_10"] == pytest.approx(np.mean(gains), rel=1e-5)


def test_stages_that_are_done_are_skipped(run: Run) -> None:
    paths = [p for p in run.work.rglob("*") if p.is_file()]
    before = {path: path.stat().st_mtime_ns for path in paths}
    run.prepare()
    run.train()
    run.evaluate()
    assert run.index(k=10).name == "1"
    assert {path: path.stat().st_mtime_ns for path in paths} == before


def test_students_share_an_encoder_and_differ_in_the_rest(run: Run) -> None:
    frozen = run.config.method("srp4ctr").model_copy(update={"frozen": "all"})
    other = run.config.model_copy(update={"frameworks": (frozen,), "name": "frozen"})
    second = Run(other, run.work, Console(quiet=True))
    keys = [of.before["srp4ctr"]["encoder"].key() for of in (run, second)]
    assert keys[0] == keys[1]
    assert second.trained.key() != run.trained.key()


def test_the_command_says_what_is_wrong(run: Run, tmp_path: Path) -> None:
    path = write_configs(tmp_path, {"pretrained": False})
    plain = Run(load_run(path), run.work, Console(quiet=True))
    with pytest.raises(ConfigError, match="none of its methods pre-trains a sequence encoder"):
        plain.index()
    with pytest.raises(ConfigError, match=r"k: found 100; \d+ items, less a history of 6, leave"):
        run.index(k=100)
    with pytest.raises(ConfigError, match="scann"):
        run.index(k=5, search="scann")
    result = CliRunner().invoke(app, ["index", str(path), "--search=best"])
    assert result.exit_code == 1
    write_configs(tmp_path, {"frozen": "some"})
    with pytest.raises(ConfigError, match=r"frameworks\[0\].frozen: found 'some'; .*'embeddings'"):
        load_run(path)
    (tmp_path / "run.yaml").write_text(
        "{name: encoder, model: {backbone: din}, "
        "frameworks: [{name: srp4ctr, encoder: encoder.yaml}]}"
    )
    with pytest.raises(ConfigError, match="'encoder' is the encoder's name too"):
        load_run(path)


def test_sequences_by_command(run: Run, tmp_path: Path) -> None:
    write_configs(tmp_path, {})
    file = str(tmp_path / "sequences.yaml")
    result = CliRunner().invoke(app, ["sequences", file, f"--work={tmp_path}"])
    assert result.exit_code == 0, result.output
    assert "events in" in result.output
    assert (tmp_path / "windows" / "manifest.json").is_file()


@pytest.mark.slow
def test_a_student_goes_on_with_its_encoder(run: Run, tmp_path: Path) -> None:
    start = {"name": "later", "starts_from": f"{run.work.parent}/run.yaml"}
    path = write_configs(tmp_path, {}, **start, training=later_run.TRAINING)
    for file, change in {
        "data": {"name": "later-data", "source": later_run.LOG},
        "encoder": {"name": "later-encoder"},
    }.items():
        content = yaml.safe_load((tmp_path / f"{file}.yaml").read_text()) | change
        (tmp_path / f"{file}.yaml").write_text(yaml.safe_dump(content))
    later = Run(load_run(path), run.work, Console(quiet=True))
    later.prepare()
    later.train()
    later_run.assert_carried_on(later, "encoder", "past_item")
    assert not (run.work / "later-encoder").exists()  # nothing is trained before
