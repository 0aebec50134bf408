"""A search: what it tries, what it leaves, and that a kill costs nothing."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.training.killed import Killed, killed_at
from tests.tuning.searches import QUIET, SPACE, rows, without_seconds, write, write_srp4ctr
from tfctr.cli import app
from tfctr.config import ConfigError, RunConfig, digest, load_run
from tfctr.data.manifest import DataError
from tfctr.stages import Run
from tfctr.tuning import search, tune


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


@pytest.mark.processes
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


@pytest.mark.processes
def test_the_first_trial_is_the_run_itself_and_a_row_is_the_mean_over_seeds(
    done: Path, tmp_path: Path
) -> None:
    first = rows(done)[0]
    assert float(first["training.optimizer.learning_rate"]) == 0.001
    assert json.loads(first["model.hidden_units"]) == [8]
    assert first["model.num_cross_layers"] == "3"  # the class's default, outside of the space
    config = load_run(done / "run.yaml")
    seeded = config.training.model_copy(update={"seed": 2})
    shutil.copytree(done / "work" / "world", tmp_path / "world")
    Run(config.model_copy(update={"training": seeded}), tmp_path, QUIET).train()
    trial = done / "work" / "run-tune" / "trial-0000-seed-"
    manifests = [f"{trial}1/train.json", f"{trial}2/train.json", tmp_path / "run" / "train.json"]
    *found, alone = [json.loads(Path(path).read_text()) for path in manifests]
    one, two = (manifest["best_valid_auc"] for manifest in found)
    assert one != two == alone["best_valid_auc"]
    assert float(first["valid_auc"]) == pytest.approx((one + two) / 2, abs=1e-12)
    assert float(first["valid_auc_deviation"]) == pytest.approx(abs(one - two) / 2**0.5, abs=1e-12)
    losses = [m["epochs"][m["best_epoch"] - 1]["valid_log_loss"] for m in found]
    assert float(first["valid_log_loss"]) == pytest.approx(sum(losses) / 2, abs=1e-12)
    assert float(first["best_epoch"]) == sum(m["best_epoch"] for m in found) / 2
    assert int(first["parameters"]) == found[0]["parameters"]


@pytest.mark.processes
def test_best_yaml_is_the_best_row_and_its_run_has_its_model_already(done: Path) -> None:
    folder = done / "work" / "run-tune"
    best = max(rows(done), key=lambda row: float(row["valid_auc"]))
    config = load_run(folder / "best.yaml")
    written = yaml.safe_load((folder / "best.yaml").read_text())
    assert list(written) == ["extends", "name", *sorted(SPACE), "training.seed"]
    assert (written["extends"], written["name"]) == ("../../run.yaml", "run-best")
    assert digest(config.data) == digest(load_run(done / "run.yaml").data)
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
def test_a_killed_search_ends_with_the_same_table(done: Path, folder: Path) -> None:
    """Killed in the middle of two trainings; 8 steps are an epoch, 32 a trial."""
    path = write(folder)
    finished = []
    for step in (12, 33):
        with killed_at(step):
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


@pytest.mark.processes
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


@pytest.mark.processes
def test_a_failed_trial_has_its_reason_and_the_others_go_on(folder: Path) -> None:
    space = {"training.optimizer.learning_rate": {"choices": [1e30, 0.02]}}
    path = write(folder, space, trials=6, seeds=[1])
    tune(path, folder / "work", QUIET)
    table = rows(folder)
    by_rate = {row["training.optimizer.learning_rate"]: row for row in table}
    assert set(by_rate) == {"0.001", "1e+30", "0.02"}
    assert "weights are no longer finite" in by_rate["1e+30"]["failed"]
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
    with pytest.raises(DataError, match="all 2 trials failed; the first: epoch 1: the model's w"):
        tune(path, folder / "work", QUIET)


@pytest.mark.slow
def test_trials_are_compared_by_what_chooses_their_epochs(folder: Path) -> None:
    path = write(folder, trials=2, seeds=[1])
    run = yaml.safe_load((folder / "run.yaml").read_text())
    run["training"]["chosen_by"] = "log_loss"
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    best_path = tune(path, folder / "work", QUIET)
    best = min(rows(folder), key=lambda row: float(row["valid_log_loss"]))
    found = f"# trial {best['trial']} of tune.yaml: validation log loss "
    assert best_path.read_text().startswith(found + f"{float(best['valid_log_loss']):.4f}\n")


@pytest.mark.slow
def test_a_search_of_a_methods_keys_ends_with_a_run_config(tmp_path: Path) -> None:
    space = {
        "frameworks.srp4ctr.num_queries": {"low": 2, "high": 3},
        "training.optimizer.learning_rate": {"low": 0.01, "high": 0.02},
    }
    work = tmp_path / "work"
    best_path = tune(f"{write_srp4ctr(tmp_path, space)}#queries", work, QUIET)
    table = rows(tmp_path, "student")
    assert [row["failed"] for row in table] == ["", ""]
    assert table[0]["frameworks.srp4ctr.num_queries"] == "1"
    best = max(table, key=lambda row: float(row["valid_auc"]))
    assert best_path.read_text().startswith(f"# trial {best['trial']} of students.yaml#queries: ")
    config = load_run(best_path)
    queries = int(best["frameworks.srp4ctr.num_queries"])
    assert (config.name, config.method("srp4ctr").num_queries) == ("student-best", queries)
    assert config.method("srp4ctr").encoder.dim == 4
    assert Run(config, work, QUIET).trained.is_done()
    assert sorted(path.name for path in work.glob("[a-z]*")) == [
        "student-best",
        "student-tune",
        "world",
    ]


# --- what follows trains nothing ------------------------------------------------------------------


Pretend = Callable[..., list[str]]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Has trials come to what their values say, the better the nearer to a learning rate of 0.01,
    or as told by the number of the trial; gives the names of the runs, as they come."""

    def start(killed_in: str = "", outcomes: dict[int, dict[str, Any]] | None = None) -> list[str]:
        names: list[str] = []

        def train(configs: Iterable[RunConfig], *_: Any) -> dict[str, Any]:
            auc = 0.0
            for config in configs:
                names.append(config.name)
                if config.name == killed_in:
                    raise Killed
                auc = 0.8 - abs(config.training.optimizer.learning_rate - 0.01)
                auc -= 0.01 * config.model.arguments.get("num_cross_layers", 3)
            found = {"valid_auc": auc, "valid_log_loss": 1 - auc, "valid_gauc": None}
            found |= {"valid_auc_deviation": None, "parameters": 1, "failed": ""}
            number = int(re.findall(r"trial-(\d+)", names[-1])[0])
            return found | (outcomes or {}).get(number, {})

        monkeypatch.setattr(search, "train", train)
        return names

    return start


def test_a_resumed_search_proposes_what_one_that_was_never_killed_would(
    folder: Path, pretend: Pretend
) -> None:
    """Ten are drawn at random, and two of those after them are killed, one in its second seed."""
    path = write(folder, trials=15)
    names = pretend()
    tune(path, folder / "work", QUIET)
    expected = rows(folder)
    assert len(expected) == 15
    assert names == [f"trial-{n:04d}-seed-{seed}" for n in range(15) for seed in (1, 2)]
    tuned = folder / "work" / "run-tune"
    shutil.rmtree(tuned)
    for killed_in in ("trial-0000-seed-1", "trial-0004-seed-1", "trial-0012-seed-2"):
        pretend(killed_in)
        with pytest.raises(Killed):
            tune(path, folder / "work", QUIET)
    names = pretend()
    tune(path, folder / "work", QUIET)
    assert names[0] == "trial-0012-seed-1"
    assert rows(folder) == expected
    assert not list(tuned.glob("*.lock"))


def test_what_a_kill_leaves_of_the_journal_is_no_hindrance(folder: Path, pretend: Pretend) -> None:
    """Half a line, and the lock of who wrote it."""
    path, journal = write(folder), folder / "work" / "run-tune" / "journal.log"
    pretend()
    tune(path, folder / "work", QUIET)
    expected = rows(folder)
    lines = journal.read_bytes().splitlines(keepends=True)
    last_of_kind = {json.loads(line)["op_code"]: number for number, line in enumerate(lines)}
    for whole in last_of_kind.values():
        shutil.rmtree(journal.parent)
        journal.parent.mkdir()
        journal.write_bytes(b"".join(lines[:whole]) + lines[whole][: len(lines[whole]) // 2])
        Path(f"{journal}.lock").touch()
        tune(path, folder / "work", QUIET)
        found = rows(folder)
        assert len(found) == 3
        if b'"op_code":5' not in lines[whole - 1]:  # it was not within a proposal
            assert found == expected


def test_the_best_is_what_the_run_is_chosen_by_and_the_first_of_equals(
    folder: Path, pretend: Pretend
) -> None:
    def measured(auc: float, gauc: float, log_loss: float) -> dict[str, Any]:
        return {"valid_auc": auc, "valid_gauc": gauc, "valid_log_loss": log_loss}

    outcomes = {
        0: measured(0.6, 0.6, 0.6),
        1: {"failed": "diverged"},
        2: measured(0.7, 0.6, 0.5),
        3: measured(0.6, 0.7, 0.5),
        4: measured(0.7, 0.7, 0.4),
    }
    for chosen_by, best in {"auc": 2, "gauc": 3, "log_loss": 4}.items():
        path = write(folder, trials=5)
        run = yaml.safe_load((folder / "run.yaml").read_text())
        run["training"]["chosen_by"] = chosen_by
        (folder / "run.yaml").write_text(yaml.safe_dump(run))
        pretend(outcomes=outcomes)
        best_path = tune(path, folder / "work", QUIET)
        assert best_path.read_text().startswith(f"# trial {best} of tune.yaml: validation ")
        assert [row["failed"] for row in rows(folder)] == ["", "diverged", "", "", ""]
        shutil.rmtree(best_path.parent)


def test_values_of_the_run_that_lie_outside_of_the_space(folder: Path, pretend: Pretend) -> None:
    """A number, a choice, and what the run does not say; the search goes on behind the ten that are
    drawn at random."""
    space = SPACE | {
        "model.hidden_units": {"choices": [[4], [4, 2]]},
        "training.steps_per_epoch": {"low": 1, "high": 1000, "log": True},
    }
    pretend()
    tune(write(folder, space, trials=13), folder / "work", QUIET)
    first, *others = rows(folder)
    assert json.loads(first["model.hidden_units"]) == [8]
    assert first["training.steps_per_epoch"] == "null"
    assert first["model.num_cross_layers"] == "3"
    for row in others:
        assert json.loads(row["model.hidden_units"]) in ([4], [4, 2])
        assert 1 <= int(row["training.steps_per_epoch"]) <= 1000
        assert row["model.num_cross_layers"] in ("1", "2")


def test_without_optuna_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "tfctr.tuning")
    monkeypatch.delattr("tfctr.tuning")
    result = CliRunner().invoke(app, ["tune", str(write(tmp_path))])
    assert result.exit_code == 1
    assert "needs optuna: pip install 'tfctr[tune]'" in result.output
