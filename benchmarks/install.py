"""What an installation takes: megabytes by extra, and seconds until a command answers.

    python -m benchmarks.install --record

A wheel of the checkout is installed by pip, with the versions of `constraints.txt`, into a fresh
environment: alone, and then with each extra in a copy of that environment. Downloads what pip has
not kept. Commands are timed in the environment without extras, `predict` with a row and a server of
the demo's model.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.record import record_table

ROOT = Path(__file__).parents[1]
EXTRAS = ("report", "tune", "tensorboard", "dask", "language", "all")
ROW = b'{"user_id": 2, "item_id": 5}\n'
READY = "gRPC on 127.0.0.1:"


def run(command: Sequence[object], folder: Path, given: bytes | None = None) -> str:
    words = [str(word) for word in command]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=folder, env=kept, input=given, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout.decode()}{done.stderr.decode()}")
    return done.stdout.decode()


def build_wheel(folder: Path) -> Path:
    """Of the checkout's files, copied: a build leaves files beside setup.py."""
    source = folder / "source"
    listed = run(["git", "ls-files"], ROOT).splitlines()
    for name in listed:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name, follow_symlinks=False)
    run([sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, source], folder)
    (wheel,) = folder.glob("tfctr-*.whl")
    return wheel


def install(environment: Path, wheel: Path, extra: str = "") -> None:
    wanted = f"{wheel}[{extra}]" if extra else wheel
    pip = [environment / "bin/python", "-m", "pip", "install", "--quiet"]
    run([*pip, "-c", ROOT / "constraints.txt", wanted], environment)


def megabytes(environment: Path) -> tuple[int, int]:
    """Number of packages, and megabytes of `site-packages`."""
    (packages,) = environment.glob("lib/python*/site-packages")
    sizes = (path.lstat().st_size for path in packages.rglob("*") if path.is_file())
    return len(list(packages.glob("*.dist-info"))), round(sum(sizes) / 1e6)


def seconds(
    command: Sequence[object], folder: Path, repeats: int, given: bytes | None
) -> list[str]:
    """Medians of wall and of CPU seconds."""
    walls, cpus = [], []
    for repeat in range(repeats + 1):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        run(command, folder, given)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if repeat:  # the first one compiles and fills the file cache
            walls.append(wall)
            cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return [f"{statistics.median(walls):.2f}", f"{statistics.median(cpus):.2f}"]


def timed(environment: Path, folder: Path, repeats: int) -> list[list[str]]:
    tfctr, python = environment / "bin/tfctr", environment / "bin/python"
    run([tfctr, "demo", "training.epochs=1", "name=timed"], folder)
    command = [tfctr, "serve", "saved_models/timed", "--port", "0", "--rest-port", "0"]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = next(line for line in server.stdout if READY in line)
        address = f"127.0.0.1:{line.partition(READY)[2].partition(',')[0]}"
        commands: list[tuple[str, list[object], bytes | None]] = [
            ("python -c pass", [python, "-c", "pass"], None),
            ("import tfctr", [python, "-c", "import tfctr"], None),
            ("tfctr --help", [tfctr, "--help"], None),
            ("tfctr predict", [tfctr, "predict", "timed", "-", "--server", address], ROW),
            ("tfctr demo --plan", [tfctr, "demo", "--plan"], None),
            ("import tensorflow", [python, "-c", "import tensorflow"], None),
        ]
        return [[name, *seconds(words, folder, repeats, row)] for name, words, row in commands]
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="of each command")
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    args = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel = build_wheel(folder)
        console.print(f"wheel: {wheel.stat().st_size / 1e6:.1f} MB")
        core = folder / "core"
        venv.create(core, with_pip=True)
        pip = megabytes(core)
        install(core, wheel)
        times = timed(core, folder, args.repeats)
        for row in times:
            console.print(" | ".join(row))
        plain = megabytes(core)
        sizes = [["tfctr", str(plain[0] - pip[0]), str(plain[1] - pip[1]), ""]]
        for extra in EXTRAS:
            copy = folder / extra
            shutil.copytree(core, copy, symlinks=True, copy_function=os.link)
            install(copy, wheel, extra)
            found = megabytes(copy)
            more = str(found[1] - plain[1])
            sizes.append([f"tfctr[{extra}]", str(found[0] - pip[0]), str(found[1] - pip[1]), more])
            console.print(" | ".join(sizes[-1]), markup=False)
            shutil.rmtree(copy)
    if args.record:
        record_table(
            "Installed sizes",
            "benchmarks.install",
            ("what", "packages", "MB", "more than tfctr, MB"),
            sizes,
            "one installation each",
            "Sizes of `site-packages`, without pip's own, compiled files included.",
        )
        record_table(
            "Until a command answers",
            "benchmarks.install",
            ("command", "s", "CPU s"),
            times,
            f"medians of {args.repeats} repeats",
            "Without extras. `tfctr predict` scores one row on a server that runs.",
        )


if __name__ == "__main__":
    main()
