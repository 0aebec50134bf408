"""What a stage costs: seconds and memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROCESS = Path("/proc/self")


@contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """The cost of what runs in this context, filled in at its end: `seconds`, and `peak_bytes`, the
    most memory that this process held at a time; None where the system does not tell (not Linux).

    Processes that it starts, such as Beam's workers, are not in `peak_bytes`.

    Example:
        >>> with measured() as cost:
        ...     sum(range(10))
        45
        >>> cost["seconds"] < 1
        True
    """
    cost: dict[str, Any] = {}
    is_reset = _reset_peak()
    start = time.perf_counter()
    yield cost
    cost["seconds"] = round(time.perf_counter() - start, 3)
    cost["peak_bytes"] = _peak() if is_reset else None


def _reset_peak() -> bool:
    """Lets the peak start from the memory that is held now; whether the system can."""
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak() -> int | None:
    lines = (PROCESS / "status").read_text().splitlines()
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else None
