"""What is killed, at any moment, or finds the disk full, ends like what was not when run again."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import content_of
from tests.frameworks.clickprompt import test_clickprompt
from tests.frameworks.ctrl import test_ctrl
from tests.frameworks.ecdctr import test_rollout
from tests.frameworks.rok import test_rok
from tests.frameworks.srp4ctr import test_two_stages
from tests.serving.raw_rows import ROWS, that_fit
from tests.stages import test_run as test_pipeline
from tfctr.serving import Client
from tfctr.serving.c_session import CSession

PRETRAINED = {"pretraining": test_ctrl.PRETRAINING}


def plain(folder: Path) -> Path:
    return test_pipeline.write_config(
        folder, training__epochs=4, training__checkpoint_steps=5, training__batch_size=256
    )


def ctrl(folder: Path) -> Path:
    return test_ctrl.write_configs(folder, {"name": "ctrl", "rows_at_a_time": 32} | PRETRAINED)


def clickprompt(folder: Path) -> Path:
    framework = {"name": "clickprompt"} | PRETRAINED
    return test_ctrl.write_configs(folder, framework, texts=test_clickprompt.ROW)


def srp4ctr(folder: Path) -> Path:
    return test_two_stages.write_configs(folder, {})


def rollout(folder: Path) -> Path:
    return test_rollout.write_configs(folder, export={"directory": str(folder / "saved_models")})


METHODS = {
    "plain": plain,
    "rok": test_rok.write_configs,
    "ctrl": ctrl,
    "clickprompt": clickprompt,
    "srp4ctr": srp4ctr,
    "ecdctr": rollout,
}


def command(config: Path, work: Path) -> list[str]:
    what = "rollout" if config.name == "rollout.yaml" else "run"
    return [sys.executable, "-m", "tfctr.cli", what, str(config), "--work", str(work)]


def results(work: Path) -> dict[str, Any]:
    """What was measured, and the days' evaluated rows, by path."""
    found = {name: data for name, data in content_of(work).items() if name.endswith("parquet")}
    for path in work.rglob("metrics.json"):
        found[str(path.relative_to(work))] = json.loads(path.read_text())
    return found


def folders(work: Path) -> list[str]:
    return sorted(path.name for path in work.iterdir())


def versions(folder: Path) -> list[Path]:
    """Those that a server would find."""
    return sorted((folder / "saved_models").glob("*/[0-9]*"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("method", METHODS)
def test_a_run_killed_at_random_moments_ends_with_the_same_results(
    method: str, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    start = time.monotonic()
    subprocess.run(command(METHODS[method](whole), whole / "work"), check=True, capture_output=True)
    seconds = time.monotonic() - start
    config = METHODS[method](killed)
    rng = random.Random(5)
    kills = 0
    for _ in range(4):
        process = subprocess.Popen(
            command(config, killed / "work"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(rng.uniform(0.1, 0.6) * seconds)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        for version in versions(killed):
            CSession(version)
    assert kills
    last = subprocess.run(
        command(config, killed / "work"), check=False, capture_output=True, text=True
    )
    assert last.returncode == 0, last.stderr
    assert results(killed / "work") == results(whole / "work")
    assert folders(killed / "work") == folders(whole / "work")
    assert not list(killed.rglob("*.part"))
    # Each version once, or twice if it was killed between publishing and noting that.
    assert len(versions(whole)) <= len(versions(killed)) <= len(versions(whole)) + kills


KILLED_WHILE_IT_WRITES = """
import shutil, sys, time
from pathlib import Path
from tfctr.serving.model_directory import publish

version, directory = map(Path, sys.argv[1:])

def write(new):
    shutil.copytree(version / "variables", new / "variables")
    shutil.copy(version / "saved_model.pb", new)
    print("half", flush=True)
    time.sleep(60)

publish(directory, write)
"""


def start_server(directory: Path, port: str) -> tuple["subprocess.Popen[str]", str]:
    arguments = ["serve", str(directory), f"--port={port}", "--rest-port=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tfctr.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    for line in process.stdout:
        if found := re.search(r"gRPC on (\S+:\d+)", line):
            return process, found[1]
    raise AssertionError(f"the server did not start: {process.wait()}")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_killed_at_random_moments_serves_the_same_again(
    exported: Path, tmp_path: Path
) -> None:
    """A client gets the true scores or hears that no server is there. Versions whose writing was
    killed are never served, and the next one is."""
    directory = tmp_path / "tiny"
    shutil.copytree(exported, directory / exported.name)
    process, address = start_server(directory, "0")
    port = address.rpartition(":")[2]
    with Client(address, "tiny") as client:
        expected = client.predict(that_fit(ROWS))
    answers: list[np.ndarray] = []
    refused: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                with Client(address, "tiny") as client:
                    answers.append(client.predict(that_fit(ROWS)))
            except (ConnectionError, TimeoutError) as error:
                refused.append(str(error))
                time.sleep(0.05)

    clients = [threading.Thread(target=ask) for _ in range(2)]
    for thread in clients:
        thread.start()
    dice = random.Random(3)
    try:
        for _ in range(6):
            time.sleep(dice.uniform(0, 1.5))
            writer = subprocess.Popen(
                [sys.executable, "-c", KILLED_WHILE_IT_WRITES, str(exported), str(directory)],
                stdout=subprocess.PIPE,
            )
            assert writer.stdout
            assert writer.stdout.readline() == b"half\n"
            time.sleep(dice.uniform(0, 1.5))
            for victim in (writer, process):
                victim.send_signal(signal.SIGKILL)
                victim.wait()
            process, _ = start_server(directory, port)
        served = len(answers)
        time.sleep(2)
    finally:
        done.set()
        for thread in clients:
            thread.join()
        process.kill()
    assert refused
    assert len(answers) > served > 0
    for scores in answers:
        np.testing.assert_array_equal(scores, expected)
    assert [p.name for p in directory.iterdir() if p.name.isdecimal()] == [exported.name]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    arguments = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(arguments, check=False).returncode:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=False)


def leave_free(disk: Path, size: int) -> None:
    """KiB beside what is there."""
    used = shutil.disk_usage(disk).used // 1024
    subprocess.run(["mount", "-o", f"remount,size={used + size}k", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_full_disk_is_said_and_what_was_whole_stays(small_disk: Path, tmp_path: Path) -> None:
    """It stops in preparation, then, with ever more room, in training, evaluation and export."""
    whole = tmp_path / "whole"
    whole.mkdir()
    subprocess.run(command(plain(whole), whole / "work"), check=True, capture_output=True)
    config, work = plain(small_disk), small_disk / "work"

    def run() -> tuple[int, str]:
        done = subprocess.run(command(config, work), check=False, capture_output=True, text=True)
        return done.returncode, done.stderr

    def said(text: str) -> str:
        assert "Traceback" not in text
        (line,) = [line for line in text.splitlines() if "No space left on device" in line]
        return line

    leave_free(small_disk, 4000)
    status, text = run()
    assert status == 1
    assert said(text).startswith("world: No space left on device, for ")
    assert not content_of(work)
    leave_free(small_disk, 20_000)
    prepare = [sys.executable, "-m", "tfctr.cli", "prepare", str(config), "--work", str(work)]
    subprocess.run(prepare, check=True, capture_output=True)
    prepared = content_of(work / "world")
    stopped = []
    for size in (20, 60, 120, 250, 500, 1000, 4000):
        leave_free(small_disk, size)
        status, text = run()
        assert content_of(work / "world") == prepared
        assert not list(small_disk.rglob("*.part"))
        for version in versions(small_disk):
            CSession(version)
        if status == 0:
            break
        assert "it resumes" in text
        stopped.append(said(text))
    assert status == 0
    assert "checkpoint" in stopped[0]
    assert "saved_models" in stopped[-1]
    assert results(work) == results(whole / "work")
