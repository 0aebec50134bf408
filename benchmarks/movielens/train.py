"""One training of `benchmarks.movielens`, in a process of its own: CONFIG SEED WORK WHAT.

WHAT is `run`, the model and its metrics, or what a student is made from: `hints`, `knowledge`,
`pretraining`.
"""

import sys
from pathlib import Path

from rich.console import Console

from benchmarks.movielens.__main__ import of_seed
from tfctr.pipeline import Run


def main(path: str, seed: str, work: str, what: str) -> None:
    run = Run(of_seed(Path(path), int(seed)), Path(work), Console(quiet=True))
    if what == "run":
        run.train()
        run.evaluate()
        return
    if what == "pretraining":
        assert run.pretraining is not None
        run.pretraining.train()
        return
    assert run.knowledge is not None
    if what == "hints":
        run.knowledge.hints()
    else:
        run.knowledge.train()


if __name__ == "__main__":
    main(*sys.argv[1:])
