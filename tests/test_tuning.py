"""A search: what it tries, what it leaves, and that a kill costs nothing."""

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from tests.conftest import world_config
from tfctr import training
from tfctr.cli import app
from tfctr.config import ConfigError, load_run
from tfctr.data.manifest import DataError
from tfctr.pipeline import Run
from tfctr.tuning import Searched, Trial, _best, load_tune, tune

SPACE: dict[str, Any] = {
    "training.optimizer.learning_rate": {"low": "1e-3", "high": 0.05, "log": True},
    "model.hidden_units": {"choices": [[8], [8, 4]]},
    "model.num_cross_layers": {"low": 1, "high": 2},
}
QUIET = Console(quiet=True)


def write(folder: Path, space: dict[str, Any] = SPACE, **changes: Any) -> Path:
    """A run config in `folder`, and a search beside it: the path of the search."""
    run = {
        "name": "run",
        "data": world_config().model_dump(mode="json"),
        "model": {
            "backbone": "dcn_v2",
            "features": ["user_id", "item_id", "category"],
            "embedding_dim": 4,
            "hidden_units": [8],
        },
        "training": {"batch_size": 2048, "epochs": 2, "optimizer": {"learning_rate": 0.001}},
        "export": {"directory": str(folder / "saved_models")},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    content = {"run": "run.yaml", "trials": 3, "seeds": [1, 2], "space": space}
    path = folder / "tune.yaml"
    path.write_text(yaml.safe_dump(content | changes, sort_keys=False))
    return path


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "work" / "run-tune" / "table.csv").open() as file:
        return list(csv.DictReader(file))


def without_seconds(table: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: text for name, text in row.items() if name != "seconds"} for row in table]


@pytest.fixture
def folder(world_data: Path, tmp_path: Path) -> Path:
    """A folder in which the data are prepared."""
    shutil.copytree(world_data, tmp_path / "work" / "world")
    return tmp_path


@pytest.fixture(scope="module")
def done(world_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a search of 2 trials over 2 seeds has been run, then a third trial."""
    folder = tmp_path_factory.mktemp("done")
    shutil.copytree(world_data, folder / "work" / "world")
    tune(write(folder), folder / "work", QUIET, trials=2)
    in_another_order = dict(reversed(SPACE.items()))
    tune(write(folder, in_another_order), folder / "work", QUIET)
    return folder


def test_the_table_has_a_row_a_trial_with_values_of_the_space(done: Path) -> None:
    table = rows(done)
    assert [row["trial"] for row in table] == ["0", "1", "2"]
    assert list(table[0]) == [
        "trial",
        *reversed(SPACE),
        "valid_auc",
        "valid_auc_deviation",
        "valid_log_loss",
        "valid_gauc",
        "best_epoch",
        "seconds",
        "parameters",
        "failed",
    ]
    for row in table:
        assert 1e-3 <= float(row["training.optimizer.learning_rate"]) <= 0.05
        assert json.loads(row["model.hidden_units"]) in [[8], [8, 4]]
        assert row["failed"] == ""
    assert all(row["model.num_cross_layers"] in ("1", "2") for row in table[1:])
    assert len({row["training.optimizer.learning_rate"] for row in table}) == 3


def test_the_first_trial_is_the_run_itself_and_a_row_is_the_mean_over_seeds(
    done: Path, tmp_path: Path
) -> None:
    first = rows(done)[0]
    assert float(first["training.optimizer.learning_rate"]) == 0.001
    assert json.loads(first["model.hidden_units"]) == [8]
    assert first["model.num_cross_layers"] == "3"  # the class's default, outside of the space
    config = load_run(done / "run.yaml")
    seeded = config.training.model_copy(update={"seed": 2})
    run = Run(config.model_copy(update={"training": seeded}), done / "work", QUIET)
    run.folder = tmp_path
    run.train()
    trial = done / "work" / "run-tune" / "trial-0000-seed-"
    manifests = [f"{trial}1/train.json", f"{trial}2/train.json", tmp_path / "train.json"]
    *found, alone = [json.loads(Path(path).read_text()) for path in manifests]
    one, two = (manifest["best_valid_auc"] for manifest in found)
    assert one != two == alone["best_valid_auc"]
    assert float(first["valid_auc"]) == pytest.approx((one + two) / 2, abs=1e-12)
    assert float(first["valid_auc_deviation"]) == pytest.approx(abs(one - two) / 2**0.5, abs=1e-12)
    losses = [m["epochs"][m["best_epoch"] - 1]["valid_log_loss"] for m in found]
    assert float(first["valid_log_loss"]) == pytest.approx(sum(losses) / 2, abs=1e-12)
    assert float(first["best_epoch"]) == sum(m["best_epoch"] for m in found) / 2
    assert int(first["parameters"]) == found[0]["parameters"]


def test_best_yaml_is_the_best_row_and_its_run_has_its_model_already(done: Path) -> None:
    folder = done / "work" / "run-tune"
    best = max(rows(done), key=lambda row: float(row["valid_auc"]))
    config = load_run(folder / "best.yaml")
    assert config.data == load_run(done / "run.yaml").data.model_copy(
        update={"directory": config.data.directory}
    )
    assert best["trial"] != "0"
    rate = config.training.optimizer.learning_rate
    assert rate == float(best["training.optimizer.learning_rate"])
    assert config.model.arguments["hidden_units"] == json.loads(best["model.hidden_units"])
    assert config.model.arguments["num_cross_layers"] == int(best["model.num_cross_layers"])
    assert config.training.batch_size == 2048
    assert config.training.seed == 1
    for name in ("model.keras", "vocabularies"):  # what another run may start from
        kept = {path.parent.name for path in folder.glob(f"trial-*/{name}")}
        assert kept == {f"trial-000{best['trial']}-seed-{seed}" for seed in (1, 2)}
        assert (done / "work" / "run-best" / name).exists()

    result = CliRunner().invoke(
        app, ["run", str(folder / "best.yaml"), "--work", str(done / "work")]
    )
    assert result.exit_code == 0, result.output
    assert "prepare is done" in result.output
    assert "train is done" in result.output
    metrics = json.loads((done / "work" / "run-best" / "metrics.json").read_text())
    trained = json.loads((folder / f"trial-000{best['trial']}-seed-1" / "train.json").read_text())
    assert metrics["valid"]["auc"] == pytest.approx(trained["best_valid_auc"], abs=1e-9)
    assert (done / "saved_models" / "run-best" / "1").is_dir()


@pytest.mark.slow
def test_a_killed_search_ends_with_the_same_table(
    done: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of two trainings; 8 steps are an epoch, 32 a trial."""

    class Killed(BaseException):
        pass

    after = training._Watcher.on_train_batch_end
    steps = 0

    def die(self: Any, batch: int, logs: Any = None) -> None:
        nonlocal steps
        after(self, batch, logs)
        steps += 1
        if steps in (12, 45):
            raise Killed

    monkeypatch.setattr(training._Watcher, "on_train_batch_end", die)
    path = write(folder)
    finished = []
    for _ in range(2):
        with pytest.raises(Killed):
            tune(path, folder / "work", QUIET, trials=2)
        table = folder / "work" / "run-tune" / "table.csv"
        finished.append(len(rows(folder)) if table.exists() else 0)
    assert finished == [0, 1]
    tune(path, folder / "work", QUIET, trials=2)
    before = rows(folder)
    assert without_seconds(before) == without_seconds(rows(done))[:2]

    command = ["tune", str(path), "--work", str(folder / "work"), "--trials"]
    again = CliRunner().invoke(app, [*command, "2"])
    assert again.exit_code == 0, again.output
    assert "trial 1: validation AUC" not in again.output
    assert "best trials" in again.output
    assert "best: tfctr run" in again.output
    assert rows(folder) == before


def test_another_search_in_the_folder_is_refused_and_left_as_it_is(
    done: Path, tmp_path: Path
) -> None:
    before = rows(done)
    space = SPACE | {"model.num_cross_layers": {"low": 1, "high": 3}}
    other = write(tmp_path, space, seeds=[1])
    with pytest.raises(ConfigError, match="run-tune: holds 3 trials of another search") as caught:
        tune(other, done / "work", QUIET)
    assert "other seeds, space; remove the folder" in str(caught.value)
    assert rows(done) == before


def test_a_failed_trial_has_its_reason_and_the_others_go_on(folder: Path) -> None:
    space = {"training.optimizer.learning_rate": {"choices": [1e30, 0.02]}}
    path = write(folder, space, trials=6, seeds=[1])
    tune(path, folder / "work", QUIET)
    table = rows(folder)
    by_rate = {row["training.optimizer.learning_rate"]: row for row in table}
    assert set(by_rate) == {"0.001", "1e+30", "0.02"}
    assert "logits are no longer finite" in by_rate["1e+30"]["failed"]
    assert by_rate["1e+30"]["valid_auc"] == ""
    assert float(by_rate["0.02"]["valid_auc"]) > 0.5
    # Values that come up again are not trained again.
    trained = list((folder / "work" / "run-tune").glob("trial-*/train.json"))
    assert len(trained) == 2 < len([row for row in table if not row["failed"]])


def test_a_search_whose_trials_all_fail_says_why(folder: Path) -> None:
    path = write(folder, {"training.optimizer.learning_rate": {"choices": [1e30]}}, trials=2)
    run = yaml.safe_load((folder / "run.yaml").read_text())
    run["training"]["optimizer"]["learning_rate"] = 1e30
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    with pytest.raises(DataError, match="all 2 trials failed; the first: epoch 1: the model's log"):
        tune(path, folder / "work", QUIET)


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"model.dropuot": {"choices": [0.1]}}, "unknown key 'dropuot'; allowed: embedding_dim,"),
        ({"model.dropout": {"choices": [0.1, 2.0]}}, "found model.dropout 2; Invalid value rec"),
        ({"model.hidden_units": {"choices": [8]}}, "found model.hidden_units 8; 'int' object is"),
        ({"model.features": {"choices": [["age"]]}}, 'found model.features ["age"]; no feature'),
        ({"model.backbone": {"choices": ["dnc"]}}, "backbone: found 'dnc'; allowed: "),
        (
            {"training.optimizer.learning_rat": {"choices": [0.1]}},
            "space.training.optimizer: unknown key 'learning_rat' (did you mean 'learning_rate'?)",
        ),
        ({"training.batch_size": {"low": 0, "high": 8}}, "space.training.batch_size: found 0; "),
        ({"training.batch_size.x": {"choices": [1]}}, "space.training.batch_size: found dict; "),
        (
            {"training.optimizer.name": {"choices": ["adam"]}}
            | {"training.optimizer.embedding_l2": {"choices": [0.1]}},
            "space.training.optimizer: embedding_l2 needs lazy_adam or lazy_adagrad, found 'adam'",
        ),
        ({"training.seed": {"low": 1, "high": 3}}, "the key 'seeds' gives the seeds"),
        ({"training.chosen_by": {"choices": ["auc", "gauc"]}}, "what the run is chosen by"),
        ({"data.split.seed": {"low": 1, "high": 3}}, "space: found key 'data.split.seed'; allowed"),
        ({}, "space: found dict; dictionary should have at least 1 item"),
        ({"model.dropout": {"lo": 1}}, "space.model.dropout: unknown key 'lo' (did you mean 'low'"),
        ({"model.dropout": {"low": 0}}, "space.model.dropout: give choices, or low and high"),
        ({"model.dropout": {"low": 1, "high": 1}}, "low must be below high, found 1 and 1"),
        ({"model.dropout": {"low": "a", "high": 1}}, "dropout.low: found 'a'; a number is needed"),
        ({"model.dropout": {"low": 0, "high": 1, "log": True}}, "low must be above 0 where log"),
        ({"model.dropout": {"low": 0, "choices": [1]}}, "choices stand alone, found low beside"),
        ({"model.dropout": {"choices": [1, 1]}}, "choices must differ, found [1, 1]"),
        ({"model.dropout": {"low": 0.0, "high": 1, "step": 0}}, "step must be a number above 0"),
        ({"model.dropout": {"low": 0, "high": 2, "step": 0.5}}, "step must be a whole number abov"),
        ({"model.dropout": {"low": 0, "high": 3, "step": 2}}, "high must be a number of steps"),
        (
            {"model.dropout": {"low": 1, "high": 3, "step": 1, "log": True}},
            "step and log exclude each other",
        ),
    ],
)
def test_a_space_that_cannot_be_searched_is_one_line(
    tmp_path: Path, space: dict[str, Any], says: str
) -> None:
    path = write(tmp_path, space)
    with pytest.raises(ConfigError) as caught:
        load_tune(path)
    text = str(caught.value)
    assert says in text
    assert text.startswith(f"{path}: space")
    assert len(text.splitlines()) == 1
    assert not (tmp_path / "work").exists()


def test_other_mistakes_name_their_file_too(tmp_path: Path) -> None:
    path = write(tmp_path, trails=3)
    with pytest.raises(ConfigError, match=r"tune\.yaml: unknown key 'trails' \(did you mean 'tri"):
        load_tune(path)
    with pytest.raises(ConfigError, match=r"tune\.yaml: seeds must differ, found \[1, 1\]"):
        load_tune(write(tmp_path, seeds=[1, 1]))
    with pytest.raises(ConfigError, match=r"no\.yaml: no such file"):
        load_tune(write(tmp_path, run="no.yaml"))
    write(tmp_path)
    run = yaml.safe_load((tmp_path / "run.yaml").read_text())
    run["model"]["dropuot"] = 0.1
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    with pytest.raises(ConfigError, match=r"run\.yaml: model: dcn_v2: unknown key 'dropuot'"):
        load_tune(path)
    run["training"]["strategy"] = "multi_worker"
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    with pytest.raises(ConfigError, match=r"run\.yaml: training\.strategy: found 'multi_worker'; "):
        load_tune(path)


def test_trials_are_compared_by_what_chooses_their_epochs(folder: Path) -> None:
    path = write(folder, trials=2, seeds=[1])
    run = yaml.safe_load((folder / "run.yaml").read_text())
    run["training"]["chosen_by"] = "log_loss"
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    best_path = tune(path, folder / "work", QUIET)
    best = min(rows(folder), key=lambda row: float(row["valid_log_loss"]))
    found = f"# trial {best['trial']} of tune.yaml: validation log loss "
    assert best_path.read_text().startswith(found + f"{float(best['valid_log_loss']):.4f}\n")
    trials = [
        Trial(0, {}, valid_auc=0.7, valid_gauc=0.6, valid_log_loss=0.5),
        Trial(1, {}, failed="diverged"),
        Trial(2, {}, valid_auc=0.6, valid_gauc=0.7, valid_log_loss=0.6),
        Trial(3, {}, valid_auc=0.5, valid_log_loss=0.4),
    ]
    chosen = {measure: _best(trials, measure) for measure in ("auc", "gauc", "log_loss")}
    assert [trial and trial.trial for trial in chosen.values()] == [0, 2, 3]
    assert _best(trials[1:2], "auc") is None


def test_the_searches_of_the_repository_are_valid() -> None:
    searches = sorted((Path(__file__).parents[1] / "configs").glob("*/tune/*.yaml"))
    assert searches
    for path in searches:
        load_tune(path)


def test_without_optuna_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "tfctr.tuning")
    monkeypatch.delattr("tfctr.tuning")
    result = CliRunner().invoke(app, ["tune", str(write(tmp_path))])
    assert result.exit_code == 1
    assert "needs optuna: pip install 'tfctr[tune]'" in result.output


def test_a_stepped_number_is_asked_for_as_one_would_write_it() -> None:
    tenths = Searched(low=0.1, high=0.5, step=0.1)
    assert [tenths.value(0.1 + i * 0.1) for i in range(5)] == [0.1, 0.2, 0.3, 0.4, 0.5]
    whole = Searched(low=1, high=5, step=2)
    assert [type(whole.value(n)) for n in (1, 3)] == [int, int]
