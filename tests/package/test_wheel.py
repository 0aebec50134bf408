"""A wheel is all that a user needs: the command and the demo work without the checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("setup.py", "pyproject.toml", "tfctr", "beam_pipelines", "configs")
pytestmark = pytest.mark.processes


def run(command: list[str], folder: Path) -> str:
    hidden = ("PYTHONPATH", "PYTHONHOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel of this checkout, and the libraries of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    ignore = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:  # a copy: a build leaves files beside setup.py
        if (path := ROOT / name).is_dir():
            shutil.copytree(path, source / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(path, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    run([*pip, "wheel", *offline, "--no-build-isolation", "-w", str(folder), "."], source)
    shutil.rmtree(source)
    (wheel,) = folder.glob("tfctr-*.whl")
    environment = folder / "venv"
    venv.create(environment)
    python = environment / "bin" / "python"
    run([*pip, "--python", str(python), "install", *offline, str(wheel)], folder)
    (packages,) = environment.glob("lib/python*/site-packages")
    # Behind the wheel; .pth files there, such as an editable install's, are not read.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment


def test_the_wheel_is_what_is_imported(installed: Path, tmp_path: Path) -> None:
    code = (
        "import json, tfctr, beam_pipelines as b; print(json.dumps([tfctr.__file__, b.__file__]))"
    )
    for file in json.loads(run([str(installed / "bin/python"), "-c", code], tmp_path)):
        assert Path(file).is_relative_to(installed)


def test_the_demo_runs_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    tfctr = str(installed / "bin/tfctr")
    assert "demo" in run([tfctr, "--help"], tmp_path)
    printed = run([tfctr, "demo", "training.epochs=1", "name=quick"], tmp_path)
    assert "SavedModel: saved_models/quick/1" in printed
    assert "A request" in printed
    metrics: dict[str, Any] = json.loads((tmp_path / "work/quick/metrics.json").read_text())
    assert metrics["test"]["auc"] > 0.55
    (tmp_path / "clicks.csv").write_text(
        "user,item,click,timestamp\n"
        + "".join(f"u{i % 9},i{i % 7},{i % 2},{1_700_000_000 + i}\n" for i in range(200))
    )
    assert "next: tfctr run clicks.yaml" in run([tfctr, "init", "clicks.csv"], tmp_path)
    assert "train" in run([tfctr, "run", "clicks.yaml", "--plan"], tmp_path)
