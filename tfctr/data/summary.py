"""What people are told of a prepared dataset, from its manifest."""

from collections.abc import Mapping
from typing import Any

from tfctr.data.clean import not_finite
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
    return [*_times_of_two_kinds(manifest), *_infinite(manifest), *_far(manifest)]


def _infinite(manifest: Mapping[str, Any]) -> list[str]:
    names = [feature["name"] for feature in manifest["config"]["features"]]
    counts = {name: manifest["counts"].get(not_finite(name), 0) for name in names}
    return [
        f"feature {name!r}: {count:,} values are infinite or do not fit a float32, and count as "
        "missing"
        for name, count in counts.items()
        if count
    ]


def _far(manifest: Mapping[str, Any]) -> list[str]:
    """Of the numbers that flatten a feature, or are far from those that it was measured on."""
    lines = []
    for name, summary in manifest["numbers"].items():
        if not (farthest := summary.get("farthest")):
            continue
        where = f"{farthest['value']:g} in row {farthest['row']:,} of the log"
        out = "write transform: robust or transform: log for the feature, or clean such rows"
        if found := summary.get("flattened"):
            low, high = found["central"]
            lines.append(
                f"feature {name!r}: numbers as far out as {where} ({found['rows']:,} of the "
                f"training rows) make the standard deviation {summary['std']:g}, beside which 90% "
                f"of the rows, from {low:g} to {high:g}, are nearly one value; {out}"
            )
        else:
            lines.append(
                f"feature {name!r}: {where} is {farthest['scaled']:,.6g} deviations from the mean "
                f"of the training rows; {out}"
            )
    return lines


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
