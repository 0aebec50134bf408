import decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfctr.data.conform import (
    conform,
    to_double,
    to_int,
    to_string,
    to_tokens,
)
from tfctr.data.one_value import other_spellings, token_of
from tfctr.schema import MISSING_INT, Categorical, MultiValued, Numeric, Sequence, Text

BAD = "bad"


def outcome(conformed):
    """A value, None, or BAD, a row."""
    values, bad = conformed
    rows = values.to_pylist()
    if bad is None:
        return rows
    assert all(row is None or row == [] for row, wrong in zip(rows, bad, strict=True) if wrong)
    return [BAD if wrong else row for row, wrong in zip(rows, bad, strict=True)]


INTEGERS = {
    "7": 7,
    "-7": -7,
    "+7": 7,
    "007": 7,
    " 7 ": 7,
    "7.0": 7,
    "7.": 7,
    "": None,
    " \t": None,
    "True": 1,
    "false": 0,
    "9223372036854775807": 2**63 - 1,
    "9223372036854775808": BAD,
    "-9223372036854775807": -(2**63) + 1,
    str(MISSING_INT): None,
    "123456789012345678901234567890": BAD,
    "0" * 40 + "1": 1,
    "1" * 5000: BAD,
    "0x1F": BAD,
    "1_000": BAD,
    "7.5": BAD,
    "1e3": BAD,
    "٣": BAD,
    "seven": BAD,
    "nan": BAD,
    "-": BAD,
}
NUMBERS = {
    "7": 7.0,
    "-0.5": -0.5,
    "+.5": 0.5,
    "5.": 5.0,
    " 2 ": 2.0,
    "1e3": 1000.0,
    "1E-3": 0.001,
    "1e00005": 1e5,
    "0.1": 0.1,
    "123456789.123456789123": 123456789.123456789123,
    "": None,
    " \t": None,
    "nan": None,
    "NaN": None,
    "-nan": None,
    "1e-400": 0.0,
    "true": 1.0,
    "FALSE": 0.0,
    "1e400": np.inf,
    "-1e400": -np.inf,
    "3.5e38": np.inf,
    "3.4e38": 3.4e38,
    "inf": np.inf,
    "-Infinity": -np.inf,
    "nan(7)": BAD,
    "1,5": BAD,
    "0x1p3": BAD,
    "1_0": BAD,
    "٣": BAD,
    "1e": BAD,
    ".": BAD,
    "x": BAD,
}


def binary(texts):
    return pa.array([text.encode() for text in texts], pa.binary())


@pytest.mark.parametrize(("to", "expected"), [(to_int, INTEGERS), (to_double, NUMBERS)])
def test_numbers_from_text(to, expected):
    assert outcome(to(binary(expected))) == list(expected.values())


@pytest.mark.parametrize(("to", "known"), [(to_int, INTEGERS), (to_double, NUMBERS)])
def test_what_a_text_becomes_does_not_depend_on_its_company(to, known):
    for text, expected in known.items():
        assert outcome(to(binary([text]))) == [expected], text


@given(st.lists(st.sampled_from(sorted(INTEGERS)) | st.integers().map(str), max_size=8))
@settings(max_examples=50, deadline=None)
def test_integers_in_any_company(texts):
    alone = [outcome(to_int(binary([text])))[0] for text in texts]
    assert outcome(to_int(binary(texts))) == alone


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
@settings(max_examples=50, deadline=None)
def test_written_floats_are_read_back(values):
    assert outcome(to_double(binary([repr(value) for value in values]))) == values


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, None, MISSING_INT]), [1, None, None]),
        (pa.array([1, 2**63, 2**64 - 1, None], pa.uint64()), [1, BAD, BAD, None]),
        (pa.array([3.0, None, np.nan, 3.5, 1e300, np.inf]), [3, None, None, BAD, BAD, BAD]),
        (pa.array([decimal.Decimal("12"), None], pa.decimal128(5, 0)), [12, None]),
        (pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.00")]), [BAD, 2]),
        (pa.array([2.0**24 - 1, 2.0**24], pa.float32()), [2**24 - 1, BAD]),
        (pa.array([2047.0, 2048.0, None], pa.float16()), [2047, BAD, None]),
        (pa.array([True, None]), [1, None]),
        (pa.array([None, None]), [None, None]),
        (pa.array(["5", "5", "x"]).dictionary_encode(), [5, 5, BAD]),
        (pa.array([5, 5, None], pa.int32()).dictionary_encode(), [5, 5, None]),
        (pa.array(["5"], pa.large_string()), [5]),
    ],
)
def test_integers_from_typed_columns(column, expected):
    values, bad = to_int(column)
    assert values.type == pa.int64()
    assert outcome((values, bad)) == expected


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1.5, None, np.nan, np.inf]), [1.5, None, None, np.inf]),
        (pa.array([3e38, 1e39, -1e39, -0.0]), [3e38, np.inf, -np.inf, 0.0]),
        (pa.array([1, None], pa.int8()), [1.0, None]),
        (pa.array([1.5, 60000.0, None], pa.float16()), [1.5, 60000.0, None]),
        (pa.array([2**64 - 1], pa.uint64()), [2.0**64]),
        (pa.array([2**60 + 1]), [2.0**60]),
        (pa.array([decimal.Decimal("1.25"), None]), [1.25, None]),
        (pa.array([True, False, None]), [1.0, 0.0, None]),
        (pa.array([None]), [None]),
        (pa.array([0.5, 0.5], pa.float32()).dictionary_encode(), [0.5, 0.5]),
    ],
)
def test_doubles_from_typed_columns(column, expected):
    values, bad = to_double(column)
    assert values.type == pa.float64()
    assert outcome((values, bad)) == expected


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([b"a", b"", None, b"\xff", "é".encode()]), ["a", None, None, BAD, "é"]),
        (pa.array(["a", "", None], pa.large_string()), ["a", None, None]),
        (pa.array([7, None], pa.int16()), ["7", None]),
        (pa.array([True, False]), ["1", "0"]),
        (pa.array([decimal.Decimal("1.50")]), ["1.50"]),
        (pa.array([19_782, None], pa.date32()), ["2024-02-29", None]),
        (pa.array([19_782 * 86_400_000, None], pa.date64()), ["2024-02-29", None]),
        (pa.array([1, None], pa.uint64()), ["1", None]),
        (pa.array([b"a", None], pa.large_binary()), ["a", None]),
        (pa.array(["a", None], pa.string_view()), ["a", None]),
        (pa.array([b"a", b"\xff"], pa.binary_view()), ["a", BAD]),
        (pa.array(["a", "b", "", None]).dictionary_encode(), ["a", "b", None, None]),
        (pa.array([None]), [None]),
    ],
)
def test_strings(column, expected):
    values, bad = to_string(column)
    assert values.type == pa.string()
    assert outcome((values, bad)) == expected


# What the formats hold for one value, and its token.
ONE_VALUE = [
    ("1", [True, "True", "true", "TRUE", 1, 1.0, "1", "1.0", decimal.Decimal(1)]),
    ("0", [False, "False", "false", "FALSE", 0, 0.0, -0.0, "0", "0.0", "-0.0"]),
    ("4", [4, 4.0, "4", "4.0", np.float32(4), np.uint8(4), decimal.Decimal(4)]),
    ("-12", [-12, -12.0, "-12", "-12.0"]),
    ("3.5", [3.5, "3.5", np.float32(3.5), np.float16(3.5)]),
    ("0.1", [0.1, "0.1", np.float32(0.1)]),
    ("9007199254740991", [2**53 - 1, 2.0**53 - 1, "9007199254740991.0"]),
]
# Texts that are not numbers to anyone: versions, codes with leading zeros, words.
OTHER_TEXTS = [
    "1.10",
    "4.00",
    "04",
    "007.0",
    "+4",
    "4.",
    " 4",
    "1.0.0",
    "tRUE",
    "True story",
    "4.0\n",
]


@pytest.mark.parametrize(("token", "values"), ONE_VALUE)
def test_one_value_is_one_token_whatever_its_type(token, values):
    for value in values:
        assert outcome(to_tokens(pa.array([value, None]), "string")) == [token, None], repr(value)
        if isinstance(value, str):
            assert outcome(to_tokens(binary([value, "x"]), "string")) == [token, "x"]
        if isinstance(value, bool | int | float | str):
            assert token_of(value) == token
    texts = {value for value in values if isinstance(value, str)} - {token}
    assert texts <= set(other_spellings(token))


def test_only_spellings_of_numbers_and_booleans_are_changed():
    assert outcome(to_tokens(pa.array(OTHER_TEXTS), "string")) == [*OTHER_TEXTS[:-1], BAD]
    for text in [*OTHER_TEXTS, "", "4.0", "-0", "True"]:
        assert all(token_of(other) == text for other in other_spellings(text)), text
    assert [token_of(text) for text in OTHER_TEXTS] == OTHER_TEXTS


def test_a_float_that_may_be_several_integers_is_no_token():
    column = pa.array([2.0**53, -1e300, np.inf, np.nan, 2.5, None])
    assert outcome(to_tokens(column, "string")) == [BAD, BAD, BAD, None, "2.5", None]
    assert outcome(to_tokens(pa.array([2.0**24, 7.0], pa.float32()), "string")) == [BAD, "7"]
    assert outcome(to_tokens(pa.array([2.0**11, 7.0], pa.float16()), "string")) == [BAD, "7"]


def test_a_token_holds_no_line_break_but_a_text_may():
    column = pa.array(["a", "b\nc", "d\re", "f\x00g", "tab\t"])
    assert outcome(to_tokens(column, "string")) == ["a", BAD, BAD, "f\x00g", "tab\t"]
    assert outcome(conform(Text(name="t", side="item"), column)) == column.to_pylist()


def test_the_kind_says_how_a_column_is_read():
    column = pa.array(["1", "2"])
    assert outcome(conform(Categorical(name="f", side="item"), column)) == ["1", "2"]
    assert outcome(conform(Categorical(name="f", side="item", dtype="int"), column)) == [1, 2]
    assert outcome(conform(Numeric(name="f", side="item"), column)) == [1.0, 2.0]


TAGS = MultiValued(name="f", side="item", max_length=2)
CLICKS = Sequence(name="f", side="user", max_length=2, dtype="int", separator=" ")


def test_sets_keep_the_first_and_sequences_the_last():
    assert outcome(conform(TAGS, pa.array(["a|b|c", "d", "", None, "|x||y|z"]))) == [
        ["a", "b"],
        ["d"],
        [],
        [],
        ["x", "y"],
    ]
    assert outcome(conform(CLICKS, binary(["1 2 3 4", "5", "", "6  7"]))) == [
        [3, 4],
        [5],
        [],
        [6, 7],
    ]


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.list_(pa.int64()), pa.large_list(pa.int32()), pa.list_(pa.string())),
        *(pa.list_view(pa.int64()), pa.large_list_view(pa.string()), pa.list_(pa.string_view())),
    ],
)
def test_lists_of_typed_columns(kind):
    rows = [[1, 2, 3], None, [], [None, 4]]
    if not pa.types.is_integer(kind.value_type):
        rows = [row and [None if v is None else str(v) for v in row] for row in rows]
    assert outcome(conform(CLICKS, pa.array(rows, kind))) == [[2, 3], [], [], [4]]


def test_fixed_size_lists_and_lists_of_codes():
    assert outcome(conform(CLICKS, pa.array([[1, 2], None], pa.list_(pa.int64(), 2)))) == [
        [1, 2],
        [],
    ]
    codes = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), pa.array(["a", "b"]))
    lists = pa.ListArray.from_arrays(pa.array([0, 2, 3]), codes)
    assert outcome(conform(TAGS, lists)) == [["a", "b"], ["a"]]


def test_elements_of_lists_are_not_split():
    assert outcome(conform(TAGS, pa.array([["a|b", "c"]]))) == [["a|b", "c"]]


def test_a_bad_element_spoils_its_row_and_no_other():
    assert outcome(conform(CLICKS, binary(["1 2", "x 3", "4 5 6"]))) == [[1, 2], BAD, [5, 6]]
    assert outcome(conform(TAGS, pa.array([b"a|b", b"c|\xff", b"d"]))) == [["a", "b"], BAD, ["d"]]


@pytest.mark.parametrize(
    ("feature", "column"),
    [
        (Categorical(name="f", side="item"), pa.array([decimal.Decimal("1.50")])),
        (Categorical(name="f", side="item", dtype="int"), pa.array([1], pa.timestamp("s"))),
        (Numeric(name="f", side="item"), pa.array([1], pa.timestamp("s"))),
        (Numeric(name="f", side="item"), pa.array([1], pa.date32())),
        (Categorical(name="f", side="item"), pa.array([["a"]])),
        (TAGS, pa.array([{"a": 1}])),
        (TAGS, pa.array([decimal.Decimal("1.50")])),
    ],
)
def test_a_column_that_can_hold_no_such_value_is_an_error(feature, column):
    for values in (column, column[:0]):
        with pytest.raises(TypeError, match=r"type .* needed: "):
            conform(feature, values)


@pytest.mark.parametrize(
    ("column", "way_out"),
    [
        (pa.array([["a"]]), "kinds of features for lists are multi_valued and sequence"),
        (pa.array([1], pa.timestamp("s")), "store what matters of it so, as its hour or weekday"),
        (pa.array([b"ab"], pa.binary(2)), "store them so"),
    ],
)
def test_a_wrong_type_is_refused_with_a_way_out(column, way_out):
    with pytest.raises(TypeError) as error:
        to_tokens(column, "string")
    assert str(error.value) == f"type {column.type}; strings or integers are needed: {way_out}"
