"""Statistics from a log to a served student."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml
from rich.console import Console
from typer.testing import CliRunner

from beam_pipelines.statistics import write_statistics
from beam_pipelines.transforms import fit_factors
from tests.conftest import WORLD_FEATURES, world_config
from tests.serving.batching import BASIC, assert_merged_is_each
from tests.serving.evaluated import assert_served_as_evaluated
from tfctr.cli import app
from tfctr.config import ConfigError, load_run
from tfctr.data import Dataset
from tfctr.data.manifest import DataError
from tfctr.frameworks.statistics import factor_model
from tfctr.frameworks.statistics.config import ALL_USERS, Statistics, TablesConfig
from tfctr.frameworks.statistics.stages import create_statistics, numbers_of_rows
from tfctr.frameworks.statistics.user_statistics import WINDOWS
from tfctr.metrics import auc
from tfctr.stages import Run, build, prepare

LENGTH = 30
HISTORIES = [
    {"name": "past_item", "kind": "history", "shares": "item_id", "max_length": LENGTH},
    {"name": "past_click", "kind": "history", "column": "click", "max_length": LENGTH},
]
TABLES = {"name": "tables", "data": "data.yaml", "items": "past_item", "grades": "past_click"}
SMALL = {"factors": 2, "steps": 3, "neighbours": 3}
PLAIN = [f["name"] for f in WORLD_FEATURES if f["kind"] != "text"]


def write_configs(folder: Path, num_items: int = 80, **changes: Any) -> Path:
    source = {"format": "world", "users": 200, "items": num_items, "events": 6_000, "seed": 3}
    data = world_config(source=source, features=[*HISTORIES, *WORLD_FEATURES])
    method = {"name": "statistics", "tables": "tables.yaml", "knots": 8, "attribute_fadings": [6]}
    run = {
        "name": "student",
        "data": "data.yaml",
        "frameworks": [method],
        "model": {
            "backbone": "dcn_v2",
            "features": PLAIN,
            "embedding_dim": 4,
            "hidden_units": [16],
        },
        "training": {
            "batch_size": 256,
            "epochs": 1,
            "in_memory": True,
            "optimizer": {"learning_rate": 0.01},
        },
        "export": {"directory": str(folder / "saved_models")},
    }
    contents = {
        "data": data.model_dump(mode="json", exclude_none=True),
        "tables": TABLES
        | {"factors": 3, "steps": 2, "attributes": ["category", "tags"], "neighbours": 5}
        | changes,
        "run": run,
    }
    for name, content in contents.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("statistics")
    made = Run(load_run(write_configs(folder)), folder / "work", Console(quiet=True))
    made.export()
    return made


def test_a_request_has_the_scores_that_are_evaluated(run: Run) -> None:
    assert_served_as_evaluated(run, 40)


def test_merged_requests_have_the_answers_of_each(run: Run) -> None:
    assert_merged_is_each(run.export_folder / "1", BASIC)


def test_a_server_has_the_tables_of_all_users_only(run: Run) -> None:
    model = run.load_model()
    items = model.statistics.num_items
    variables = tf.train.list_variables(str(run.export_folder / "1" / "variables" / "variables"))
    shapes = [shape for _, shape in variables]
    assert [3 * items, model.statistics.factors] in [list(v.shape) for v in model.weights]
    assert [items, model.statistics.factors] in shapes
    assert not any(shape and shape[0] == 3 * items for shape in shapes)
    served = run.config.frameworks[0].served(model)
    with pytest.raises(ValueError, match="populations: found 1; in training a user needs"):
        served(served._empty_row(), training=True)


def test_numbers_are_scaled_by_training_rows_that_read_the_other_half(run: Run) -> None:
    model = run.load_model()
    statistics = model.statistics
    tables = run.before["statistics"]["tables"].load()
    np.testing.assert_array_equal(statistics.means, tables["means"].ravel())
    data = Dataset.open(run.data_folder)
    columns = data.columns("train", ["user_id", "item_id", "past_item", "past_click"])
    population = 1 - columns["user_id"] % 2
    user = statistics.encode(columns["past_item"], columns["past_click"], population)
    numbers = statistics.of_candidates(user, columns["item_id"][:, None], population)
    np.testing.assert_allclose(np.mean(numbers, axis=(0, 1)), statistics.center, atol=1e-4)


def test_events_of_a_group_that_the_runner_loses_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, lost = fit_factors._expect, []

    def losing(*arguments: Any) -> Iterator[Any]:
        for block, sums in whole(*arguments):
            if lost or block[0] != ALL_USERS:
                yield block, sums
            else:
                lost.append(sums)

    monkeypatch.setattr(fit_factors, "_expect", losing)
    with pytest.raises(DataError, match=r"of the items: [0-9]+ of 640 came; the runner lost"):
        _tables_of_log(tmp_path, 3, False)


def test_tables_of_one_half_know_nothing_of_the_other(tmp_path: Path) -> None:
    """So no row's own label is in the tables that it is trained with."""
    found = []
    for seed, flipped in ((3, False), (3, True)):
        folder = tmp_path / str(flipped)
        folder.mkdir()
        found.append(_tables_of_log(folder, seed, flipped))
    before, after = found
    np.testing.assert_array_equal(before["means"][0], after["means"][0])
    for name in ("loadings", "neighbours", "similarities"):
        np.testing.assert_array_equal(before[name][0], after[name][0])
    for population in (1, 2):
        for name in ("means", "similarities"):
            assert (before[name][population] != after[name][population]).any()


def _tables_of_log(folder: Path, seed: int, flipped: bool) -> dict[str, np.ndarray]:
    """Of a log where, if flipped, the users with an odd id said the opposite of some items."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(40), 20)
    items = rng.integers(0, 15, len(users))
    clicks = rng.integers(0, 2, len(users))
    times = np.tile(np.arange(20), 40) * 1000 + users
    lines = ["user,item,click,time"]
    rows = np.c_[users, items, clicks, times]
    # Users have equally many rows, so their ids are in the order of their first rows.
    for user, item, click, when in rows:
        flip = flipped and user % 2 == 0 and item < 8  # all: similarities would stay
        lines.append(f"{user:02d},{item},{1 - click if flip else click},{when}")
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    config = TablesConfig.model_validate(TABLES | {"data": _data(folder)} | SMALL)
    prepare(config.data, folder / "data", console=Console(quiet=True))
    schema = Dataset.open(folder / "data").schema
    vocabulary = (folder / "data" / "vocabularies" / "user.txt").read_text().split()
    odd = {int(user) % 2 for n, user in enumerate(vocabulary) if (n + 3) % 2}
    assert odd == {0}
    assert schema["user"].num_ids == 43
    write_statistics(config, str(folder / "data"), str(folder / "tables"))
    with np.load(folder / "tables" / "tables.npz") as found:
        return dict(found)


def _data(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "data",
        "directory": str(folder),
        "source": {"format": "csv", "events": "log.csv"},
        "label": {"column": "click"},
        "time": {"column": "time", "unit": "s"},
        "user": "user",
        "item": "item",
        "split": {"by": "user_time"},
        "features": [
            {"name": "user", "kind": "categorical", "side": "user"},
            {"name": "item", "kind": "categorical", "side": "item"},
            {"name": "past_item", "kind": "history", "shares": "item", "max_length": 5},
            {"name": "past_click", "kind": "history", "column": "click", "max_length": 5},
        ],
    } | changes


def test_attributes_are_those_of_the_items(run: Run) -> None:
    table = run.before["statistics"]["tables"].load()["attributes"]
    data = Dataset.open(run.data_folder)
    first = data.schema["category"].num_ids
    assert table.shape == (data.schema["item_id"].num_ids, first + data.schema["tags"].num_ids)
    columns = data.columns("train", ["item_id", "category", "tags"])
    expected = np.zeros_like(table)
    expected[columns["item_id"], columns["category"]] = 1
    for place in range(columns["tags"].shape[1]):
        expected[columns["item_id"], first + columns["tags"][:, place]] = 1
    expected[:, [0, 1, 2, first, first + 1, first + 2]] = 0
    known = np.unique(columns["item_id"])
    np.testing.assert_array_equal(table[known], expected[known])


def test_sums_of_groups_are_the_same_in_any_order() -> None:
    rng = np.random.default_rng(1)
    model = factor_model.initial(30, 3, 3.0, 1.0)
    parts = []
    for _ in range(9):
        users, grades = np.sort(rng.integers(0, 20, 400)), rng.normal(3, 1, 400)
        parts.append(factor_model.expected(users, rng.integers(0, 30, 400), grades, model))
    found = [fit_factors.added([parts[i] for i in rng.permutation(9)]).sums for _ in range(5)]
    found.append(
        fit_factors.added([fit_factors.added(parts[:4]), fit_factors.added(parts[4:])]).sums
    )
    for sums in found[1:]:
        np.testing.assert_array_equal(sums, found[0])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"items": "past"}, "items: past is no history of the data; there are: "),
        ({"grades": "item"}, "grades: item is no history"),
        ({"attributes": ["user"]}, "attributes: user is no categorical or multi_valued feature"),
        ({"items": "past_click"}, "items: past_click shares no feature of the item's side"),
    ],
)
def test_histories_that_do_not_fit(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        TablesConfig.model_validate(TABLES | {"data": _data(tmp_path)} | changes)


def test_fading_attributes_that_the_tables_do_not_have(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"attribute_fadings: the tables .* have no attributes"):
        load_run(write_configs(tmp_path, attributes=[]))


def test_a_mistake_in_the_tables_is_named_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tables\.yaml: .*past is no history"):
        load_run(write_configs(tmp_path, items="past"))


def test_a_student_starts_from_an_earlier_one_with_tables_of_its_own_data(
    run: Run, tmp_path: Path
) -> None:
    """The later data have more items, so ids and the sizes of tables are others."""
    path = write_configs(tmp_path, num_items=120)
    path.write_text(path.read_text() + f"starts_from: {run.trained.path}\n")
    later = Run(load_run(path), tmp_path / "work", Console(quiet=True))
    build(later.before["statistics"]["tables"], Console(quiet=True))
    model = later.trained.create_student(Dataset.open(later.data_folder), Console(quiet=True))
    assert model.statistics.num_items > run.load_model().statistics.num_items
    tables = later.before["statistics"]["tables"].load()
    np.testing.assert_array_equal(model.statistics.means, tables["means"].ravel())
    earlier = run.load_model()
    for name in ("center", "spread", "knots"):
        own, others = (getattr(m.statistics, name) for m in (model, earlier))
        np.testing.assert_array_equal(own, others)
    np.testing.assert_array_equal(model.vectors.embeddings, earlier.vectors.embeddings)
    np.testing.assert_array_equal(model.to_fields.kernel, earlier.to_fields.kernel)


def test_where_a_rows_own_label_is_in_the_tables_the_numbers_know_it(tmp_path: Path) -> None:
    """Clicks are drawn at random here, so nothing can rank them, unless it has read them."""
    rng = np.random.default_rng(4)
    users, items = rng.integers(0, 40, 3000), rng.integers(0, 500, 3000)
    clicks = rng.integers(0, 2, 3000)
    lines = [f"u{u},i{i},{c},{n}" for n, (u, i, c) in enumerate(np.c_[users, items, clicks])]
    (tmp_path / "log.csv").write_text("user,item,click,time\n" + "\n".join(lines) + "\n")
    config = TablesConfig.model_validate(
        TABLES | {"data": _data(tmp_path), "factors": 2, "steps": 3, "neighbours": 20}
    )
    prepare(config.data, tmp_path / "data", console=Console(quiet=True))
    write_statistics(config, str(tmp_path / "data"), str(tmp_path / "tables"))
    data = Dataset.open(tmp_path / "data")
    method = Statistics(name="statistics", tables=config, knots=4)
    statistics = create_statistics(method, data.schema)
    statistics.build()
    with np.load(tmp_path / "tables" / "tables.npz") as tables:
        statistics.set_tables(tables)
    columns = data.columns("train", ["label", *config.reads])
    expected = len(WINDOWS) + 1 + 2 * 3 + 1 + 2  # of a grade, behind the numbers of a user
    found = {}
    for leaky in (True, False):
        numbers = numbers_of_rows(statistics, config, columns, training=not leaky)
        found[leaky] = auc(columns["label"], numbers[:, expected])
    assert found[True] > 0.6
    assert found[False] == pytest.approx(0.5, abs=0.04)  # three standard errors


def test_a_users_id_chooses_tables_and_is_never_hidden(tmp_path: Path) -> None:
    path = write_configs(tmp_path)
    load_run(path, ["training.oov_rate={item_id: 0.1}"])
    says = (
        r"training\.oov_rate: statistics chooses the tables of a training row by user_id, so that"
    )
    with pytest.raises(ConfigError, match=says):
        load_run(path, ["training.oov_rate={item_id: 0.1, user_id: 0.1}"])


@pytest.mark.parametrize(
    ("grade", "says"),
    [
        (lambda n: "good" if n % 3 else "bad", "past_click has a token that is no number"),
        (lambda n: "inf" if n % 3 else 2, "a token that is no number: inf is not finite"),
        (lambda n: 1, "past_click has 1 grades in .* statistics need two"),
    ],
)
def test_grades_that_say_nothing(grade: Any, says: str, tmp_path: Path) -> None:
    lines = [f"u{n % 7},i{n % 5},{n % 2},{n},{grade(n)}" for n in range(100)]
    (tmp_path / "log.csv").write_text("user,item,click,time,grade\n" + "\n".join(lines) + "\n")
    data = _data(tmp_path)
    data["features"][3]["column"] = "grade"
    config = TablesConfig.model_validate(TABLES | {"data": data})
    prepare(config.data, tmp_path / "data", console=Console(quiet=True))
    with pytest.raises(DataError, match=says):
        write_statistics(config, str(tmp_path / "data"), str(tmp_path / "tables"))
    assert not (tmp_path / "tables").exists()


def refresh(path: Path, log: Path, work: Path, *more: str) -> Any:
    args = ["refresh", str(path), "--log", str(log), "--work", str(work), *more]
    return CliRunner().invoke(app, args, env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def refreshed(run: Run) -> Path:
    """The folder of the tables of a later log: the same one, of which the tables of the training
    held the training period only. Version 2 has them."""
    folder = run.work.parent
    ran = refresh(folder / "run.yaml", folder / "data.yaml", run.work)
    assert ran.exit_code == 0, ran.output
    assert f"SavedModel: {run.export_folder / '2'}" in ran.output
    kept = folder / "refreshed"
    shutil.copytree(run.work / "tables-latest", kept)
    return kept


@pytest.mark.processes
def test_a_refresh_has_the_tables_of_a_later_log_and_the_same_weights(
    run: Run, refreshed: Path
) -> None:
    folders = refreshed, run.work / "tables"
    later, earlier = (json.loads((f / "manifest.json").read_text())["events"] for f in folders)
    assert earlier < 0.85 * later
    before = run.before["statistics"]["tables"].load()
    model = run.load_model()
    with np.load(refreshed / "tables.npz") as found:
        assert (found["means"][2] != before["means"][2]).any()
        model.statistics.set_tables(found)
    assert_served_as_evaluated(run, 40, model, version=2)


def test_what_cannot_be_refreshed(run: Run, tmp_path: Path) -> None:
    path, log = write_configs(tmp_path), tmp_path / "data.yaml"
    content = yaml.safe_load(log.read_text())
    content["features"] = [f for f in content["features"] if f["name"] != "price"]
    log.write_text(yaml.safe_dump(content))
    ran = refresh(run.work.parent / "run.yaml", log, run.work)
    assert ran.exit_code == 1
    assert "world: features: price are not those of world" in ran.output
    plain = yaml.safe_load(path.read_text())
    del plain["frameworks"]
    path.write_text(yaml.safe_dump(plain))
    ran = refresh(path, run.work.parent / "data.yaml", run.work)
    assert ran.exit_code == 1
    assert "--log: none of its methods reads a log" in ran.output
    ran = CliRunner().invoke(app, ["refresh", str(run.work.parent / "run.yaml")])
    assert ran.exit_code == 1
    assert "statistics: made of a later log; give --log FILE" in ran.output


def test_the_events_of_a_day_are_added_to_those_of_before(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    columns = [rng.integers(0, n, 900) for n in (60, 30)]
    clicks = (rng.random(900) < 0.2 + 0.6 * (columns[1] % 2)).astype(int)
    lines = [f"u{u},i{i},{c},{n}" for n, (u, i, c) in enumerate(np.c_[(*columns, clicks)])]
    (tmp_path / "logs").mkdir()
    parts = {"whole": lines, "before": lines[:800], "day": lines[800:850], "next": lines[850:]}
    for name, part in parts.items():
        path = tmp_path / "logs" / f"{name}.csv"
        path.write_text("user,item,click,time\n" + "\n".join(part) + "\n")

    def config(name: str) -> TablesConfig:
        source = {"format": "csv", "events": f"logs/{name}.csv"}
        data = _data(tmp_path, source=source)
        steps = 12 if name == "whole" else 6  # and 3 for each part that is added
        return TablesConfig.model_validate(TABLES | SMALL | {"data": data, "steps": steps})

    tables, work = config("before"), str(tmp_path / "data")
    prepare(tables.data, tmp_path / "data", console=Console(quiet=True))
    about = {}
    outputs = {"whole": "whole", "before": "added", "day": "added", "next": "added"}
    for log, output in outputs.items():
        path = str(tmp_path / output)
        add_to = path if log in ("day", "next") else None
        made = tables.model_copy(update={"steps": config(log).steps})
        about[output] = write_statistics(made, work, path, log=config(log).data, add_to=add_to)
    whole, added = tmp_path / "whole", tmp_path / "added"
    groups = sorted(path.name for path in (whole / "events").iterdir())
    assert groups == sorted(path.name for path in (added / "events").iterdir())
    for name in groups:
        of_whole, of_added = (np.load(folder / "events" / name) for folder in (whole, added))
        for array in of_whole:
            np.testing.assert_array_equal(of_whole[array], of_added[array])
    assert about["added"]["events"] == about["whole"]["events"] > 800
    expected, found = (np.load(folder / "tables.npz") for folder in (whole, added))
    np.testing.assert_array_equal(found["popularity"], expected["popularity"])
    np.testing.assert_array_equal(found["grade_scale"], expected["grade_scale"])
    np.testing.assert_allclose(found["means"], expected["means"], atol=0.03)
    np.testing.assert_allclose(found["noise"], expected["noise"], rtol=0.02)
    nearest = (np.abs(tables["similarities"]) for tables in (found, expected))
    np.testing.assert_allclose(*nearest, atol=0.01)

    with pytest.raises(DataError, match="added: has the events of this log already"):
        write_statistics(tables, work, str(added), log=config("day").data, add_to=str(added))
    other = tables.model_copy(update={"factors": 3})
    with pytest.raises(DataError, match="added: made with another config or for another dataset"):
        write_statistics(other, work, str(added), log=config("day").data, add_to=str(added))
    nothing = str(tmp_path / "nothing")
    with pytest.raises(
        DataError, match="nothing: no tables of this version to add to; make them of the whole"
    ):
        write_statistics(tables, work, nothing, log=config("day").data, add_to=nothing)


@pytest.mark.slow
def test_a_day_is_added_by_a_command(run: Run, refreshed: Path, tmp_path: Path) -> None:
    """The log of that day is another world's, whose users and items are mostly unknown."""
    write_configs(tmp_path)
    log = tmp_path / "data.yaml"
    content = yaml.safe_load(log.read_text())
    content |= {"name": "day", "source": content["source"] | {"events": 500, "seed": 4}}
    log.write_text(yaml.safe_dump(content))
    folder, latest = run.work.parent, run.work / "tables-latest"
    before = json.loads((refreshed / "manifest.json").read_text())
    for _ in range(2):
        ran = refresh(folder / "run.yaml", log, run.work, "--add")
        assert ran.exit_code == 0, ran.output
        about = json.loads((latest / "manifest.json").read_text())
        assert before["events"] < about["events"] <= before["events"] + 500
        assert len(about["logs"]) == 2
    assert "refresh is done" in ran.output


def test_an_item_that_nobody_graded_has_the_mean_of_all(tmp_path: Path) -> None:
    """And all events of a user may be of one moment, so that none has an earlier one."""
    grades = [["", 1, 2, 5, 4][n % 5] for n in range(100)]
    lines = [
        f"u{n % 7},i{n % 5},{n % 2},{1_700_000_000 + n % 7},{grade}"
        for n, grade in enumerate(grades)
    ]
    (tmp_path / "log.csv").write_text("user,item,click,time,grade\n" + "\n".join(lines) + "\n")
    data = _data(tmp_path, split={"by": "global_time"})
    data["features"][3]["column"] = "grade"
    config = TablesConfig.model_validate(TABLES | {"data": data} | SMALL)
    prepare(config.data, tmp_path / "data", console=Console(quiet=True))
    columns = Dataset.open(tmp_path / "data").columns("train", ["past_item", "past_click"])
    assert all((column == 0).all() for column in columns.values())
    write_statistics(config, str(tmp_path / "data"), str(tmp_path / "tables"))
    vocabulary = (tmp_path / "data" / "vocabularies" / "item.txt").read_text().split()
    ungraded = 3 + vocabulary.index("i0")
    with np.load(tmp_path / "tables" / "tables.npz") as tables:
        assert all(np.isfinite(tables[name]).all() for name in tables)
        np.testing.assert_allclose(tables["means"][2, ungraded], 3.0, atol=0.3)
        assert tables["popularity"][2, ungraded] == 0
        assert (tables["neighbours"][:, ungraded] == 0).all()
        assert not (tables["neighbours"] == ungraded).any()
        assert (tables["neighbours"][2].max(1) > 0).sum() == 4


def test_tables_by_command(run: Run, tmp_path: Path) -> None:
    file = str(run.work.parent / "tables.yaml")
    result = CliRunner().invoke(app, ["statistics", file, f"--work={tmp_path}"])
    assert result.exit_code == 0, result.output
    assert "events of" in result.output
    expected = run.before["statistics"]["tables"].load()
    with np.load(tmp_path / "tables" / "tables.npz") as found:
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])


def test_what_it_has_written_says_of_what(run: Run) -> None:
    tables = run.before["statistics"]["tables"]
    about = json.loads((tables.folder / "manifest.json").read_text())
    assert about["items"] <= 80
    assert about["events"] <= 6_000
    assert len(about["rmse"]) == 3
    assert sorted(path.name for path in tables.folder.iterdir()) == [
        "events",
        "manifest.json",
        "scale.json",
        "scale.npz",
        "state.npz",
        "tables.npz",
    ]
