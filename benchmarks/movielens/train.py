"""One training of `benchmarks.movielens`, in a process of its own: CONFIG SEED WORK WHAT.

WHAT is `run`, the model and its metrics, or a stage that the run reads, as `folder/name`.
"""

import sys
from pathlib import Path

from rich.console import Console

from benchmarks.movielens.__main__ import of_seed
from tfctr.config import load_run
from tfctr.stages import Run, build, in_order


def main(path: str, seed: str, work: str, what: str) -> None:
    run = Run(of_seed(load_run(path), int(seed)), Path(work), Console(quiet=True))
    if what == "run":
        run.evaluate()
        return
    stages = {f"{stage.folder.name}/{stage.name}": stage for stage in in_order(run.trained)}
    build(stages[what], run.console)


if __name__ == "__main__":
    main(*sys.argv[1:])
