"""What every contender trains, on which rows, and how it is timed. Needs NumPy only."""

import json
import resource
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BATCH = 4096
BATCHES = 64  # distinct ones, gone through again and again
DIM = 16
CROSS_LAYERS = 3
LEARNING_RATE = 1e-3
THREADS = 2
ZIPF_EXPONENT = 1.05  # of the ids of a field

WARM_UP = 3  # steps, not timed
SEGMENT = 4  # steps timed together
MIN_SEGMENTS = 2


class Task(NamedTuple):
    """A DCNv2 of so many fields; the cross layers stand beside the hidden ones."""

    vocabularies: tuple[int, ...]  # rows of each field
    hidden_units: tuple[int, ...]

    @property
    def fields(self) -> list[str]:
        return [f"field_{i}" for i in range(len(self.vocabularies))]

    @property
    def width(self) -> int:
        return DIM * len(self.vocabularies)

    @property
    def parameters(self) -> int:
        count = DIM * sum(self.vocabularies) + CROSS_LAYERS * (self.width + 1) * self.width
        widths = (self.width, *self.hidden_units)
        for inputs, outputs in pairwise(widths):
            count += (inputs + 1) * outputs
        return count + self.width + widths[-1] + 1


TASKS = {
    "50 thousand rows": Task((2_500,) * 20, (256, 128)),
    "5 million rows": Task((250_000,) * 20, (256, 128)),
    "MovieLens-1M": Task((6_043, 5, 10, 24, 3_442, 3_709, 21, 84), (256, 128, 64)),
}


def write_rows(task: Task, path: Path) -> None:
    """Ids int64 `[BATCHES, BATCH, F]`, Zipf-distributed in each field, and labels float32."""
    rng = np.random.default_rng(0)
    columns, logits = [], np.zeros((BATCHES, BATCH))
    for rows in task.vocabularies:
        cumulated = np.cumsum(1 / np.arange(1, rows + 1) ** ZIPF_EXPONENT)
        ids = np.searchsorted(cumulated, rng.random((BATCHES, BATCH)) * cumulated[-1])
        columns.append(ids)
        logits += rng.normal(size=rows)[ids] * 2 / np.sqrt(len(task.vocabularies))
    labels = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    np.savez(path, ids=np.stack(columns, axis=-1), labels=labels.astype("float32"))


def load() -> tuple[Task, Any, Any, "Clock"]:
    """By the command line `TASK ROWS.npz SECONDS`: the task, its ids and labels, a clock."""
    name, path, seconds = sys.argv[1:]
    with np.load(path) as rows:
        return TASKS[name], rows["ids"], rows["labels"], Clock(float(seconds))


class Clock:
    """Told of every step, says when to stop."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.steps = 0
        self.marks: list[float] = []

    def step(self) -> bool:
        """A step is done. True: that was the last one."""
        self.steps += 1
        timed = self.steps - WARM_UP
        if timed < 0 or timed % SEGMENT:
            return False
        self.marks.append(time.perf_counter())
        enough = self.marks[-1] - self.marks[0] >= self.seconds
        return enough and len(self.marks) > MIN_SEGMENTS

    def report(self, **checked: float) -> None:
        """Prints, as the last line of this process, what the driver reads."""
        speeds = (SEGMENT * BATCH / np.diff(self.marks)).tolist()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
        print(json.dumps({"speeds": speeds, "peak_memory": peak} | checked))


def log_loss(labels: Any, probabilities: Any) -> float:
    p = np.clip(np.asarray(probabilities, "float64").reshape(-1), 1e-7, 1 - 1e-7)
    return float(-np.mean(np.where(labels.reshape(-1) > 0.5, np.log(p), np.log(1 - p))))
