"""Versions in a model's directory: numbered, kept, deleted."""

from pathlib import Path

import pytest

from tfctr.serving.model_directory import note_config, publish, tidy, versions
from tfctr.serving.tf_serving_config import ModelEntry, write_model


def test_two_exports_at_once_get_two_versions(tmp_path: Path) -> None:
    def outer(folder: Path) -> None:
        (folder / "x").write_text("outer")
        publish(tmp_path, lambda inner: (inner / "x").write_text("inner"))

    assert publish(tmp_path, outer) == tmp_path / "2"
    assert (tmp_path / "1" / "x").read_text() == "inner"


def test_the_latest_versions_are_kept(tmp_path: Path) -> None:
    for number in ("9", "10", "11", "2"):
        (tmp_path / number).mkdir()
        (tmp_path / number / "saved_model.pb").touch()
    (tmp_path / ".tmp-killed").mkdir()
    (tmp_path / "notes").mkdir()
    tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "11", "2", "9", "notes"]
    tidy(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "11", "notes"]
    tidy(tmp_path, keep=5)
    assert [*versions(tmp_path)] == [10, 11]


def test_a_version_that_a_config_names_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tmp_path / "models" / "m"
    for number in range(1, 7):
        (model / str(number)).mkdir(parents=True)
    beside, elsewhere = model.parent / "models.config", tmp_path / "live" / "models.config"
    write_model(beside, "m", ModelEntry("/models/m", {"stable": 1}, (1, 2)))
    write_model(beside, "other", ModelEntry("/models/other", {"stable": 3}, (3,)))
    write_model(elsewhere, "renamed", ModelEntry("gs://bucket/m", {"stable": 4}, (4,)))
    for config in (beside, elsewhere, elsewhere):
        note_config(model, config)
    tidy(model, keep=1)
    assert [*versions(model)] == [1, 2, 4, 6]
    elsewhere.unlink()
    tidy(model, keep=1)
    assert [*versions(model)] == [1, 2, 6]
    beside.write_text("model_config_list { nonsense")
    tidy(model, keep=1)  # nobody knows what is served
    assert [*versions(model)] == [1, 2, 6]
    assert "no version is deleted" in caplog.text
