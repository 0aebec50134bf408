"""What benchmarks that train several models over several seeds are asked for."""

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from tfctr.config import read, variants


def seeds_parser(about: str, configs: str) -> argparse.ArgumentParser:
    """Takes config files, and how often, how many at a time and where they are trained.

    Args:
        about: the benchmark's docstring.
        configs: what the files are; `FILE#NAME` is a variant.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path, help=configs)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time")
    parser.add_argument("--work", type=Path, help="where data and models are kept")
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    return parser


def expanded(files: Iterable[Path]) -> list[Path]:
    """Runs or rollouts, each once: a file that has variants stands for these. Files without a model
    are passed over."""
    paths = dict.fromkeys(Path(path) for file in files for path in variants(file))
    return [path for path in paths if "model" in read(path)]


def share_cores(processes: int) -> None:
    """Gives each of the processes to come its share of the machine's cores."""
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    os.environ |= {"TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads}
