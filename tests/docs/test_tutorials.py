"""The tutorials' own commands work, one after another, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "tutorials"
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"\n]*)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("page", ["keras", "data", "serving"])
def test_every_block_of_a_tutorial_runs(page: str, tmp_path: Path) -> None:
    binaries = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{tmp_path}",
    }
    server = None
    blocks = BLOCK.findall((PAGES / f"{page}.md").read_text(encoding="utf-8"))
    assert len(blocks) > 4
    try:
        for language, title, code in blocks:
            command = ["bash", "-euo", "pipefail", "-c", code]
            if language == "python":
                command = [sys.executable, "-c", code]
            if title.startswith("leave it running"):
                server = subprocess.Popen(
                    command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
                )
                assert server.stdout is not None
                assert "gRPC on" in server.stdout.readline()
            elif title:  # a file
                (tmp_path / title).write_text(code)
            else:
                done = subprocess.run(
                    command, cwd=tmp_path, env=environment, capture_output=True, text=True
                )
                print(code, done.stdout, done.stderr, sep="\n")
                assert done.returncode == 0, code + done.stdout + done.stderr
                assert '"error"' not in done.stdout
    finally:
        if server is not None:
            server.terminate()
            server.wait()
