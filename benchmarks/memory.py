"""Memory of a process, on Linux."""

import re
from pathlib import Path


def memory_mb(process: int, peak: bool = False) -> float:
    """Resident memory of a process, in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


def forget_peak(process: int) -> None:
    """Its peak is from now on."""
    Path(f"/proc/{process}/clear_refs").write_text("5")
