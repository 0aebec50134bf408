"""Times of rows: integers since 1970, ISO 8601 or texts of a format, and integers of no date.

A number of seconds that is declared as milliseconds, or digits such as 24030100, would be read as a
time of 1970 without an error. Integers are taken as dates between `EARLIEST` and `LATEST` only.
"""

import datetime
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.config import Time
from tfctr.data.conform import (
    decoded,
    is_text,
    to_double,
    to_int,
    to_string,
    to_tokens,
)
from tfctr.data.one_value import WHOLE_FLOATS

UNITS = {"s": 1, "ms": 10**3, "us": 10**6}  # per second
SECONDS_PER_DAY = 86_400
EPOCH = datetime.datetime(1970, 1, 1)
MAX_TIME = 4_102_444_800  # 2100-01-01 in seconds

# Integers of the years 1990 to 2032. In seconds, the digits YYYYMMDDHH of 1990 are of 2033.
EARLIEST, LATEST = 631_152_000, 1_988_150_400
# Smaller integers count steps of an abstract clock, and are in order whatever they mean. The digits
# YYMMDDHH of a date are larger (from 2000-02), as are seconds that are read as milliseconds.
STEPS = 2_000_000
NONE = "none"  # the unit of integers that are no dates

DIGITS = (
    *("%Y%m%d", "%y%m%d%H", "%Y%m%d%H", "%y%m%d%H%M"),
    *("%Y%m%d%H%M", "%y%m%d%H%M%S", "%Y%m%d%H%M%S"),
)  # formats that integers may be written in, the likelier of two of one length first
RANGES = {"Y": (1990, 2032), "y": (0, 99), "m": (1, 12), "d": (1, 31), "H": (0, 23)}
RANGES |= {"M": (0, 59), "S": (0, 59)}

TEXTS = (
    *("%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y/%m/%d"),
    *("%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y"),
    *("%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y"),
    *("%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y", "%d-%b-%Y", "%d %b %Y", "%b %d, %Y"),
    *("%m %d, %Y", "%d/%b/%Y:%H:%M:%S %z", "%a %b %d %H:%M:%S %z %Y"),
)  # formats of texts that are often seen besides ISO 8601
FITS = 0.99  # share of the values that must be dates, if all are taken for dates

Check = tuple[np.ndarray, str]  # bool `[N]`, which rows are bad, and why


def read_times(column: pa.Array, time: Time) -> tuple[pa.Array, list[Check]]:
    """The times int64 `[N]` in the config's unit, UTC where a text names no zone; 0 where bad.

    Raises:
        TypeError: the column's type cannot hold times.
    """
    name, unit = time.column, time.unit
    column = decoded(column)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        if unit == NONE:
            raise TypeError(f"type {column.type}; integers are needed for unit: none")
        zone = getattr(column.type, "tz", None)
        values = column.cast(pa.timestamp(unit, zone), safe=False).cast(pa.int64())
        is_integer = np.zeros(len(column), bool)
        why = "not a time between 1970 and 2100"
    elif time.format is not None:
        values = _each_text(to_tokens(column, "string")[0], _by_format(time.format), unit)
        is_integer = np.zeros(len(column), bool)
        why = f"not a time of the format {time.format!r} between 1970 and 2100"
    else:
        values, not_integer = to_int(column)
        if not_integer is not None:
            values = pc.coalesce(values, _floor(column))
        is_integer = values.is_valid().to_numpy(zero_copy_only=False)
        if not_integer is not None and unit != NONE and is_text(column.type):
            texts = to_string(column)[0]
            texts = pc.if_else(pa.array(not_integer), texts, pa.scalar(None, pa.string()))
            values = pc.coalesce(values, _each_text(texts, _by_iso, unit))
        why = f"not a time in {unit} between 1970 and 2100, nor one in ISO 8601"
        if unit == NONE:
            why = "not an integer from 0"
    moments = values.fill_null(-1).to_numpy()
    bad = moments < 0
    checks: list[Check] = []
    if unit != NONE:
        seconds = moments // UNITS[unit]
        is_date = ~is_integer | (moments < STEPS)
        is_date |= (seconds >= EARLIEST) & (seconds < LATEST)
        for rows, meaning in _meanings(moments, np.flatnonzero(~bad & ~is_date), unit):
            checks.append((rows, f"{name}: {meaning}"))
        bad |= is_date & (seconds >= MAX_TIME)
    return pa.array(np.maximum(moments, 0)), [(bad, f"{name}: {why}"), *checks]


def readings(column: pa.Array, name: str) -> list[Time]:
    """The ways to read a column's values as dates, the likeliest first; none if they are no dates.

    readings(pa.array(["2024-03-01T00:15:00"]), "when") == [Time(column="when")]
    """
    column = decoded(column).drop_null()
    kind = column.type
    if not len(column):
        return []
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return [_to_the_fraction(column, name)]
    if pa.types.is_boolean(kind) or not (is_text(kind) or _is_number(kind)):
        return []
    numbers, bad = to_double(column)
    if bad is not None and bad.mean() > 1 - FITS:
        return _readings_of_texts(column, name)
    finite = numbers.drop_null().to_numpy()
    finite = finite[np.isfinite(finite)]
    if not finite.size or (finite >= STEPS).mean() < FITS or finite.max() >= WHOLE_FLOATS:
        return []
    whole = finite.astype(np.int64)
    found: list[Time] = []
    for unit, steps in UNITS.items():
        seconds = whole // steps
        if ((seconds >= EARLIEST) & (seconds < LATEST)).mean() >= FITS:
            found.append(Time(column=name, unit=cast(Any, unit)))
    if (whole == finite).all():
        fits = [form for form in DIGITS if _are_digits(whole, form).mean() >= FITS]
        # Seconds of a minute may be digits of dates too; those of hours are not so by chance.
        by_digits = [Time(column=name, format=form) for form in fits]
        is_sure = len(np.unique(whole)) >= 20 and whole.max() - whole.min() >= 10_000
        found = by_digits + found if is_sure else found + by_digits
    return found


def _readings_of_texts(column: pa.Array, name: str) -> list[Time]:
    by_iso = Time(column=name, unit="us")
    if _share_of_dates(column, by_iso) >= FITS:
        return [_to_the_fraction(column, name)]
    some = column.slice(0, 100)
    forms = [Time(column=name, format=form) for form in TEXTS]
    likely = [time for time in forms if _share_of_dates(some, time) >= FITS]
    return [time for time in likely if _share_of_dates(column, time) >= FITS]


def _share_of_dates(column: pa.Array, time: Time) -> float:
    _, checks = read_times(column, time)
    wrong = np.any([bad for bad, _ in checks], axis=0)
    return 1 - float(wrong.mean())


def _to_the_fraction(column: pa.Array, name: str) -> Time:
    """The coarsest unit that keeps the fractions of the seconds."""
    moments, _ = read_times(column, Time(column=name, unit="us"))
    fractions = moments.to_numpy() % UNITS["us"]
    if not fractions.any():
        return Time(column=name)
    return Time(column=name, unit="us" if (fractions % 1000).any() else "ms")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def start_of(day: datetime.date, unit: str) -> int:
    """The first moment of a day, UTC."""
    return (day - EPOCH.date()).days * SECONDS_PER_DAY * UNITS[unit]


def shown(moment: int, unit: str) -> str:
    """A time for people: the date in UTC, or the number if it is none."""
    if unit == NONE or moment < STEPS:
        return f"{moment:,}"
    return (EPOCH + _step(unit) * moment).isoformat(" ", "minutes")


def _meanings(moments: np.ndarray, rows: np.ndarray, unit: str) -> Iterator[Check]:
    """What integers would mean that are no dates, and what they may be instead."""
    left = moments[rows]
    years = np.minimum(left // UNITS[unit] // 31_556_952 + 1970, 2100)
    hints = np.full(len(left), "time.unit: none, if it counts something else", object)
    for form in reversed(DIGITS):
        hints[_are_digits(left, form)] = f'time.format: "{form}"'
    for other, steps in reversed(UNITS.items()):
        fits = (left // steps >= EARLIEST) & (left // steps < LATEST)
        hints[fits & (other != unit)] = f"time.unit: {other}"
    for year in np.unique(years):
        for hint in dict.fromkeys(hints[years == year]):
            found = np.zeros(len(moments), bool)
            found[rows[(years == year) & (hints == hint)]] = True
            when = f"of {year}" if year < 2100 else "later than 2100"
            yield found, f"in {unit} it would be {when}; write {hint}"


def _are_digits(numbers: np.ndarray, form: str) -> np.ndarray:
    """bool `[N]`: the digits of a date, in a format of two digits a field."""
    fits = np.ones(len(numbers), bool)
    for field in reversed(form.replace("%", "")):
        value = numbers if field in "Yy" else numbers % 100
        low, high = RANGES[field]
        fits &= (value >= low) & (value <= high)
        numbers = numbers // 100
    return fits


def _floor(column: pa.Array) -> pa.Array:
    """int64 of numbers with a fraction."""
    numbers = pc.floor(to_double(column)[0])
    fits = pc.less(pc.abs(numbers), WHOLE_FLOATS)
    return pc.if_else(fits, numbers, pa.scalar(None, pa.float64())).cast(pa.int64())


def _each_text(texts: pa.Array, read: Callable[[str], datetime.datetime], unit: str) -> pa.Array:
    """int64, null where a text is no time; each distinct text is read once."""
    codes, step = texts.dictionary_encode(), _step(unit)

    def number(text: str) -> int | None:
        try:
            moment = read(text)
            if moment.tzinfo is not None:
                moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
        except (ValueError, OverflowError):
            return None
        return (moment - EPOCH) // step

    numbers = [number(text) for text in codes.dictionary.to_pylist()]
    return pa.array(numbers, pa.int64()).take(codes.indices)


def _by_iso(text: str) -> datetime.datetime:
    # As BigQuery writes the zone; Python reads "Z" and "+00:00".
    return datetime.datetime.fromisoformat(text.strip().removesuffix(" UTC"))


def _by_format(form: str) -> Callable[[str], datetime.datetime]:
    """A column of integers has lost the zeros that its texts began with."""
    example = datetime.datetime(2001, 2, 3, 4, 5, 6).strftime(form)
    width = len(example) if example.isdigit() else 0

    def read(text: str) -> datetime.datetime:
        padded = text.zfill(width) if text.isdigit() else text
        return datetime.datetime.strptime(padded, form)

    return read


def _step(unit: str) -> datetime.timedelta:
    return datetime.timedelta(seconds=1) / UNITS[unit]
