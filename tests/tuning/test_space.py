"""What a search may be: mistakes are found before anything is prepared."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import FixedTrial

from tests.tuning.searches import write, write_srp4ctr
from tfctr.config import ConfigError, variants
from tfctr.tuning import Searched, load_tune

QUERIES = {"frameworks.srp4ctr.num_queries": {"low": 1, "high": 3}}


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
            "space: training.optimizer: unknown key 'learning_rat' (did you mean 'learning_rate'?)",
        ),
        ({"training.batch_size": {"low": 0, "high": 8}}, "space: training.batch_size: found 0; "),
        ({"training.batch_size.x": {"choices": [1]}}, "batch_size.x: found 2048, which has"),
        (
            {"training.optimizer.name": {"choices": ["adam"]}}
            | {"training.optimizer.embedding_l2": {"choices": [0.1]}},
            "space: training.optimizer: embedding_l2 needs lazy_adam or lazy_adagrad, found 'adam'",
        ),
        ({"frameworks.rok.tuned": {"choices": [True]}}, "space: frameworks: found dict; "),
        ({"training.seed": {"low": 1, "high": 3}}, "the key 'seeds' gives the seeds"),
        ({"training.chosen_by": {"choices": ["auc", "gauc"]}}, "compared by this measure"),
        ({"data.split.seed": {"low": 1, "high": 3}}, "space: found key 'data.split.seed'; allowed"),
        ({}, "space: found dict; dictionary should have at least 1 item"),
        ({"model.dropout": {"lo": 1}}, "space.model.dropout: unknown key 'lo' (did you mean 'low'"),
        ({"model.dropout": {"low": 0}}, "space.model.dropout: give choices, or low and high"),
        ({"model.dropout": {"low": 1, "high": 1}}, "low must be below high, found 1 and 1"),
        ({"model.dropout": {"low": "a", "high": 1}}, "dropout.low: found 'a'; a number is needed"),
        ({"model.dropout": {"low": 0, "high": 1, "log": True}}, "low must be above 0 where log"),
        ({"model.dropout": {"low": 0, "choices": [1]}}, "choices exclude other keys, found low"),
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
    write(tmp_path)
    run = yaml.safe_load((tmp_path / "run.yaml").read_text())
    run["training"]["refit"] = True
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    with pytest.raises(
        ConfigError, match=r"run\.yaml: training\.refit: found true; trials are com"
    ):
        load_tune(path)


def test_the_searches_of_the_repository_are_valid() -> None:
    path = Path(__file__).parents[2] / "configs" / "movielens-1m" / "tune.yaml"
    for search in (path, *variants(path)):
        load_tune(search)


def test_keys_of_a_method_are_searched_too(tmp_path: Path) -> None:
    says = {
        "num_queris": "unknown key 'num_queris' (did you mean 'num_queries'?)",
        "encoder.dim": "frameworks.srp4ctr.encoder holds no keys of its own here; give the w",
    }
    for number, (key, expected) in enumerate(says.items()):
        space = {f"frameworks.srp4ctr.{key}": {"low": 1, "high": 2}}
        folder = tmp_path / str(number)
        path = f"{write_srp4ctr(folder, space)}#queries"
        with pytest.raises(ConfigError) as caught:
            load_tune(path)
        assert expected in str(caught.value)
        assert str(caught.value).startswith(f"{path}: space: frameworks")
    space = load_tune(f"{write_srp4ctr(tmp_path / 'fine', QUERIES)}#queries")
    assert space.own_values == {"frameworks.srp4ctr.num_queries": 1}
    run = space.run({"frameworks.srp4ctr.num_queries": 3}, 2, "trial")
    assert (run.name, run.training.seed, run.method("srp4ctr").num_queries) == ("trial", 2, 3)
    assert space.base.method("srp4ctr").num_queries == 1


def test_a_folder_of_the_search_is_no_other_ones(tmp_path: Path) -> None:
    path = write(tmp_path)
    run = yaml.safe_load((tmp_path / "run.yaml").read_text())
    for name in ("run-tune", "run-best"):
        run["data"]["name"] = name
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
        with pytest.raises(ConfigError, match=rf"run\.yaml: name: '{name}' is the data's name too"):
            load_tune(path)


def test_a_stepped_number_is_asked_for_as_one_would_write_it() -> None:
    tenths = Searched(low=0.1, high=0.5, step=0.1)
    asked = [tenths.suggest(FixedTrial({"x": 0.1 + i * 0.1}), "x") for i in range(5)]
    assert asked == [0.1, 0.2, 0.3, 0.4, 0.5]
    whole = Searched(low=1, high=5, step=2)
    assert [type(whole.suggest(FixedTrial({"x": n}), "x")) for n in (1, 3)] == [int, int]


def test_what_optuna_can_hold_of_the_runs_own_values() -> None:
    choices = Searched(choices=[[8], True, None])
    held = [choices.as_parameter(value) for value in ([8], True, None, 1, [8, 4])]
    assert held == ["[8]", "true", "null", None, None]
    assert Searched(low=1, high=2).as_parameter(3) == 3  # outside
    assert Searched(low=1, high=2, log=True).as_parameter(0) is None
    assert [Searched(low=0, high=2).as_parameter(value) for value in (None, True)] == [None, None]
