"""The README's own examples work."""

import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tfctr.cli import app

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


def test_your_own_csv_in_ten_lines(shop: Path) -> None:
    assert (shop / "work" / "shop-dcnv2" / "metrics.json").is_file()
    assert (shop / "saved_models" / "shop-dcnv2" / "1" / "saved_model.pb").is_file()


def test_the_python_example(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(code, {})
    assert (shop / "saved_models" / "shop" / "1" / "saved_model.pb").is_file()


def test_every_file_that_the_docs_link_to_is_there() -> None:
    root = Path(__file__).parents[2]
    for page in [root / "README.md", *(root / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
