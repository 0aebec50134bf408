"""Which keys of configs differ, and from what."""

from pathlib import Path

import pytest
import yaml

from tests.conftest import world_config
from tfctr.config import ConfigError, RunConfig, base_of
from tfctr.report.settings import MISSING, Settings, as_yaml, between, flat


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(
        "name: base\nmodel: {backbone: dnn, hidden_units: [8]}\nframeworks: [{name: rok, k: 3}]\n"
    )
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "run.yaml").write_text(
        "extends: ../base.yaml\nname: run\nmodel: {dropout: 0.1}\n"
        "variants:\n  wide: {model.hidden_units: [64]}\n"
        "  wider: {extends: wide, model.dropout: 0.2}\n"
    )
    return tmp_path


def test_what_a_config_is_made_from(folder: Path) -> None:
    run = folder / "more" / "run.yaml"
    assert base_of(folder / "base.yaml") is None
    assert Path(base_of(run) or "").resolve() == folder / "base.yaml"
    assert base_of(f"{run}#") == base_of(run)
    assert base_of(f"{run}#wide") == f"{run}#"
    assert base_of(f"{run}#wider") == f"{run}#wide"
    with pytest.raises(ConfigError, match="no such file"):
        base_of(folder / "none.yaml")


def test_differences_are_those_to_the_base(folder: Path) -> None:
    run = folder / "more" / "run.yaml"
    assert Settings.of_file(str(run)).differences() == [("model.dropout", "0.1", MISSING)]
    wide = Settings.of_file(f"{run}#wide")
    assert wide.base == f"{run}#"
    assert wide.differences() == [("model.hidden_units", "[64]", "[8]")]
    assert Settings.of_file(f"{run}#wider").differences() == [("model.dropout", "0.2", "0.1")]
    by_hand = Settings.of_file(f"{run}#wider", ["frameworks.rok.k=5"])
    assert by_hand.base == f"{run}#wider"
    assert by_hand.differences() == [("frameworks.rok.k", "5", "3")]
    whole = Settings.of_file(str(folder / "base.yaml"))
    assert whole.base == ""
    assert whole.differences()[0] == ("model.backbone", "dnn", MISSING)
    assert flat({}) == {}
    assert flat({"a": {}, "b": [1], "c": None}) == {"a": "{}", "b": "[1]", "c": "null"}


def test_runs_differ_in_keys_but_not_in_names() -> None:
    data = world_config()
    first = RunConfig(name="first", data=data, model={"backbone": "lr"})  # type: ignore[arg-type]
    model = {"backbone": "dnn", "hidden_units": [8]}
    second = RunConfig(name="second", data=data, model=model)  # type: ignore[arg-type]
    assert between([first, second]) == [
        ("model.backbone", ["lr", "dnn"]),
        ("model.hidden_units", [MISSING, "[8]"]),
    ]
    assert between([first, first]) == []
    assert RunConfig.model_validate(yaml.safe_load(as_yaml(second))) == second
    assert Settings.of_config(first).differences()[0] == ("data.name", "world", MISSING)
