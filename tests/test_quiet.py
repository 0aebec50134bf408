"""What commands print, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """
name: small
data:
  name: small-data
  source: {format: world, users: 60, items: 30, events: 3000, seed: 3}
  label: {column: click}
  time: {column: timestamp}
  features:
    - {name: user_id, kind: categorical, side: user, dtype: int}
    - {name: item_id, kind: categorical, side: item, dtype: int}
model: {backbone: lr}
training: {epochs: 1, batch_size: 1024, in_memory: true}
"""


def _run(folder: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    kept["PYTHONPATH"] = str(Path(__file__).parents[1])
    command = [sys.executable, *args]
    done = subprocess.run(
        command, cwd=folder, env=kept | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(CONFIG)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_prints_its_own_lines_only(folder: Path) -> None:
    found = _run(folder, "-m", "tfctr.cli", "run", "small.yaml")
    assert found.stderr == ""
    assert "SavedModel: saved_models/small/1" in found.stdout


@pytest.mark.slow
def test_a_job_and_its_workers_print_one_line(folder: Path) -> None:
    parallel = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    job = ["-m", "beam_pipelines.prepare", "--config=small.yaml", "--output=out"]
    found = _run(folder, *job, *parallel)
    assert found.stderr == ""
    (line,) = found.stdout.splitlines()
    assert line.startswith("out: train: 2,400 rows, 2024-01-01 ")


@pytest.mark.slow
def test_what_is_imported_with_tensorflow_may_still_complain(folder: Path) -> None:
    """Only INFO lines are held back, and none if the user asks for them, or if no command runs."""
    (folder / "tensorflow.py").write_text(
        "import os\n"
        'os.write(2, b"I0000 00:00 1 stub.cc:31] no GPU\\n")\n'
        'os.write(2, b"E0000 00:00 1 x.cc:1] what went wrong\\n")\n'
    )
    begin = (
        "import sys, os; sys.path.insert(0, '.'); import tfctr, tfctr.cli, beam_pipelines.hints; "
    )
    code = begin + "from tfctr.quiet import quieten; quieten(); import tensorflow"
    assert _run(folder, "-c", code).stderr == "E0000 00:00 1 x.cc:1] what went wrong\n"
    assert "no GPU" in _run(folder, "-c", code, TF_CPP_MIN_LOG_LEVEL="0").stderr
    library = begin + "import tensorflow; assert 'TF_CPP_MIN_LOG_LEVEL' not in os.environ"
    assert "no GPU" in _run(folder, "-c", library).stderr
