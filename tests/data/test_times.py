import datetime

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from tfctr.config import Time
from tfctr.data.summary import warnings
from tfctr.data.times import read_times, readings, shown

BAD = "bad"
DIGITS = {"format": "%y%m%d%H%M"}  # of 1410210015, for 2014-10-21 00:15
AT = 1_709_252_100  # 2024-03-01T00:15:00Z


def outcome(values, **time):
    """A time or the reason why it is none, a row."""
    column = values if isinstance(values, pa.Array) else pa.array(values)
    times, checks = read_times(column, Time(column="t", **time))
    found = times.to_pylist()
    for bad, why in checks:
        for row in np.flatnonzero(bad):
            found[row] = why.removeprefix("t: ")
    return found


@pytest.mark.parametrize(
    "text",
    [
        "2024-03-01T00:15:00Z",
        "2024-03-01T00:15:00",
        "2024-03-01 00:15",
        "2024-03-01T00:15:00.999999999+00:00",
        "2024-03-01T02:15:00+02:00",
        "2024-03-01 00:15:00 UTC",
        "20240301T001500Z",
        " 2024-03-01T00:15:00Z ",
        "1709252100",
        "1709252100.0",
        "1709252100.75",
        "1.7092521e9",
    ],
)
def test_texts_of_one_moment(text):
    assert outcome([text]) == [AT]
    assert outcome([text.encode(), b"1709252101"]) == [AT, AT + 1]


def test_the_unit_is_that_of_integers_and_of_what_is_written():
    assert outcome(["2024-03-01T00:15:00.25Z", str(AT * 1000 + 7)], unit="ms") == [
        AT * 1000 + 250,
        AT * 1000 + 7,
    ]
    days = pa.array([datetime.date(2024, 3, 1), datetime.date(1985, 1, 1)])
    assert outcome(days, unit="us") == [1_709_251_200_000_000, 473_385_600_000_000]
    moments = pa.array([datetime.datetime(2024, 3, 1, 0, 15)], pa.timestamp("ns"))
    assert outcome(moments, unit="ms") == [AT * 1000]
    with pytest.raises(TypeError, match="integers are needed for unit: none"):
        outcome(moments, unit="none")


def test_a_format_reads_texts_and_digits_that_lost_their_zeros():
    assert outcome([24030100, 5010100, 99], format="%y%m%d%H") == [
        AT - 900,
        1_104_537_600,
        "not a time of the format '%y%m%d%H' between 1970 and 2100",
    ]
    assert outcome([24030100.0], format="%y%m%d%H") == [AT - 900]
    assert outcome(["01/03/2024 02:15 +0200"], format="%d/%m/%Y %H:%M %z") == [AT]


@pytest.mark.parametrize(
    ("value", "unit", "why"),
    [
        (AT, "ms", "in ms it would be of 1970; write time.unit: s"),
        (AT * 1000, "s", "in s it would be later than 2100; write time.unit: ms"),
        (AT * 10**6, "s", "in s it would be later than 2100; write time.unit: us"),
        (AT * 1000, "us", "in us it would be of 1970; write time.unit: ms"),
        (14102100, "s", 'in s it would be of 1970; write time.format: "%y%m%d%H"'),
        (20240301, "s", 'in s it would be of 1970; write time.format: "%Y%m%d"'),
        (2024030100, "s", 'in s it would be of 2034; write time.format: "%Y%m%d%H"'),
        (2403010015, "s", 'in s it would be of 2046; write time.format: "%y%m%d%H%M"'),
        (202403010015, "ms", 'in ms it would be of 1976; write time.format: "%Y%m%d%H%M"'),
        (
            20240301001500,
            "s",
            'in s it would be later than 2100; write time.format: "%Y%m%d%H%M%S"',
        ),
        (
            28_487_535,
            "s",
            "in s it would be of 1970; write time.unit: none, if it counts something else",
        ),
    ],
)
def test_an_integer_that_is_no_date_says_what_it_may_be(value, unit, why):
    assert outcome([value, 7], unit=unit) == [why, 7]
    assert outcome([str(value)], unit=unit) == [why]


def test_steps_of_an_abstract_clock_are_in_order_and_no_dates():
    assert outcome([0, 1, 1_999_999]) == [0, 1, 1_999_999]
    assert outcome([0, 28_487_535, -1], unit="none") == [0, 28_487_535, "not an integer from 0"]
    assert [shown(1_999_999, "s"), shown(28_487_535, "none")] == ["1,999,999", "28,487,535"]
    assert shown(AT * 1000, "ms") == "2024-03-01 00:15"


def test_what_is_no_time_is_bad_beside_what_is_one():
    why = "not a time in s between 1970 and 2100, nor one in ISO 8601"
    texts = [
        "",
        "soon",
        "2024-13-01",
        "01/03/2024",
        "1969-12-31",
        "2100-01-01",
        "nan",
        "2024-03-01",
    ]
    assert outcome(texts) == [why] * 7 + [AT - 900]
    assert outcome(pa.array([None, -5, AT])) == [why, why, AT]
    assert outcome(pa.array([AT + 0.5, -0.5, 1e300, np.nan])) == [AT, why, why, why]


@pytest.mark.parametrize(
    ("time", "why"),
    [
        ({"format": "%H:%M"}, "needs year, month and day"),
        ({"format": "%Q"}, "'Q' is a bad directive"),
        ({"format": "%y%m%d", "unit": "none"}, "gives dates, which need unit"),
        ({"before": "2024-01-31", "unit": "none"}, "before: is a date, which needs unit"),
        ({"since": "2024-01-31", "before": "2024-01-31"}, "no day is before it"),
    ],
)
def test_a_time_that_cannot_be_meant_is_refused(time, why):
    with pytest.raises(ValidationError, match=why):
        Time(column="t", **time)


def test_times_without_a_date_beside_dates_are_told():
    def told(*times, unit="s"):
        manifest = {
            "config": {"time": {"column": "when", "unit": unit}, "features": []},
            "splits": {"train": {"times": times}, "valid": {"times": None}},
            "counts": {},
            "numbers": {},
        }
        return warnings(manifest)

    (line,) = told(0, AT)
    assert "column 'when' holds 0, which is no date, and dates up to 2024-03-01 00:15" in line
    assert told(0, 100) == told(AT, AT + 1) == told(0, AT, unit="none") == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([AT + 999 * i for i in range(30)], [{}]),
        ([1000 * (AT + i) for i in range(30)], [{"unit": "ms"}]),
        ([1e6 * (AT + i) for i in range(30)], [{"unit": "us"}]),
        ([AT + 0.5], [{}]),
        ([str(AT + 60), None, ""], [{}]),
        (["2024-03-01T00:15:00Z", None], [{}]),
        (["2024-03-01 02:15:00.25+02:00"], [{"unit": "ms"}]),
        (["2024-03-01 02:15:00.000001"], [{"unit": "us"}]),
        (["01.03.2024 00:15"], [{"format": "%d.%m.%Y %H:%M"}]),
        (["1/2/2024", "2/3/2024"], [{"format": "%d/%m/%Y"}, {"format": "%m/%d/%Y"}]),
        (["1/2/2024", "2/13/2024"], [{"format": "%m/%d/%Y"}]),
        ([20240301], [{"format": "%Y%m%d"}]),
        ([14102100 + i for i in range(24)], [{"format": "%y%m%d%H"}]),
        # Digits that are seconds too: a few may be either, and those of hours are not so by chance.
        ([1410210015], [{}, DIGITS]),
        ([1410210015 + 100 * (i % 9) + 10_000 * (i // 9) for i in range(27)], [DIGITS, {}]),
        ([np.datetime64("2024-03-01T00:15:00.5")], [{"unit": "ms"}]),
        ([datetime.date(2024, 3, 1)], [{}]),
        ([1, 2, 3], []),
        (["u1", "u2"], []),
        ([True, False], []),
        ([None], []),
        ([["2024-03-01"]], []),
    ],
)
def test_the_ways_to_read_a_column_as_times(values, expected):
    found = readings(pa.array(values), "t")
    assert found == [Time(column="t", **keys) for keys in expected]
    as_text = [
        v if v is None else str(v).encode() for v in values if not isinstance(v, list | bool)
    ]
    if as_text and not isinstance(values[0], datetime.date | np.datetime64):
        assert readings(pa.array(as_text, pa.binary()), "t") == found
