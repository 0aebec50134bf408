"""A method is added by its folder alone, and stacks with the others."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml
from rich.console import Console

import tests.frameworks.toy.config  # noqa: F401  registers it
from tests.conftest import world_config
from tfctr.config import ConfigError, load_run
from tfctr.config.method import registered
from tfctr.stages import Run, in_order


def write_configs(folder: Path, frameworks: list[dict[str, Any]], **changes: Any) -> Path:
    source = {"format": "world", "users": 60, "items": 40, "events": 3_000, "seed": 3}
    untaught = {"imitation": 0, "contrastive": 0, "embedding_dim": 3, "hidden_units": [4]}
    training = {"batch_size": 512, "epochs": 1, "in_memory": True}
    contents: dict[str, dict[str, Any]] = {
        "data": world_config(source=source).model_dump(mode="json", exclude_none=True),
        "similar": {"name": "similar", "data": "data.yaml", "method": "random", "k": 2},
        "rim": {
            "name": "teacher",
            "frameworks": [{"name": "rim", "similar": "similar.yaml"}],
            "model": {"backbone": "rim", "embedding_dim": 3, "hidden_units": [4]},
        },
        "knowledge": {"name": "knowledge", "teacher": "rim.yaml"} | untaught,
        "run": {
            "name": "stacked",
            "data": "data.yaml",
            "frameworks": frameworks,
            "model": {"backbone": "deepfm", "embedding_dim": 4, "hidden_units": [8]},
            "training": training,
            "export": {"directory": str(folder / "saved_models")},
        }
        | changes,
    }
    for name, content in contents.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder / "run.yaml"


ROK = {"name": "rok", "knowledge": "knowledge.yaml"}
TOY = {"name": "toy", "value": 0.5}


def test_it_runs_from_the_log_to_the_export_around_another(tmp_path: Path) -> None:
    path = write_configs(tmp_path, [ROK, TOY])
    run = Run(load_run(path), tmp_path / "work", Console(quiet=True))
    run.prepare()
    version = run.export()
    model = run.load_model()
    assert [type(m).__name__ for m in (model, model.backbone)] == ["ToyStudent", "RokStudent"]
    assert np.isfinite(json.loads(run.evaluate().read_text())["test"]["log_loss"])
    assert "rank" in tf.saved_model.load(str(version)).signatures
    assert [stage.name for stage in in_order(run.exported)] == ["prepare", "train", "export"]
    other = Run(load_run(path, ["frameworks.toy.value=2", "name=stacked"]), run.work)
    assert other.trained.key() != run.trained.key()
    assert other.dataset.key() == run.dataset.key()


def test_the_order_is_that_of_the_config(tmp_path: Path) -> None:
    path = write_configs(tmp_path, [TOY, ROK])
    assert [method.name for method in load_run(path).frameworks] == ["toy", "rok"]
    assert {"toy", "rok", "ctrl"} <= registered().keys()


@pytest.mark.parametrize(
    ("frameworks", "message"),
    [
        ([TOY, TOY], "frameworks: 'toy' is given twice"),
        ([{"name": "toys"}], r"frameworks\[0\]: name: found 'toys'; allowed: .*ctrl.*, toy"),
        (
            [TOY | {"values": 1}],
            r"frameworks\[0\]: unknown key 'values' \(did you mean 'value'\?\)",
        ),
        ([TOY | {"value": "x"}], r"frameworks\[0\]\.value: found 'x'"),
    ],
)
def test_a_mistake_in_it_is_one_line(
    tmp_path: Path, frameworks: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_run(write_configs(tmp_path, frameworks))
    assert len(str(caught.value).splitlines()) == 1


def test_an_order_that_makes_no_sense_is_one_line(tmp_path: Path) -> None:
    text = {
        "name": "text",
        "data": "data.yaml",
        "encoder": {"preset": "none"},
        "texts": {"item": {"template": "{category}"}},
    }
    path = write_configs(tmp_path, [TOY, {"name": "ctrl", "text": "text.yaml"}])
    (tmp_path / "text.yaml").write_text(yaml.safe_dump(text))
    with pytest.raises(ConfigError, match="'ctrl' works on the plain backbone, so it comes first"):
        load_run(path)
    load_run(write_configs(tmp_path, [{"name": "ctrl", "text": "text.yaml"}, TOY]))


def test_no_other_file_names_a_method() -> None:
    """But for the line that registers each."""
    room, methods = Path("tfctr"), [name for name in registered() if name != "toy"]
    for path in [*room.rglob("*.py"), *Path("benchmarks").glob("over_seeds.py")]:
        if path.is_relative_to(room / "frameworks") and path != room / "frameworks/__init__.py":
            continue
        found = [n for n in methods if f"frameworks.{n}" in path.read_text(encoding="utf-8")]
        assert not found or path == room / "frameworks" / "__init__.py", (path, found)
        assert "isinstance(framework" not in path.read_text(encoding="utf-8")
