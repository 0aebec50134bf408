"""Times several things in turn, so that all meet the same noise."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def median_seconds(
    work: Mapping[str, Callable[[], Any]], repeats: Mapping[str, int], warm_up: int
) -> dict[str, float]:
    """The median of each.

    Args:
        work: what is timed, by name.
        repeats: how often each counts.
        warm_up: how often all are done before they count.
    """
    taken: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(-warm_up, max(repeats.values())):
        for name, do in work.items():
            if repeat >= repeats[name]:
                continue
            start = time.perf_counter()
            do()
            if repeat >= 0:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}
