"""Small searches, and what they leave."""

import csv
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from tests.conftest import WORLD_FEATURES, world_config

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


def write_srp4ctr(folder: Path, space: dict[str, Any]) -> Path:
    """A run whose encoder starts at random, in `folder/configs`, and a search below it."""
    tune = folder / "configs" / "tune"
    tune.mkdir(parents=True)
    source = {"format": "world", "users": 60, "items": 40, "events": 3_000, "seed": 3}
    histories = [
        {"name": "past_item", "kind": "history", "shares": "item_id", "max_length": 4},
        {"name": "past_click", "kind": "history", "column": "click", "max_length": 4},
    ]
    data = world_config(source=source, features=[*histories, *WORLD_FEATURES])
    contents = {
        "data": data.model_dump(mode="json", exclude_none=True),
        "encoder": {
            "name": "encoder",
            "sequences": {"name": "windows", "data": "data.yaml"},
            "dim": 4,
            "num_layers": 1,
        },
        "run": {
            "name": "student",
            "frameworks": [
                {
                    "name": "srp4ctr",
                    "encoder": "encoder.yaml",
                    "pretrained": False,
                    "num_queries": 1,
                }
            ],
            "model": {"backbone": "lr", "features": ["user_id", "item_id"]},
            "training": {"batch_size": 512, "epochs": 1},
            "export": {"directory": str(folder / "saved_models")},
        },
        "tune/students": {
            "run": "../run.yaml",
            "trials": 5,
            "space": {"training.epochs": {"low": 1, "high": 2}},
            "variants": {"queries": {"trials": 2, "space": space}},
        },
    }
    for name, content in contents.items():
        (folder / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return tune / "students.yaml"


def rows(folder: Path, run: str = "run") -> list[dict[str, str]]:
    with (folder / "work" / f"{run}-tune" / "table.csv").open() as file:
        return list(csv.DictReader(file))


def without_seconds(table: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: text for name, text in row.items() if name != "seconds"} for row in table]
