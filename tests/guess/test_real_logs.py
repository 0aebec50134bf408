"""`tfctr init` on real logs, and `prepare` on what it writes, without an edit."""

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from tfctr.cli import app
from tfctr.config import load_run
from tfctr.data.manifest import read_manifest
from tfctr.stages import prepare


def unpacked(folder: Path, archive: str, *members: str) -> list[str]:
    path = Path(os.environ.get("TFCTR_DATA_HOME") or folder) / archive
    if not path.is_file():
        pytest.skip(f"needs {archive} in the folder that TFCTR_DATA_HOME names")
    with zipfile.ZipFile(path) as opened:
        return [opened.extract(member, folder) for member in members]


def init(folder: Path, *args: str) -> dict[str, Any]:
    """The `data` of the config that it writes."""
    output = folder / "run.yaml"
    result = CliRunner().invoke(app, ["init", *args, "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert "to decide" not in result.output
    data: dict[str, Any] = yaml.safe_load(output.read_text())["data"]
    return data


def prepared(folder: Path) -> dict[str, Any]:
    """The manifest of `tfctr prepare` on it."""
    config = load_run(folder / "run.yaml").data
    prepare(config, folder / "work", console=Console(quiet=True))
    manifest = read_manifest(folder / "work" / "manifest.json")
    assert manifest is not None
    return manifest


def test_movielens_100k(tmp_path: Path) -> None:
    (ratings,) = unpacked(tmp_path, "ml-100k.zip", "ml-100k/u.data")
    data = init(tmp_path, ratings)
    assert data["source"]["separator"] == "\t"
    assert data["source"]["columns"] == ["user", "item", "rating", "timestamp"]
    assert data["label"] == {"column": "rating", "positive_above": 3}
    assert data["time"] == {"column": "timestamp"}
    manifest = prepared(tmp_path)
    assert (manifest["counts"]["read"], manifest["counts"]["bad"]) == (100_000, 0)


def test_open_bandit(tmp_path: Path) -> None:
    log, items = unpacked(
        tmp_path, "obd-small.zip", "obd/bts/men/men.csv", "obd/bts/men/item_context.csv"
    )
    data = init(tmp_path, log, "--items", items)
    assert data["label"] == {"column": "click"}
    assert data["time"] == {"column": "timestamp", "unit": "us"}
    assert data["item"] == "item_id"
    assert [feature["name"] for feature in data["features"]] == [
        *("item_id", "position", "propensity_score", "user_feature_*", "user-item_affinity_*"),
        *("item_feature_0", "item_feature_1", "item_feature_2", "item_feature_3"),
    ]
    manifest = prepared(tmp_path)
    assert (manifest["counts"]["read"], manifest["counts"]["bad"]) == (10_000, 0)
    assert manifest["counts"]["unmatched_items"] == 0
    assert len(manifest["schema"]["features"]) == 3 + 4 + 34 + 4


@pytest.mark.slow
def test_movielens_1m(tmp_path: Path) -> None:
    members = ("ml-1m/ratings.dat", "ml-1m/users.dat", "ml-1m/movies.dat")
    ratings, users, items = unpacked(tmp_path, "ml-1m.zip", *members)
    data = init(tmp_path, ratings, "--users", users, "--items", items)
    assert (data["source"]["separator"], data["source"]["encoding"]) == ("::", "latin-1")
    kinds = {feature["name"]: feature["kind"] for feature in data["features"]}
    assert (kinds["items_2"], kinds["items_3"]) == ("text", "multi_valued")
    counts = prepared(tmp_path)["counts"]
    assert (counts["read"], counts["bad"]) == (1_000_209, 0)
    assert (counts["unmatched_users"], counts["unmatched_items"]) == (0, 0)
