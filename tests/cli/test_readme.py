"""The README's own examples work."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tfctr.cli import app
from tfctr.config import load_run

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's `shop.yaml` and a `clicks.csv`, after `tfctr run shop.yaml`."""
    folder = tmp_path_factory.mktemp("shop")
    (config,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert len(config.splitlines()) <= 12
    (folder / "shop.yaml").write_text(config)
    rng = np.random.default_rng(0)
    n = 3000
    user, item = rng.integers(0, 40, n), rng.integers(0, 30, n)
    click = rng.random(n) < (item % 3 == 0) * 0.6 + 0.1
    lines = [
        f"{1_700_000_000 + i},u{user[i]},item {item[i]},{1 + item[i] / 4:.2f},{int(click[i])}\n"
        for i in range(n)
    ]
    (folder / "clicks.csv").write_text("timestamp,user,item,price,click\n" + "".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(app, ["run", "shop.yaml"])
    assert result.exit_code == 0, result.output
    return folder


@pytest.mark.processes
def test_your_own_csv_in_ten_lines(shop: Path) -> None:
    assert (shop / "work" / "shop-dcnv2" / "metrics.json").is_file()
    assert (shop / "saved_models" / "shop-dcnv2" / "1" / "saved_model.pb").is_file()
    page = (shop / "work" / "shop-dcnv2" / "report.html").read_text()
    assert "There is no GAUC: the data config does not name the user." in page


def test_the_config_is_what_init_writes(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(shop / "clicks.csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"^tfctr (init .*)$", README, re.MULTILINE)
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 0, result.output
    written, by_hand = load_run("shop.yaml"), load_run(shop / "shop.yaml")
    assert (written.name, written.model) == (by_hand.name, by_hand.model)
    data, shown = written.data.model_dump(), by_hand.data.model_dump()
    assert (data["user"], data["item"]) == ("user", "item")  # the README's needs neither
    of_features = [feature | {"min_count": 1} for feature in data["features"][:2]]
    assert [*of_features, data["features"][2]] == list(shown["features"])
    keys = ("name", "source", "label", "time", "split")
    assert [data[key] for key in keys] == [shown[key] for key in keys]


def test_the_python_example(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code.splitlines()) <= 13  # ten and the imports
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["df"]["probability"].between(0, 1, inclusive="neither").all()
    assert (shop / "saved_models" / "shop" / "1" / "saved_model.pb").is_file()


def test_every_file_that_the_docs_link_to_is_there() -> None:
    root = Path(__file__).parents[2]
    for page in [root / "README.md", *(root / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
