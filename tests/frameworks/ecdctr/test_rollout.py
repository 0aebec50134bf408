"""Rollouts: a day at a time or all at once, interrupted, with days that are missing or late."""

import datetime
import io
import json
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from tests.conftest import WORLD_FEATURES
from tests.serving.batching import BASIC, assert_merged_is_each
from tfctr.cli import app
from tfctr.config import ConfigError
from tfctr.data import World
from tfctr.data.day_log import DayLog
from tfctr.data.manifest import read_manifest
from tfctr.data.snapshots import Snapshot
from tfctr.frameworks.ecdctr import rollout as rollout_module
from tfctr.frameworks.ecdctr.commands import MISSING_DAY
from tfctr.frameworks.ecdctr.config import load_rollout
from tfctr.frameworks.ecdctr.rollout import Rollout
from tfctr.frameworks.ecdctr.schedule import State, due
from tfctr.schema import MISSING_INT
from tfctr.serving import Client, Server

FIRST = datetime.date(2024, 1, 1)
WORLD = {"users": 80, "items": 40, "events": 9_000, "days": 12, "ads_share": 0.3, "seed": 5}
DOMAIN = {"name": "domain", "kind": "categorical", "side": "context"}
TRAINING = {
    "batch_size": 256,
    "epochs": 1,
    "in_memory": True,
    "optimizer": {"name": "lazy_adam", "learning_rate": 0.01, "embedding_l2": 0.001},
}
SMALL = {"backbone": "dnn", "embedding_dim": 4, "hidden_units": [8]}


def day(number: int) -> datetime.date:
    """The day of that number in the log, from 1."""
    return FIRST + datetime.timedelta(days=number - 1)


def write_configs(folder: Path, **changes: Any) -> Path:
    """Served from the 6th day to the 9th; the tiny model every two days, the complete one every
    three."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "name": "data",
        "source": {"format": "world"} | WORLD,
        "label": {"column": "click"},
        "time": {"column": "timestamp"},
        "user": "user_id",
        "item": "item_id",
        "features": [*WORLD_FEATURES, DOMAIN],
    } | changes.pop("data", {})
    days = {
        "name": "days",
        "data": data,
        "domain": {"feature": "domain"},
        "first": FIRST,
        "measured_days": 4,
    } | changes.pop("days", {})
    content = {
        "name": "ads",
        "days": "days.yaml",
        "start": day(6),
        "end": day(9),
        "model": SMALL | {"batch_norm": True},
        "tiny": {"model": SMALL, "training": TRAINING, "every": 2, "snapshots": 2},
        "complete": {"training": TRAINING, "every": 3, "window": 4},
        "ads": {"training": TRAINING, "window": 3},
        "inactive_days": 2,
        "export": None,
    } | changes
    (folder / "days.yaml").write_text(yaml.safe_dump(days))
    (folder / "rollout.yaml").write_text(yaml.safe_dump(content))
    return folder / "rollout.yaml"


def rollout(folder: Path, **changes: Any) -> Rollout:
    config = load_rollout(write_configs(folder, **changes))
    return Rollout(config, folder / "work", Console(quiet=True))


def steps(made: Rollout) -> dict[str, dict[str, Any]]:
    """What is said of each step, without how long it took."""
    found = {}
    for path in sorted((made.folder / "days").glob("*/step.json")):
        about = read_manifest(path) or {}
        found[path.parent.name] = {k: v for k, v in about.items() if k != "seconds"}
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Rollout:
    folder = tmp_path_factory.mktemp("rollout")
    made = rollout(folder, export={"directory": str(folder / "saved_models")})
    assert made.run() is None
    return made


def test_each_day_trains_what_is_due(whole: Rollout) -> None:
    found = steps(whole)
    assert [*found] == [str(day(n)) for n in range(5, 10)]
    log = DayLog.open(whole.log_folder)

    def rows(domain: str, *numbers: int) -> int:
        return sum(log.rows(day(n), domain) for n in numbers)

    organic, ads = "organic", "ads"
    assert found[str(day(5))]["rows_read"] == {
        "tiny": rows(organic, 1, 2, 3, 4),
        "complete": rows(organic, 2, 3, 4, 5),
        "ads": rows(ads, 3, 4, 5),
    }
    assert "metrics" not in found[str(day(5))]
    assert found[str(day(6))]["rows_read"] == {"tiny": rows(organic, 5, 6), "ads": rows(ads, 6)}
    assert found[str(day(7))]["rows_read"] == {"ads": rows(ads, 7)}
    assert found[str(day(8))]["rows_read"] == {
        "tiny": rows(organic, 7, 8),
        "complete": rows(organic, 5, 6, 7, 8),
        "ads": rows(ads, 6, 7, 8),
    }
    assert found[str(day(9))]["rows_read"] == {"ads": rows(ads, 9)}
    for n in range(6, 10):
        assert found[str(day(n))]["metrics"]["rows"] == rows(ads, n)
    joined = {
        n: read_manifest(whole.folder / "joined" / str(day(n)) / "manifest.json") for n in (2, 3, 8)
    }
    ends = {n: [end for end, _ in found["snapshots"]] for n, found in joined.items() if found}
    assert ends == {2: [], 3: [str(day(3))], 8: [str(day(7)), str(day(5))]}


def test_a_plan_says_what_is_trained(whole: Rollout, tmp_path: Path) -> None:
    before = State()
    for name, about in steps(whole).items():
        words, after = due(whole.config, before, datetime.date.fromisoformat(name))
        planned = {word.split()[0].rstrip(",") for word in words} - {"evaluate", "export"}
        assert planned == set(about["rows_read"])
        assert ("evaluate" in words) == ("metrics" in about)
        before = State(**about["state"])
        assert [*after.snapshots] == [*before.snapshots]
        assert after.complete_until == before.complete_until
    command = ["rollout", str(whole.folder.parents[1] / "rollout.yaml"), "--plan"]
    command += ["--through", str(day(11)), "--work", str(whole.folder.parent)]
    lines = CliRunner().invoke(app, command, env={"COLUMNS": "500"}).output.splitlines()
    assert [line.split()[:2] for line in lines[:5]] == [["done", d] for d in steps(whole)]
    assert lines[5:] == [
        f"build {day(10)} evaluate; tiny on {day(9)} to {day(10)}; ads, trained on; export",
        f"build {day(11)} evaluate; complete; ads from complete; export",
    ]
    nothing_done = CliRunner().invoke(app, [*command[:-1], str(tmp_path)], env={"COLUMNS": "500"})
    assert nothing_done.output.count("build") == 7


def test_a_second_run_does_nothing(whole: Rollout) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.folder.rglob("*") if path.is_file()}
    assert whole.run() is None
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(before) == len([path for path in whole.folder.rglob("*") if path.is_file()])


@pytest.mark.slow
def test_a_day_at_a_time_is_all_at_once(whole: Rollout, tmp_path: Path) -> None:
    made = rollout(tmp_path)
    for number in (5, 6, 6, 7):
        assert made.run(day(number)) is None
    _assert_same(steps(made), steps(whole), days=3)


@pytest.mark.slow
def test_a_day_in_a_process_of_its_own(tmp_path: Path) -> None:
    """As a scheduler starts it: nothing has imported the classes of the model that is loaded."""
    made = rollout(tmp_path, tiny=None, complete=None)
    assert made.run(day(5)) is None
    arguments = ["rollout", str(tmp_path / "rollout.yaml"), "--through", str(day(6))]
    command = [sys.executable, "-c", "from tfctr.cli import app; app()", *arguments]
    done = subprocess.run(
        [*command, "--work", str(made.folder.parent)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(steps(made)) == 2


def _assert_same(found: dict[str, Any], expected: dict[str, Any], days: int) -> None:
    assert [*found] == [*expected][:days]
    for name, about in found.items():
        assert about.get("metrics") == expected[name].get("metrics")
        assert about["rows_read"] == expected[name]["rows_read"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["_train_ads", "_take_snapshot", "_join"])
def test_an_interrupted_rollout_ends_as_one_that_was_not(
    whole: Rollout, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, calls = rollout(tmp_path), 0
    inner = getattr(rollout_module._Step, stage)

    def stops(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return inner(*args)

    with monkeypatch.context() as patched:
        patched.setattr(rollout_module._Step, stage, stops)
        with pytest.raises(KeyboardInterrupt):
            made.run(day(6))
    assert len(steps(made)) < 2
    assert made.run(day(6)) is None
    _assert_same(steps(made), steps(whole), days=2)


@pytest.mark.slow
def test_another_config_starts_anew(tmp_path: Path) -> None:
    made = rollout(tmp_path, end=day(6), tiny=None)
    made.run()
    first = steps(made)
    changed = rollout(tmp_path, end=day(6), tiny=None, inactive_days=3)
    changed.run()
    assert [*steps(changed)] == [*first]
    assert steps(changed)[str(day(5))]["state"]["key"] != first[str(day(5))]["state"]["key"]
    longer = rollout(tmp_path, end=day(7), tiny=None, inactive_days=3)
    longer.run()
    assert [*steps(longer)] == [*first, str(day(7))]


def test_the_served_version_has_the_scores_that_are_evaluated(whole: Rollout) -> None:
    """Raw rows of a day, asked from the version that was served on it, and the day's metrics."""
    from tfctr.data.days import DaysDataset
    from tfctr.serving.model_directory import versions

    assert whole.export_folder is not None
    log, after = DayLog.open(whole.log_folder), steps(whole)[str(day(8))]["state"]
    data = DaysDataset(log, {"test": [(day(9), "ads")]}, after["through"], whole.folder / "joined")
    model = keras.models.load_model(whole.folder / after["ads"], compile=False)
    logits = model.predict(data.test(4096, features=model.reads), verbose=0)
    places = data.columns("test", ["row_id"])["row_id"]
    world = World(80, 40, 9_000, seed=5, days=12, ads_share=0.3)
    table = world.events(0, 9_000).take(places)
    users, items = world.users().to_pylist(), world.items().to_pylist()
    rows = [
        {**row, **users[row["user_id"] - 1], **items[row["item_id"] - 1]}
        for row in table.to_pylist()
    ]
    names = [feature.name for feature in data.schema.inputs]
    version = versions(whole.export_folder)[4]  # the one that was made on the 8th
    assert str(version) == after["version"]
    server = Server({"ads": whole.export_folder}, grpc_port=0, rest_port=0)
    with server, Client(f"127.0.0.1:{server.grpc_port}", "ads") as client:
        columns = {name: [row[name] for row in rows] for name in names}
        columns["tags"] = [tags[: data.schema["tags"].max_length] for tags in columns["tags"]]
        latest = client.predict(columns)
        ranked = client.rank(
            {f.name: rows[0][f.name] for f in data.schema.side("user", "context")},
            {f.name: [rows[0][f.name]] for f in data.schema.side("item")},
        )
    np.testing.assert_allclose(ranked, latest[:1], atol=1e-5)
    import tensorflow as tf

    served = tf.saved_model.load(str(version)).signatures["serving_default"]
    kinds = served.structured_input_signature[1]
    scores = served(
        **{
            name: tf.ragged.constant(values).to_tensor("", (None, kinds[name].shape[1]))
            if name == "tags"
            else tf.constant(values, kinds[name].dtype)
            for name, values in columns.items()
        }
    )["scores"]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-5)
    assert_merged_is_each(version, BASIC)


@pytest.mark.slow
def test_a_model_that_reads_histories_is_served_as_it_is_evaluated(tmp_path: Path) -> None:
    names = ("user_id", "item_id", "category")
    history = {"name": "seen", "kind": "history", "shares": "item_id", "max_length": 5}
    features = [*(f for f in WORLD_FEATURES if f["name"] in names), DOMAIN, history]
    made = rollout(
        tmp_path,
        end=day(6),
        tiny=None,
        complete=None,
        model=SMALL | {"backbone": "din"},
        data={"features": features},
        export={"directory": str(tmp_path / "saved_models")},
    )
    made.run()
    columns = served_columns_as_evaluated(made, [*names, "domain", "seen"])
    assert (columns["seen"][:, 1] > 0).mean() > 0.5


def served_columns_as_evaluated(made: Rollout, names: list[str]) -> dict[str, np.ndarray]:
    """Checks the scores of the first version on the ads rows of the 6th; returns their columns."""
    import tensorflow as tf

    from tfctr.data.days import DaysDataset

    first, second = [*steps(made).values()][:2]
    evaluated = pq.read_table(made.folder / "days" / str(day(6)) / "evaluated.parquet")
    assert second["metrics"]["rows"] == evaluated.num_rows > 50
    log, through = DayLog.open(made.log_folder), first["state"]["through"]
    data = DaysDataset(log, {"test": [(day(6), "ads")]}, through)
    columns = data.columns("test", names)
    served = tf.saved_model.load(first["state"]["version"]).signatures["serving_default"]
    given = {}
    for name, ids in columns.items():  # raw values again
        tokens = log.vocabulary(data.schema[name].vocabulary, through).tokens
        strange = ["", "never", ""] if tokens.type == pa.string() else [MISSING_INT, -7, -7]
        given[name] = tf.constant(np.array([*strange, *tokens.to_pylist()])[ids])
    np.testing.assert_allclose(
        served(**given)["scores"], 1 / (1 + np.exp(-evaluated["logit"].to_numpy())), atol=1e-5
    )
    return columns


@pytest.mark.slow
def test_a_running_server_takes_each_days_version(tmp_path: Path) -> None:
    made = rollout(
        tmp_path,
        end=day(7),
        tiny=None,
        complete=None,
        export={"directory": str(tmp_path / "models"), "keep": 2},
    )
    made.run(day(5))
    assert made.export_folder is not None
    server = Server({"ads": made.export_folder}, grpc_port=0, rest_port=0, poll_seconds=0.1)
    done, answered, failed = threading.Event(), 0, []
    with server, Client(f"127.0.0.1:{server.grpc_port}", "ads") as client:

        def ask() -> None:
            nonlocal answered
            while not done.is_set():
                try:
                    assert client.predict({"item_id": [1, 2]}).shape == (2,)
                    answered += 1
                except Exception as error:
                    failed.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            made.run()
            _wait_for(server, "3")
        finally:
            done.set()
            asking.join()
    assert not failed
    assert answered > 20
    assert sorted(path.name for path in made.export_folder.iterdir()) == ["2", "3"]
    assert made.run() is None  # that the first is gone does not matter


def _wait_for(server: Server, version: str) -> None:
    url = f"http://127.0.0.1:{server.rest_port}/v1/models/ads"
    for _ in range(300):
        with urllib.request.urlopen(url) as response:
            latest = json.load(response)["model_version_status"][0]
        if (latest["version"], latest["state"]) == (version, "AVAILABLE"):
            return
        time.sleep(0.1)
    raise AssertionError(f"version {version} is not served")


def write_logs(folder: Path, numbers: Any) -> None:
    """A Parquet file for each of these days."""
    import pyarrow.parquet as pq

    world = World(80, 40, 9_000, seed=5, days=12, ads_share=0.3)
    table = world.events(0, 9_000)
    start = datetime.datetime.combine(FIRST, datetime.time(), datetime.UTC).timestamp()
    when = (table["timestamp"].to_numpy() - start) // 86_400 + 1
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        pq.write_table(table.filter(when == number), folder / f"log-{day(number)}.parquet")
    pq.write_table(world.users(), folder / "users.parquet")
    pq.write_table(world.items(), folder / "items.parquet")


BY_DAY = {
    "format": "parquet",
    "events": "log-{day}.parquet",
    "users": {"path": "users.parquet", "key": "user_id"},
    "items": {"path": "items.parquet", "key": "item_id"},
}


def test_it_waits_for_a_day_that_is_missing(tmp_path: Path) -> None:
    write_logs(tmp_path, [1, 2, 3, 4, 5, 7])
    config = write_configs(tmp_path, tiny=None, complete=None, data={"source": BY_DAY})
    args = ["rollout", str(config), "--work", str(tmp_path / "work"), "--through"]
    found = CliRunner().invoke(app, [*args, str(day(7))])
    assert found.exit_code == MISSING_DAY == 75, found.output
    assert f"waits for {day(6)}" in found.output
    made = Rollout(load_rollout(config), tmp_path / "work", Console(quiet=True))
    assert [*steps(made)] == [str(day(5))]
    write_logs(tmp_path, [6])
    assert CliRunner().invoke(app, [*args, str(day(6))]).exit_code == 0
    assert [*steps(made)] == [str(day(5)), str(day(6))]


def test_a_day_that_is_skipped_is_learned_from_when_it_comes(tmp_path: Path) -> None:
    write_logs(tmp_path, [1, 2, 3, 4, 5])
    made = rollout(tmp_path, missing="skip", tiny=None, complete=None, data={"source": BY_DAY})
    assert made.run(day(6)) is None
    found = steps(made)
    assert found[str(day(6))]["missing"]
    assert found[str(day(6))]["state"]["ads"] == found[str(day(5))]["state"]["ads"]
    write_logs(tmp_path, [6, 7])
    assert made.run(day(7)) is None
    log, last = DayLog.open(made.log_folder), steps(made)[str(day(7))]
    assert last["late"] == [str(day(6))]
    assert last["rows_read"] == {"ads": log.rows(day(6), "ads") + log.rows(day(7), "ads")}
    assert steps(made)[str(day(6))] == found[str(day(6))]


def test_a_day_without_ads_changes_no_model(tmp_path: Path) -> None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    write_logs(tmp_path, range(1, 7))
    path = tmp_path / f"log-{day(6)}.parquet"
    table = pq.read_table(path)
    table = table.filter(pc.equal(table["domain"], "organic"))
    place = table.column_names.index("hour")
    hours = pa.array([2_000_000_000, *table["hour"].to_pylist()[1:]], table.schema.types[place])
    pq.write_table(table.set_column(place, "hour", hours), path)
    clock = {"name": "clock", "kind": "numeric", "side": "context", "column": "hour"}
    data = {"source": BY_DAY, "features": [*WORLD_FEATURES, DOMAIN, clock]}
    made = rollout(tmp_path, tiny=None, complete=None, end=day(6), data=data)
    made.console = Console(file=io.StringIO())
    assert made.run() is None
    text = made.console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("warning:") == 1
    assert f"'clock': 2e+09 on {day(6)} is" in text
    found = steps(made)
    assert found[str(day(6))]["metrics"] is None
    assert found[str(day(6))]["rows_read"] == {}
    assert found[str(day(6))]["state"]["ads"] == found[str(day(5))]["state"]["ads"]


def test_probes_tell_new_users_from_inactive_ones(whole: Rollout) -> None:
    world = World(80, 40, 9_000, seed=5, days=12, ads_share=0.3)
    table = world.events(0, 9_000)
    start = datetime.datetime.combine(FIRST, datetime.time(), datetime.UTC).timestamp()
    when = (table["timestamp"].to_numpy() - start) // 86_400 + 1
    user = table["user_id"].to_numpy()
    ads = np.array(table["domain"].to_pylist()) == "ads"
    for n in range(6, 10):
        today = user[(when == n) & ads]
        seen = np.isin(today, user[when < n])
        recent = np.isin(today, user[(when < n) & (when >= n - 2)])
        segments = steps(whole)[str(day(n))]["metrics"]["segments"]
        assert segments["unseen_users"]["rows"] == (~seen).sum()
        assert segments["inactive_users"]["rows"] == (seen & ~recent).sum()


@pytest.mark.slow
def test_what_a_training_does_not_touch_is_not_forgotten(tmp_path: Path) -> None:
    """Users without a row from the fifth day on, in the snapshots and in all three models."""
    write_logs(tmp_path, range(1, 9))
    for number in range(5, 9):
        path = tmp_path / f"log-{day(number)}.parquet"
        table = pq.read_table(path)
        pq.write_table(table.filter(np.array(table["user_id"]) % 4 != 0), path)
    made = rollout(tmp_path, end=day(8), data={"source": BY_DAY})
    assert made.run() is None
    states = {n: steps(made)[str(day(n))]["state"] for n in range(5, 9)}

    snapshots = [Snapshot.read(made.folder / "snapshots" / str(day(n))) for n in (5, 7, 9)]
    by_user = [
        dict(zip(of.tokens["user"].to_pylist(), of.vectors["user"], strict=True))
        for of in snapshots
    ]
    away = [user for user in by_user[0] if user % 4 == 0]
    assert len(away) > 10
    for user in away:
        assert np.abs(by_user[0][user]).max() > 0.001  # ten times what it began with
        np.testing.assert_array_equal(by_user[1][user], by_user[0][user])
        np.testing.assert_array_equal(by_user[2][user], by_user[0][user])
    here = [user for user in by_user[0] if user % 4]
    assert np.mean([(by_user[1][user] != by_user[0][user]).any() for user in here]) > 0.5

    log = DayLog.open(made.log_folder)
    vocabulary = log.vocabulary("user_id", states[5]["through"])
    ids = vocabulary.ids(pa.array(away, pa.int64()))
    others = vocabulary.ids(pa.array(here, pa.int64()))

    def users(path: str, ids: np.ndarray = ids) -> np.ndarray:
        model = keras.models.load_model(made.folder / path, compile=False)
        return np.asarray(model.backbone.fields.rows("user_id", ids))

    assert states[8]["complete"] != states[5]["complete"]
    complete = users(states[5]["complete"])
    np.testing.assert_array_equal(users(states[8]["complete"]), complete)
    np.testing.assert_array_equal(users(states[8]["ads"]), complete)
    first = users(states[5]["ads"])  # trained on ads of days on which they were there
    assert (first != complete).any()
    for n in (6, 7):
        np.testing.assert_array_equal(users(states[n]["ads"]), first)
        before, after = (users(states[m]["ads"], others) for m in (n - 1, n))
        assert (before != after).any()


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({"tiny": None, "complete": None, "ads": {"window": 2}}, [2, 1]),
        pytest.param(
            {"tiny": None, "complete": None, "ads": {"window": None, "restarts": True}},
            [5, 6],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_baselines_read_what_they_say(
    tmp_path: Path, changes: dict[str, Any], rows: list[int]
) -> None:
    changes["ads"] |= {"training": TRAINING, "domains": "both"}
    made = rollout(tmp_path, end=day(6), **changes)
    made.run()
    log = DayLog.open(made.log_folder)
    for n, number, about in zip((5, 6), rows, steps(made).values(), strict=True):
        read = [(day(n - i), domain) for i in range(number) for domain in ("organic", "ads")]
        assert about["rows_read"] == {"ads": sum(log.rows(*part) for part in read)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": day(4)}, f"start: found {day(4)}; numbers are measured on the days before"),
        ({"end": day(5)}, f"end: found {day(5)}, which is before start, {day(6)}"),
        ({"name": "days"}, "name: 'days' is the days' name too"),
        (
            {"tiny": {"model": SMALL | {"features": ["item_id"]}}},
            "tiny.model.features: 'user_id' is missing; snapshots hold its vectors",
        ),
        ({"complete": {"evry": 3}}, "complete: unknown key 'evry' \\(did you mean 'every'\\?\\)"),
    ],
)
def test_configs_that_cannot_be(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_rollout(write_configs(tmp_path, **changes))


def test_a_rollout_needs_a_last_day(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no last day; set `end`"):
        rollout(tmp_path, end=None).run()
    with pytest.raises(ConfigError, match=f"the first step is on {day(5)}"):
        rollout(tmp_path).run(day(4))
    found = CliRunner().invoke(
        app, ["rollout", str(tmp_path / "rollout.yaml"), "--through", "yesterday"]
    )
    assert found.exit_code == 1
    assert "found 'yesterday'; give a day such as 2024-01-31" in found.output


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": {"backbone": "dnc"}}, r"ads: model: backbone: found 'dnc'; allowed: autoint"),
        (
            {
                "tiny": {
                    "model": SMALL | {"features": ["user_id", "item_id", "age"]},
                    "training": TRAINING,
                    "every": 2,
                }
            },
            r"ads: tiny\.model: no feature 'age'; there are",
        ),
    ],
)
def test_a_model_that_cannot_be_is_one_line_before_anything_is_made(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        rollout(tmp_path, **changes).run()
    assert not (tmp_path / "work").exists()


def test_manifests_are_json(whole: Rollout) -> None:
    for path in whole.folder.rglob("*.json"):
        json.loads(path.read_text())
