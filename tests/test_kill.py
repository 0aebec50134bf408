"""A run that is killed, at any moment, ends like one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.test_pipeline import write_config


def command(folder: Path) -> list[str]:
    config = write_config(
        folder, training__epochs=4, training__checkpoint_steps=5, training__batch_size=256
    )
    work = ["--work", str(folder / "work")]
    return [sys.executable, "-m", "tfctr.cli", "run", str(config), *work]


def metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "work" / "run" / "metrics.json").read_text())
    return found


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_metrics(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    subprocess.run(command(whole), check=True, capture_output=True)
    rng = random.Random(5)
    for _ in range(8):
        process = subprocess.Popen(
            command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(rng.uniform(2.0, 14.0))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        versions = [p for p in (killed / "saved_models" / "run").glob("[0-9]*")]
        assert all((version / "saved_model.pb").is_file() for version in versions)
    last = subprocess.run(command(killed), check=False, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert metrics(killed) == metrics(whole)
    left = [p.name for p in (killed / "work").iterdir()]
    assert sorted(left) == ["run", "world"]
    # One version, or a second if it was killed between publishing and noting that.
    names = {p.name for p in (killed / "saved_models" / "run").iterdir()}
    assert names in ({"1"}, {"1", "2"})
