"""One training of `benchmarks.movielens`, in a process of its own: CONFIG SEED WORK."""

import sys
from pathlib import Path

from rich.console import Console

from benchmarks.movielens.__main__ import of_seed
from tfctr.pipeline import Run


def main(path: str, seed: str, work: str) -> None:
    run = Run(of_seed(Path(path), int(seed)), Path(work), Console(quiet=True))
    run.train()
    run.evaluate()


if __name__ == "__main__":
    main(*sys.argv[1:])
