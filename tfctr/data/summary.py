"""What people are told of a prepared dataset, from its manifest."""

from collections.abc import Mapping
from typing import Any

from tfctr.data.times import NONE, STEPS, shown


def described(manifest: Mapping[str, Any]) -> list[str]:
    """A line for each split with its rows, the range of its dates and its click rate, and one for
    bad rows if there are any."""
    unit = manifest["config"]["time"]["unit"]
    lines = []
    for split, found in manifest["splits"].items():
        line = f"{split}: {found['rows']:,} rows"
        if found["rows"]:
            first, last = (shown(time, unit) for time in found["times"])
            line += f", {first} to {last}, {found['positives'] / found['rows']:.2%} clicks"
        lines.append(line)
    if bad := manifest["counts"]["bad"]:
        lines.append(f"{bad:,} bad rows set aside")
    return lines


def warnings(manifest: Mapping[str, Any]) -> list[str]:
    """A line for each thing that is allowed but rarely meant."""
    return _times_of_two_kinds(manifest)


def _times_of_two_kinds(manifest: Mapping[str, Any]) -> list[str]:
    time = manifest["config"]["time"]
    times = [moment for found in manifest["splits"].values() for moment in found["times"] or ()]
    if time["unit"] == NONE or not times or not min(times) < STEPS <= max(times):
        return []
    return [
        f"time: column {time['column']!r} holds {min(times):,}, which is no date, and dates up to "
        f"{shown(max(times), time['unit'])}; such rows come first. Leave the time empty where it "
        "is not known, and they are set aside"
    ]
