"""A config that extends another by the paths of keys."""

from pathlib import Path

import pytest

from tfctr.config import ConfigError, read, with_values


def test_a_file_that_extends_another_may_name_keys_by_their_paths(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "{name: base, model: {dropout: 0.1}, frameworks: [{name: a, k: 1}, {name: b, file: c}]}"
    )
    below = tmp_path / "below"
    below.mkdir()
    path = below / "changed.yaml"
    path.write_text(
        "extends: ../base.yaml\nmodel.dropout: 0.2\nframeworks.a.k: 2\ntraining.seed: 3"
    )
    found = read(path)
    assert found == {
        "name": "base",
        "model": {"dropout": 0.2},
        "frameworks": [{"name": "a", "k": 2}, {"name": "b", "file": "c"}],
        "training": {"seed": 3},
    }
    assert found["frameworks"][1]["file"].directory.resolve() == tmp_path
    path.write_text("extends: ../base.yaml\nframeworks.b.file.k: 2")
    with pytest.raises(ConfigError, match=r"changed\.yaml: frameworks\.b\.file\.k: frameworks\.b"):
        read(path)


def test_values_are_put_into_a_copy() -> None:
    content, schedule = {"training": {"epochs": 1}}, {"name": "cosine"}
    values = {"training.schedule": schedule, "training.schedule.final": 0.1}
    found = with_values(content, values, "here")
    schedules = {"epochs": 1, "schedule": {"name": "cosine", "final": 0.1}}
    assert found == {"training": schedules}
    assert content == {"training": {"epochs": 1}}
    assert schedule == {"name": "cosine"}
    with pytest.raises(ConfigError, match=r"here: training\.epochs\.x: found 1, which has no keys"):
        with_values(content, {"training.epochs.x": 1}, "here")
