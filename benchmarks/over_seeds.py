"""What benchmarks that train several models over several seeds are asked for."""

import argparse
import os
from pathlib import Path


def seeds_parser(about: str, configs: str) -> argparse.ArgumentParser:
    """Takes config files, and how often, how many at a time and where they are trained.

    Args:
        about: the benchmark's docstring.
        configs: what the files are.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("configs", nargs="+", type=Path, help=configs)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time")
    parser.add_argument("--work", type=Path, help="where data and models are kept")
    parser.add_argument("--record", action="store_true", help="write to benchmarks/README.md")
    return parser


def share_cores(processes: int) -> None:
    """Gives each of the processes to come its share of the machine's cores."""
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    os.environ |= {"TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads}
