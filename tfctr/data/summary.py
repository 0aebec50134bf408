"""What people are told of a prepared dataset, or of days of a log, from their manifests."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from tfctr.data.clean import not_finite
from tfctr.data.day_log import DOMAINS, DayLog, ends
from tfctr.data.times import NONE, STEPS, shown
from tfctr.schema import FAR_SCALED, FIRST_TOKEN_ID, Numeric


def described(manifest: Mapping[str, Any]) -> list[str]:
    """A line for each split with its rows, the range of its dates and its click rate, and one each
    for rows of other days, of held-out tokens, for tokens of files, and for bad rows, if any."""
    time = manifest["config"]["time"]
    lines = []
    for split, found in manifest["splits"].items():
        line = f"{split}: {found['rows']:,} rows"
        if found["rows"]:
            if time is not None:
                line += ", " + " to ".join(shown(moment, time["unit"]) for moment in found["times"])
            line += f", {found['positives'] / found['rows']:.2%} clicks"
        lines.append(line)
    if other := manifest["counts"].get("other_days"):
        lines.append(f"{other:,} rows of other days left out (time.since, time.before)")
    if (held_out := manifest["counts"].get("held_out")) is not None:
        feature = manifest["config"]["split"]["hold_out"]["feature"]
        lines.append(f"{held_out:,} rows of held-out tokens of {feature} left out of training")
    for name, found in manifest["vocabularies"].items():
        if (listed := found.get("from_files")) is not None:
            number = found["vocabulary_size"] - FIRST_TOKEN_ID
            lines.append(f"{listed:,} of {number:,} tokens of {name} are from files only")
    if bad := manifest["counts"]["bad"]:
        lines.append(f"{bad:,} bad rows set aside")
    return lines


def warnings(manifest: Mapping[str, Any]) -> list[str]:
    """A line for each thing that is allowed but rarely meant."""
    return [*_times_of_two_kinds(manifest), *_infinite(manifest), *_far(manifest)]


def warnings_of_days(log: DayLog, days: Sequence[datetime.date]) -> list[str]:
    """A line for each feature with a number in these days that is far from those of the measured
    days, or whose measured numbers are flattened by outliers, if these are the first days."""
    lines = []
    is_first = any(log.days[day]["number"] == 0 for day in days)
    by_day = {day: ends(s for d in DOMAINS for s in log.shards(day, d)) for day in days}
    for feature in log.raw_schema:
        found = [
            (number, day)
            for day, measured in by_day.items()
            for number in measured.get(feature.name, {}).values()
        ]
        if not isinstance(feature, Numeric) or feature.transform not in FAR_SCALED or not found:
            continue
        value, day = max(found, key=lambda end: abs(feature.scaled(end[0])))
        scaled = abs(feature.scaled(value))
        summary = log.log.get("numbers", {}).get(feature.name, {})
        if not is_first or "flattened" not in summary:
            summary = {}
        if summary or scaled > FAR_SCALED[feature.transform]:
            where = f"{value:g} on {day}"
            lines.append(_far_line(feature.name, where, scaled, summary, "rows of the first days"))
    return lines


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
        lines.append(_far_line(name, where, farthest["scaled"], summary, "training rows"))
    return lines


def _far_line(
    name: str, where: str, scaled: float, summary: Mapping[str, Any], measured_on: str
) -> str:
    out = "write transform: robust or transform: log for the feature, or clean such rows"
    if not (found := summary.get("flattened")):
        return (
            f"feature {name!r}: {where} is {scaled:,.6g} deviations from the mean of the "
            f"{measured_on}; {out}"
        )
    low, high = found["central"]
    return (
        f"feature {name!r}: numbers as far out as {where} ({found['rows']:,} of the {measured_on}) "
        f"make the standard deviation {summary['std']:g}, beside which 90% of the rows, from "
        f"{low:g} to {high:g}, are nearly one value; {out}"
    )


def _times_of_two_kinds(manifest: Mapping[str, Any]) -> list[str]:
    time = manifest["config"]["time"]
    times = [moment for found in manifest["splits"].values() for moment in found["times"] or ()]
    if time is None or time["unit"] == NONE or not times or not min(times) < STEPS <= max(times):
        return []
    return [
        f"time: column {time['column']!r} holds {min(times):,}, which is no date, and dates up to "
        f"{shown(max(times), time['unit'])}; such rows come first. Leave the time empty where it "
        "is not known, and they are set aside"
    ]
