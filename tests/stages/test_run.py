"""The stages of a run: what they leave, what they skip, and that nothing is lost on the way."""

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import yaml
from rich.console import Console
from typer.testing import CliRunner

from tests.conftest import world_config
from tfctr import metrics
from tfctr.cli import app
from tfctr.config import ConfigError, RunConfig, load_run
from tfctr.data.dataset import Dataset
from tfctr.data.manifest import DataError
from tfctr.data.raw_rows import raw_rows
from tfctr.serving import Client, Server
from tfctr.stages import Prepare, Run, in_order, prepare, print_plan
from tfctr.training import loop as training

CONFIGS = Path(__file__).parents[2] / "configs"


def write_config(folder: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "name": "run",
        "data": world_config().model_dump(mode="json"),
        "model": {"backbone": "deepfm", "embedding_dim": 4, "hidden_units": [16]},
        "training": {"batch_size": 2048, "epochs": 2, "optimizer": {"learning_rate": 0.01}},
        "export": {"directory": str(folder / "saved_models")},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        inner = content
        for part in parents:
            inner = inner.setdefault(part, {})
        inner[last] = value
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run_in(folder: Path, **changes: Any) -> Run:
    return Run(load_run(write_config(folder, **changes)), folder / "work", Console(quiet=True))


def do(run: Run) -> None:
    run.prepare()
    run.train()
    run.evaluate()
    run.export()


def times(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name != "run.yaml"
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    do(run_in(folder))
    return folder


def test_two_that_prepare_the_same_make_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, inner, made = load_run(write_config(tmp_path)).data, Prepare.make, []

    def slowly(*args: Any) -> Any:
        made.append(args)
        time.sleep(0.5)  # the other has begun
        return inner(*args)

    monkeypatch.setattr(Prepare, "make", slowly)
    printed = [io.StringIO(), io.StringIO()]
    with ThreadPoolExecutor(2) as pool:
        folder = tmp_path / "work" / "world"
        first, second = pool.map(
            lambda out: prepare(config, folder, console=Console(file=out)), printed
        )
    assert first == second
    assert len(made) == 1
    said = sorted("waits for another process" in out.getvalue() for out in printed)
    assert said == [False, True]
    assert {p.name for p in (tmp_path / "work").iterdir()} == {"world", ".world.lock"}


def test_two_that_train_the_same_train_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [run_in(tmp_path) for _ in range(2)]
    runs[0].prepare()
    inner, made = training.train, []

    def slowly(*args: Any) -> Any:
        made.append(args)
        time.sleep(0.5)  # the other has begun
        return inner(*args)

    monkeypatch.setattr(training, "train", slowly)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda run: run.train(), runs)
    assert first == second
    assert len(made) == 1
    assert runs[0].load_model().count_params() > 0


def test_a_run_leaves_its_artefacts_and_nothing_else(done: Path) -> None:
    found = sorted(path.name for path in (done / "work" / "run").iterdir())
    assert found == [
        "evaluate.json",
        "export.json",
        "metrics.json",
        "model.keras",
        "test.parquet",
        "train.json",
        "valid.parquet",
        "vocabularies",
    ]
    work = [".run.lock", ".world-baselines.lock", ".world.lock", "run", "world", "world-baselines"]
    assert sorted(p.name for p in (done / "work").iterdir()) == work
    assert [p.name for p in (done / "saved_models" / "run").iterdir()] == ["1"]


def test_metrics_are_those_of_the_saved_model(done: Path) -> None:
    written = json.loads((done / "work" / "run" / "metrics.json").read_text())
    assert set(written) == {"valid", "test"}
    run = run_in(done)
    model, data = run.load_model(), Dataset.open(run.data_folder)
    logits = model.predict(data.test(777), verbose=0)
    columns = data.columns("test", ["label", "user_key", "user_id", "item_id"])
    test = written["test"]
    assert test["auc"] == pytest.approx(metrics.auc(columns["label"], logits), abs=1e-6)
    gauc = metrics.gauc(columns["label"], logits, columns["user_key"])
    assert test["gauc"] == pytest.approx(gauc, abs=1e-6)
    assert test["log_loss"] == pytest.approx(metrics.log_loss(columns["label"], logits), abs=1e-6)
    assert test["segments"]["unseen_users"]["rows"] == (columns["user_id"] == 1).sum() > 0
    assert test["segments"]["unseen_items"]["rows"] == (columns["item_id"] == 1).sum() > 0
    kept = pq.read_table(done / "work" / "run" / "test.parquet")
    np.testing.assert_allclose(kept["logit"], logits, atol=1e-5)
    for name in ("label", "user_key"):
        assert kept[name].to_pylist() == columns[name].tolist()
    assert np.array_equal(kept["unseen_users"], columns["user_id"] == 1)
    assert set(test["segments"]) == set(kept.column_names) - {"label", "user_key", "logit"}
    trained = data.columns("train", ["item_id"])["item_id"]
    times = {item: (trained == item).sum() for item in set(trained) if item >= 3}
    rare, rows = set(), 0
    for item in sorted(times, key=lambda item: (times[item], item)):
        rows += times[item]
        if rows <= 0.1 * sum(times.values()):
            rare.add(item)
    found = test["segments"]["rare_items"]["rows"]
    assert found == sum(item in rare for item in columns["item_id"]) > 0
    assert test["auc"] > 0.6


def test_predictions_are_those_of_the_evaluation(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "done")
    before = times(tmp_path / "done")
    run = run_in(tmp_path / "done", predictions=True)
    run.evaluate()
    after = times(tmp_path / "done")
    assert {**after, **before} == after  # nothing was made again
    files = ["predictions.json", "predictions/test.parquet", "predictions/valid.parquet"]
    assert sorted(after.keys() - before.keys()) == [f"work/run/{name}" for name in files]
    for split in ("valid", "test"):
        found = pq.read_table(run.predictions.path / f"{split}.parquet")
        evaluated = pq.read_table(run.folder / f"{split}.parquet")
        raw = raw_rows(run.config.data, Dataset.open(run.data_folder), split, len(found))
        for name, column in {"user": "user_id", "item": "item_id", "row_id": "row_id"}.items():
            assert found[name].to_pylist() == raw[column].to_pylist()
        assert found["time"].equals(raw["time"])
        assert found["label"].to_pylist() == evaluated["label"].to_pylist()
        expected = 1 / (1 + np.exp(-evaluated["logit"].to_numpy()))
        np.testing.assert_allclose(found["probability"], expected, atol=1e-6)
    run.evaluate()
    assert times(tmp_path / "done") == after


def test_a_second_run_does_nothing(done: Path) -> None:
    before = times(done)
    do(run_in(done))
    assert times(done) == before


@pytest.mark.slow
def test_a_changed_model_is_trained_on_the_same_data(done: Path) -> None:
    before = times(done / "work" / "world")
    first = json.loads((done / "work" / "run" / "train.json").read_text())
    do(run_in(done, model__embedding_dim=2))
    second = json.loads((done / "work" / "run" / "train.json").read_text())
    assert times(done / "work" / "world") == before
    assert second["parameters"] < first["parameters"]
    assert sorted(p.name for p in (done / "saved_models" / "run").iterdir()) == ["1", "2"]
    do(run_in(done))  # back again, for the other tests
    third = json.loads((done / "work" / "run" / "train.json").read_text())
    drop = ("seconds",)
    clean = [
        [{k: v for k, v in e.items() if k not in drop} for e in t["epochs"]] for t in (first, third)
    ]
    assert clean[0] == clean[1]  # the same seed, the same numbers


@pytest.mark.slow
def test_changed_data_are_prepared_again_and_the_model_trained_again(tmp_path: Path) -> None:
    do(run_in(tmp_path, training__epochs=1))
    before = times(tmp_path / "work")
    run = run_in(tmp_path, training__epochs=1, data__split={"valid": 0.2, "test": 0.1})
    run.prepare()
    assert run.train().stat().st_mtime_ns > before["run/model.keras"]
    assert Dataset.open(run.data_folder).num_rows("valid") == pytest.approx(4000, abs=20)


def test_worse_than_the_base_rate_is_a_warning_that_names_the_split(tmp_path: Path) -> None:
    run = run_in(tmp_path, training__epochs=1)
    run.prepare()
    path, printed = run.train(), io.StringIO()
    run.console = Console(file=printed, width=80)
    run.evaluate()
    assert "normalised entropy" not in printed.getvalue()
    model = run.load_model()
    model.head.bias.assign([3.0])  # it promises far too many clicks
    model.save(path)
    (run.folder / "evaluate.json").unlink()
    metrics_path = run.evaluate()
    entropy = json.loads(metrics_path.read_text())["valid"]["normalized_entropy"]
    expected = f"warning: valid: normalised entropy {entropy:.4f} is above 1, worse than"
    lines = printed.getvalue().splitlines()
    assert [line for line in lines if line.startswith(expected)]
    assert sum("test: normalised entropy" in line and "log_loss" in line for line in lines) == 1
    run.evaluate()  # is done, and says so again
    assert printed.getvalue().count(expected) == 2


@pytest.mark.slow
def test_a_run_without_test_rows_is_evaluated_on_validation_rows(tmp_path: Path) -> None:
    config = write_config(tmp_path, training__epochs=1, data__split={"valid": 0.2, "test": 0})
    result = CliRunner().invoke(app, ["run", str(config), "--work", str(tmp_path / "work")])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "work" / "run" / "metrics.json").read_text())
    assert list(written) == ["valid"]


def test_what_a_stage_reads_is_built_before_it(tmp_path: Path) -> None:
    run = run_in(tmp_path, training__epochs=1)
    with pytest.raises(DataError, match="no trained model; run `tfctr train` first"):
        run.load_model()
    names = [stage.name for stage in in_order(run.exported)]
    assert names == ["prepare", "train", "export"]
    assert not any(stage.is_done() for stage in in_order(run.exported))
    run.evaluate()
    assert [stage.is_done() for stage in in_order(run.exported)] == [True, True, False]
    out = io.StringIO()
    print_plan(run.exported, Console(file=out))
    assert [line.split()[:2] for line in out.getvalue().splitlines()] == [
        ["done", "prepare"],
        ["done", "train"],
        ["build", "export"],
    ]


@pytest.mark.slow
def test_what_another_config_left_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    """Else its metrics would stand as this config's."""
    first = run_in(tmp_path, training__epochs=1)
    first.evaluate()
    metrics_of_first = first.evaluated.path.read_bytes()
    other_model = run_in(tmp_path, training__epochs=1, model__embedding_dim=2)
    with pytest.raises(DataError, match="with another config or other data; run `tfctr train`"):
        other_model.load_model()
    other_model.evaluate()
    assert other_model.load_model().embedding_dim == 2
    assert first.evaluated.path.read_bytes() != metrics_of_first
    other_data = run_in(tmp_path, training__epochs=1, data__split={"valid": 0.2, "test": 0.1})
    assert not other_data.dataset.is_done()
    assert not other_data.trained.is_done()
    with pytest.raises(DataError, match="not there as configured; run `tfctr prepare`"):
        other_data.open_data()
    first.evaluate()  # again, and with the same result
    assert first.evaluated.path.read_bytes() == metrics_of_first


def three_ways(run: Run, rows: int) -> np.ndarray:
    """Scores `[3, rows]` of raw test rows: from `evaluate`, from the SavedModel, by a server."""
    data = Dataset.open(run.data_folder)
    model = run.load_model()
    raw = raw_rows(run.config.data, data, "test", rows)
    columns = data.columns("test", ["row_id", "label"])
    assert raw["row_id"].to_pylist() == columns["row_id"][:rows].tolist()
    assert raw["label"].to_pylist() == columns["label"][:rows].tolist()
    logits = model.predict(data.test(1024).take(-(-rows // 1024)), verbose=0)[:rows]
    evaluated = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    features = {f.name: raw[f.name].to_pylist() for f in model.schema.inputs}
    folder = run.export_folder
    with (
        Server({"model": folder}, grpc_port=0, rest_port=0) as server,
        Client(f"127.0.0.1:{server.grpc_port}", "model", timeout=60) as client,
    ):
        served = client.predict(features)
    newest = max(int(p.name) for p in folder.iterdir())
    loaded = tf.saved_model.load(str(folder / str(newest)))
    signature = loaded.signatures["examples"]
    examples = [_example(model.schema, features, i) for i in range(rows)]
    direct = signature(examples=tf.constant(examples))["scores"].numpy()
    return np.stack([evaluated, direct, served])


def _example(schema: Any, features: dict[str, list[Any]], i: int) -> bytes:
    """A raw row as a `tf.Example`; a missing value is left out."""
    example = tf.train.Example()
    for feature in schema.inputs:
        value = features[feature.name][i]
        values = [] if value is None else value if isinstance(value, list) else [value]
        if not values:
            continue
        target = example.features.feature[feature.name]
        if isinstance(values[0], str):
            target.bytes_list.value.extend(v.encode() for v in values)
        elif isinstance(values[0], float):
            target.float_list.value.extend(values)
        else:
            target.int64_list.value.extend(values)
    return example.SerializeToString()


def test_no_skew_between_evaluation_saved_model_and_server(done: Path) -> None:
    scores = three_ways(run_in(done), 2000)
    assert np.abs(scores - scores[0]).max() < 1e-5
    assert scores.std() > 0.01


@pytest.mark.slow
def test_no_skew_on_ten_thousand_rows_of_movielens(data_home: Path, tmp_path: Path) -> None:
    config = load_run(CONFIGS / "movielens-1m" / "dcnv2.yaml").model_dump()
    config["data"]["directory"] = str(CONFIGS)
    config["training"] |= {"epochs": 1, "batch_size": 16384}
    config["model"] |= {"hidden_units": [16], "num_cross_layers": 1}
    config["export"] = {"directory": str(tmp_path / "saved_models")}
    run = Run(RunConfig.model_validate(config), tmp_path / "work", Console(quiet=True))
    run.prepare()
    run.train()
    run.export()
    scores = three_ways(run, 10_000)
    assert np.abs(scores - scores[0]).max() < 1e-5
    assert scores.std() > 0.01


@pytest.mark.slow
def test_the_command_runs_everything_and_ends_with_table_path_and_request(tmp_path: Path) -> None:
    config = write_config(tmp_path, training__epochs=1)
    result = CliRunner().invoke(app, ["run", str(config), "--work", str(tmp_path / "work")])
    assert result.exit_code == 0, result.output
    for expected in (
        "test / unseen",
        "saved_models/run/1",
        "metrics.json",
        "best possible",
        "click probability",
    ):
        assert expected in result.output


def test_a_run_without_features_of_items_ends_with_scored_rows(tmp_path: Path) -> None:
    config = write_config(tmp_path, training__epochs=1, model__features=["age_group", "hour"])
    result = CliRunner().invoke(app, ["run", str(config), "--work", str(tmp_path / "work")])
    assert result.exit_code == 0, result.output
    assert re.search(r"age_group.+hour.+click probability", result.output)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model__backbone": "dnc"}, "backbone: found 'dnc'; allowed: autoint, bst,"),
        ({"model__hidden": [3]}, "deepfm: unknown key 'hidden'; allowed: embedding_dim,"),
        ({"model__features": ["hour", "colour"]}, "no feature 'colour'; there are: user_id,"),
        ({"model__hidden_units": ["a"]}, "expected a positive integer. Received: units=a"),
        (
            {"model": {"backbone": "din"}},
            "a sequence of side user that shares a categorical feature of side item is needed",
        ),
    ],
)
def test_a_model_that_cannot_be_is_one_line_before_anything_is_made(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    run = run_in(tmp_path, **changes)
    for request in (run.prepare, run.train, run.evaluate, run.export):
        with pytest.raises(ConfigError, match=r"^run: model: ") as caught:
            request()
        assert says in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("command", ["run", "prepare", "train", "evaluate", "export"])
def test_a_commands_error_is_a_line_and_an_exit_status(tmp_path: Path, command: str) -> None:
    result = CliRunner().invoke(app, [command, str(tmp_path / "no.yaml")])
    assert result.exit_code == 1
    assert "no.yaml: no such file" in result.output
    assert "Traceback" not in result.output


def test_predict_scores_json_lines_by_a_running_server(done: Path, tmp_path: Path) -> None:
    run = run_in(done)
    data = Dataset.open(run.data_folder)
    raw = raw_rows(run.config.data, data, "test", 5)
    names = [feature.name for feature in data.schema.inputs]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in raw.select(names).to_pylist()))
    with Server({"run": run.export_folder}, grpc_port=0, rest_port=0) as server:
        address = f"127.0.0.1:{server.grpc_port}"
        result = CliRunner().invoke(app, ["predict", "run", str(rows), "--server", address])
        table = tmp_path / "rows.csv"
        table.write_text(as_csv(raw.select(names).to_pylist()))
        of_table = CliRunner().invoke(app, ["predict", "run", str(table), "--server", address])
        lines = ["\ufeff" + rows.read_text().splitlines()[0], "{", '{"colour": "red"}', "", "[1]"]
        lines += ['{"hour": "x"}', '{"hour": 3, "colour": "red"}']
        asked = ["predict", "run", "-", "--server", address]
        mixed = CliRunner().invoke(app, asked, input="\n".join(lines))
        joined = [*asked, "--config", str(done / "run.yaml")]
        lines = [json.dumps({"page": 1} | row) for row in raw.select(KEYS).to_pylist()]
        lines.insert(1, '{"user_id": 1.5}')
        of_keys = CliRunner().invoke(app, joined, input="\n".join(lines))
        (tmp_path / "keys.csv").write_text("item_id,user_id\n3.0,7\n3,-7\n")
        joined[2] = str(tmp_path / "keys.csv")
        without_hour = CliRunner().invoke(app, joined)
        without_tables = CliRunner().invoke(app, joined[:-2])
        (tmp_path / "keys.csv").write_text("price\n3.0\n")
        without_key = CliRunner().invoke(app, joined)
    scores = [json.loads(line)["score"] for line in result.stdout.splitlines()]
    logits = run.load_model().predict(data.test(5).take(1), verbose=0)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-5)
    again = [json.loads(line)["score"] for line in of_table.stdout.splitlines()]
    np.testing.assert_allclose(again, scores, atol=1e-6)
    answers = [json.loads(line) for line in mixed.stdout.splitlines()]
    assert answers[0]["score"] == pytest.approx(scores[0], abs=1e-6)
    assert [answer.get("error", "")[:35] for answer in answers[1:]] == [
        "line 2: not JSON: Expecting propert",
        "line 3: no feature 'colour' in the ",
        "line 5: found [1]; give an object o",
        "line 6: feature 'hour' takes int64,",
        "",
    ]
    found = [json.loads(line) for line in of_keys.stdout.splitlines()]
    assert found.pop(1) == {"error": "line 2: user_id: not a 64-bit integer"}
    np.testing.assert_allclose([line["score"] for line in found], scores, atol=1e-6)
    assert "columns that no feature reads are ignored: page" in of_keys.stderr
    assert "no row has" not in of_keys.stderr
    assert "no row has hour: scored as missing\n" in without_hour.stderr
    names = "account_age_days, age_group, category, hour, price, tags"
    way_out = "--config joins the tables of a data config"
    assert f"no row has {names}: scored as missing; {way_out}" in without_tables.stderr
    assert "1 rows have no match in source.users: scored as missing\n" in without_hour.stderr
    assert without_hour.stdout.splitlines()[0] != without_tables.stdout.splitlines()[0]
    assert "no column 'user_id', the key of source.users; columns: price" in without_key.stderr
    assert mixed.exit_code == 1
    assert "-: 4 rows were not scored" in mixed.stderr
    assert "model 'run' has no feature 'colour': ignored" in mixed.stderr


KEYS = ["user_id", "hour", "item_id"]  # what the log has; the rest is in the joined tables


def as_csv(rows: list[dict[str, Any]]) -> str:
    """As a log has it: lists are joined, a missing value is empty."""

    def text(value: Any) -> str:
        return "|".join(map(str, value)) if isinstance(value, list) else str(value)

    lines = [",".join(rows[0])]
    lines += [",".join("" if v is None else text(v) for v in row.values()) for row in rows]
    return "\n".join(lines) + "\n"


def test_serve_says_what_is_wrong_with_a_folder_and_answers_from_a_good_one(
    done: Path, tmp_path: Path
) -> None:
    missing = CliRunner().invoke(app, ["serve", str(tmp_path / "none")])
    empty = CliRunner().invoke(app, ["serve", str(tmp_path), "--port", "0", "--rest-port", "0"])
    assert missing.exit_code == empty.exit_code == 1
    assert "no such folder" in missing.output
    assert "Traceback" not in empty.output
    command = [sys.executable, "-m", "tfctr.cli", "serve", str(done / "saved_models" / "run")]
    with subprocess.Popen(
        [*command, "--port", "0", "--rest-port", "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "REST on" in line)
            url = line.split("REST on ")[1].strip()
            with urllib.request.urlopen(url, timeout=10) as answer:
                status = json.load(answer)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert status["model_version_status"][0]["state"] == "AVAILABLE"
