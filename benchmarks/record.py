"""Writes results into `benchmarks/README.md`: the only way that figures get there."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

README = Path(__file__).parent / "README.md"
PLACES = {"--work": "work", "--fuxictr-python": "fuxictr/bin/python"}  # where is nobody's business


class Result(NamedTuple):
    what: str
    value: float
    unit: str


def record(section: str, module: str, results: list[Result], runs: str, note: str = "") -> None:
    """A table of one figure a row; see `record_table`."""
    rows = [[r.what, _text(r.value), r.unit] for r in results]
    record_table(section, module, ("what", "value", "unit"), rows, runs, note)


def record_table(
    section: str,
    module: str,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    runs: str,
    note: str = "",
) -> None:
    """Puts a section's table in the place of the one of that name, or behind the last.

    Args:
        section: its heading.
        module: what was run, e.g. `benchmarks.movielens`; the command line's arguments are added.
        headers: of the columns; all but the first are numbers.
        rows: the cells.
        runs: repeats or seeds, e.g. "seeds 1-3".
        note: a sentence above the table.
    """
    arguments = [a for a in sys.argv[1:] if a != "--record"]
    for option, place in PLACES.items():
        if option in arguments:
            arguments[arguments.index(option) + 1] = place
    command = shlex.join(["python", "-m", module, *arguments])
    lines = [
        f"## {section}",
        "",
        f"`{command}`, {date.today().isoformat()}, {runs}, {os.cpu_count()} cores.",
        *([note] if note else []),
        "",
        f"| {' | '.join(headers)} |",
        f"|---|{'---:|' * (len(headers) - 1)}",
        *(f"| {' | '.join(cells)} |" for cells in rows),
    ]
    text = README.read_text(encoding="utf-8")
    parts = [part.rstrip() for part in re.split(r"^(?=## )", text, flags=re.MULTILINE)]
    mine = "\n".join(lines)
    kept = [mine if part.startswith(f"## {section}\n") else part for part in parts]
    README.write_text("\n\n".join(kept if mine in kept else [*kept, mine]) + "\n", encoding="utf-8")


def interval_text(ends: tuple[float, float]) -> str:
    """Of a difference, e.g. "+0.0010 to +0.0030"."""
    return f"{ends[0]:+.4f} to {ends[1]:+.4f}"


def difference_text(mean: float, ends: tuple[float, float]) -> str:
    """With its interval, e.g. "+0.0020 (+0.0010 to +0.0030)"."""
    return f"{mean:+.4f} ({interval_text(ends)})"


def _text(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"
