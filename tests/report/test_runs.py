"""Pages of trained runs, whose log has strings that must not become markup."""

import html
import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner, Result

from tests.report.browser import laid_out
from tfctr.cli import app
from tfctr.data.dataset import Dataset

ROWS = 2000
HOSTILE = "<script>alert(1)</script>"
TITLE = '"><img src=x onerror=alert(2)> $a_b$ & {{ 7 * 7 }}'

PARTS = ["result", "curves", "scores", "segments", "importance", "features", "neighbours"]


def write_log(folder: Path) -> None:
    """Items 0 to 29, of which every third is clicked often; item 0 has most rows, and hostile
    strings."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 30, ROWS), rng.integers(0, 30, ROWS)
    item[rng.random(ROWS) < 0.2] = 0
    click = rng.random(ROWS) < (item % 3 == 0) * 0.6 + 0.1
    names = [f"item {i}" for i in range(30)]
    titles = [f"Title {i}" for i in range(30)]
    names[0], titles[0] = HOSTILE, TITLE
    rows = [
        {
            "time": 1_700_000_000 + i,
            "user": f"u{user[i]}",
            "item": names[item[i]],
            "title": titles[item[i]],
            "price": None if i % 10 == 0 else 1 + item[i] / 4,
            "click": int(click[i]),
        }
        for i in range(ROWS)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_config(folder: Path, name: str, **changes: Any) -> str:
    content = {
        "name": name,
        "data": {
            "name": "shop",
            "source": {"format": "jsonl", "events": "log.jsonl"},
            "label": {"column": "click"},
            "time": {"column": "time"},
            "user": "user",
            "item": "item",
            "features": [
                {"name": "user", "kind": "categorical", "side": "user"},
                {"name": "item", "kind": "categorical", "side": "item"},
                {"name": "price", "kind": "numeric", "side": "item"},
                {"name": "title", "kind": "text", "side": "item"},
            ],
        },
        "model": {"backbone": "dnn", "embedding_dim": 4, "hidden_units": [8]},
        "training": {"batch_size": 256, "epochs": 2, "optimizer": {"learning_rate": 0.01}},
        "export": {"directory": str(folder / "saved_models")},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return str(path)


def tfctr(folder: Path, *args: str) -> Result:
    result = CliRunner().invoke(app, [*args, "--work", str(folder / "work")])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after `tfctr run deep.yaml`, with the command's output in `said.txt`."""
    folder = tmp_path_factory.mktemp("report")
    write_log(folder)
    result = tfctr(folder, "run", write_config(folder, "deep"))
    (folder / "said.txt").write_text(result.output)
    return folder


@pytest.fixture(scope="module")
def page(done: Path) -> str:
    return (done / "work" / "deep" / "report.html").read_text()


def test_a_run_ends_with_its_page(done: Path, page: str) -> None:
    path = done / "work" / "deep" / "report.html"
    assert (done / "said.txt").read_text().splitlines()[-1] == f"report: {path}"
    for part in PARTS:
        assert f'<h2 id="{part}">' in page
    titles = re.findall("<figcaption>(.*)</figcaption>", page)
    assert titles == [
        *("AUC", "GAUC", "log loss"),
        *("Training loss", "Validation AUC", "Validation GAUC", "Validation log loss"),
        *("Calibration", "ROC curve", "Scores by label: deep"),
        *("AUC by segment", "GAUC by segment"),
        "Fall of AUC where a feature is shuffled",
    ]
    assert page.count("<svg role") == len(titles)


def test_its_numbers_are_the_runs(done: Path, page: str) -> None:
    found = json.loads((done / "work" / "deep" / "metrics.json").read_text())["test"]
    baselines = json.loads((done / "work" / "shop-baselines" / "baselines.json").read_text())
    for measured in (found, baselines["test"]["logistic regression"]):
        for name in ("auc", "gauc", "log_loss"):
            assert f"<td>{measured[name]:.4f}" in page
    low, high = found["intervals"]["auc"]
    assert f"{low:.4f} to {high:.4f}" in page
    assert f"{found['segments']['rare_items']['rows']}</td>" in page
    epochs = json.loads((done / "work" / "deep" / "train.json").read_text())["epochs"]
    curve = ", ".join(f"{epoch['valid_auc']:.3f}" for epoch in epochs)
    assert f'aria-label="Validation AUC. By epoch: deep: {curve}"' in page
    train = Dataset.open(done / "work" / "shop").columns("train", ["price", "item"])
    assert f"<td>{np.isnan(train['price']).mean():.1%}</td>" in page
    first = np.bincount(train["item"]).max() / len(train["item"])
    assert f'<span class="muted">{first:.1%}</span>' in page
    for stage in ("prepare", "train", "evaluate", "export"):
        cost = r"<td>[\d.]+</td><td>([\d,.]+ [MG]B|–)</td>"
        assert re.search(f"<tr><th>{stage}</th>{cost}", page), stage


def test_strings_of_the_log_are_text(page: str) -> None:
    assert html.escape(HOSTILE) in page
    assert html.escape(TITLE).replace("&quot;", "&#34;") in page
    assert "<script" not in page
    assert "<img" not in page
    assert "{{ 7 * 7 }}" in page
    addresses = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert all(address.startswith("#") for address in addresses)  # nothing from elsewhere
    assert not re.search(r"url\((?!#)|@import", page)


def test_a_second_run_writes_no_second_page_and_without_the_extra_says_so(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = done / "work" / "deep" / "report.html"
    before = path.stat().st_mtime_ns
    assert f"report is done: {path}" in tfctr(done, "report", str(done / "deep.yaml")).output
    assert path.stat().st_mtime_ns == before
    monkeypatch.setattr("tfctr.report.page.find_spec", lambda name: None)
    said = tfctr(done, "run", str(done / "deep.yaml")).output.splitlines()
    assert said[-1] == "no report was written: it needs `pip install 'tfctr[report]'`"
    refused = CliRunner().invoke(
        app, ["report", str(done / "deep.yaml"), "--work", str(done / "work")]
    )
    assert refused.exit_code == 1
    assert "the page needs jinja2 and matplotlib; `pip install 'tfctr[report]'`" in refused.output


def test_runs_side_by_side(done: Path, tmp_path: Path) -> None:
    other = write_config(done, "other", model={"backbone": "lr", "features": ["user", "item"]})
    path = tmp_path / "pages" / "two.html"
    said = tfctr(done, "report", str(done / "deep.yaml"), other, "--output", str(path)).output
    assert said.splitlines()[-1] == f"page: {path}"
    page = path.read_text()
    assert "Differences are to deep" in page
    found = [
        json.loads((done / "work" / name / "metrics.json").read_text())["test"]
        for name in ("deep", "other")
    ]
    difference = f"{found[1]['auc'] - found[0]['auc']:+.4f}".replace("-", "−")
    assert f">{difference}</span>" in page
    assert page.count("Scores by label: ") == 4  # under the pictures, and in their descriptions
    assert "The model does not read price" in page
    assert "Left out: the model&#39;s embedding of item has no directions to compare" in page
    assert re.search(
        r'<tr><th>model.backbone</th><td class="wrapped">dnn</td><td class="wrapped">lr</td>', page
    )
    assert '<ul class="legend"' in page


def test_kinds_of_files_are_not_mixed(done: Path, tmp_path: Path) -> None:
    (tmp_path / "rollout.yaml").write_text("name: x\ndays: days.yaml\n")
    files = [str(done / "deep.yaml"), str(tmp_path / "rollout.yaml")]
    refused = CliRunner().invoke(app, ["report", *files])
    assert refused.exit_code == 1
    assert f"{files[1]}: runs and rollouts do not fit on one page with {files[0]}" in refused.output


@pytest.mark.slow
def test_without_users_items_and_test_rows(done: Path, tmp_path: Path) -> None:
    shutil.copy(done / "log.jsonl", tmp_path)
    data = yaml.safe_load((done / "deep.yaml").read_text())["data"]
    data |= {"user": None, "item": None, "split": {"valid": 0.2, "test": 0}}
    config = write_config(tmp_path, "nameless", data=data)
    tfctr(tmp_path, "report", config)
    page = (tmp_path / "work" / "nameless" / "report.html").read_text()
    assert "There is no GAUC: the data config does not name the user." in page
    assert "There are none: the data config names neither the user nor the item." in page
    assert "Left out: the data config does not name the item." in page
    assert "intervals over resampled\nrows" in page
    assert "validation rows" in page
    assert "GAUC</th>" not in page
    assert "Validation GAUC" not in page


def test_the_libraries_of_pages_are_imported_when_a_page_is_written() -> None:
    assert find_spec("matplotlib")
    code = (
        "import sys, tfctr, tfctr.cli, tfctr.report; tfctr.report.Report, tfctr.report.Settings;"
        "print([m for m in ('matplotlib', 'jinja2', 'markupsafe') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("width", [400, 1280])
def test_a_browser_shows_all_of_it(done: Path, tmp_path: Path, width: int) -> None:
    is_dark = width == 400
    found = laid_out(done / "work" / "deep" / "report.html", width, tmp_path, is_dark)
    assert found["inner"] == width
    assert found["scroll"] <= width  # tables scroll by themselves
    assert len(found["pictures"]) == 13
    for picture in found["pictures"]:
        assert 250 < picture["width"] <= width
        assert 60 < picture["height"] < 600
        assert picture["texts"] > 3
        assert picture["cut"] == picture["over"] == []
        assert picture["letters"] > 9  # pixels
        assert (picture["colour"] == "rgb(31, 35, 40)") == (not is_dark)
    assert (found["back"] == "rgb(255, 255, 255)") == (not is_dark)
