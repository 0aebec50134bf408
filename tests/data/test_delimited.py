import csv
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfctr.config import ConfigError
from tfctr.data.delimited import Delimited

CSV = Delimited()


def parse(data, columns=("a", "b", "c"), wanted=None, **kwargs):
    return Delimited(**kwargs).parse(data, columns, wanted or columns)


def rows_of(rows):
    return list(
        zip(*(rows.table[name].to_pylist() for name in rows.table.column_names), strict=True)
    )


def reasons(rows):
    return {number: why for number, why, _ in rows.bad}


def test_plain_lines():
    rows = parse(b"1,2,3\n4,,6\n")
    assert rows_of(rows) == [(b"1", b"2", b"3"), (b"4", b"", b"6")]
    assert rows.numbers.tolist() == [0, 1]
    assert rows.bad == []


def test_a_last_line_without_its_end_counts():
    assert rows_of(parse(b"1,2,3\n4,5,6")) == [(b"1", b"2", b"3"), (b"4", b"5", b"6")]


def test_only_the_columns_asked_for_in_that_order():
    rows = parse(b'1,2,3\n"4",5,6\n', wanted=("c", "a"))
    assert rows_of(rows) == [(b"3", b"1"), (b"6", b"4")]


def test_quoted_values():
    rows = parse(b'1,"two, or ""2""",3\n"4","",6\n7,8,9\n')
    assert rows_of(rows) == [(b"1", b'two, or "2"', b"3"), (b"4", b"", b"6"), (b"7", b"8", b"9")]


def test_a_quote_inside_an_unquoted_value_is_a_character():
    assert rows_of(parse(b'1,12" vinyl,3\n')) == [(b"1", b'12" vinyl', b"3")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "empty line"),
        (b"1,2", "2 values where 3 columns are"),
        (b"1,2,3,4", "4 values where 3 columns are"),
        (b"1,\xff\xfe", "2 values where 3 columns are"),
        (b'1,"2,3', "a quote is not closed"),
        (b'"1,2,3', "a quote is not closed"),
        (b'1,"2"x,3', "quotes:"),
        (b"1,2\r,3", "a carriage return inside the line"),
        (b'1,"2,3"', "2 values where 3 columns are"),
        (b"1\x002\x003", "1 values where 3 columns are"),
    ],
)
def test_a_bad_line_harms_no_other(line, reason):
    rows = parse(b"1,2,3\n" + line + b"\n4,5,6\n")
    assert rows_of(rows) == [(b"1", b"2", b"3"), (b"4", b"5", b"6")]
    assert rows.numbers.tolist() == [0, 2]
    ((number, why, text),) = rows.bad
    assert (number, why[: len(reason)]) == (1, reason)
    assert text == line.decode("utf-8", "backslashreplace")


def test_bytes_that_are_not_utf8_are_left_to_who_reads_the_column():
    assert rows_of(parse(b'1,\xff,3\n"4",\xff,6\n')) == [
        (b"1", b"\xff", b"3"),
        (b"4", b"\xff", b"6"),
    ]


def test_nul_bytes_are_content():
    assert rows_of(parse(b'1,\x00,3\n"4",\x00,6\n')) == [(b"1", b"\0", b"3"), (b"4", b"\0", b"6")]


def test_separators_of_several_bytes():
    rows = parse(b"1::a:b::3\n4::5\n::::\n6::\r::8\n7::x\x1fy::9\n", separator="::")
    assert rows_of(rows) == [(b"1", b"a:b", b"3"), (b"", b"", b""), (b"7", b"x\x1fy", b"9")]
    assert reasons(rows) == {
        1: "2 values where 3 columns are",
        3: "a carriage return inside the line",
    }


def test_tabs_and_bars_know_no_quotes():
    for separator in ("\t", "|"):
        line = separator.join(['"a', "b", '12"']).encode()
        assert rows_of(parse(line, separator=separator)) == [(b'"a', b"b", b'12"')]


def test_semicolons():
    assert rows_of(parse(b'1;"2;5";3,0\n', separator=";")) == [(b"1", b"2;5", b"3,0")]


def test_one_column():
    rows = parse(b'1\n\n"2"\n', columns=("a",))
    assert rows_of(rows) == [(b"1",), (b"2",)]
    assert reasons(rows) == {1: "empty line"}


@given(
    st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\r\n")), min_size=2, max_size=2
        ),
        max_size=8,
    )
)
@settings(max_examples=60, deadline=None)
def test_what_csv_writes_is_read_back(records):
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(records)
    rows = parse(written.getvalue().encode(), columns=("a", "b"))
    assert rows_of(rows) == [tuple(value.encode() for value in record) for record in records]
    assert rows.bad == []


@given(st.binary(max_size=60), st.sampled_from([",", "::", "\t"]))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_as_many_rows_as_lines(data, separator):
    data = data.replace(b"\x07", b"\n").replace(b"\x08", separator.encode())
    rows = parse(data, columns=("a", "b"), separator=separator)
    lines = data.count(b"\n") + bool(data and not data.endswith(b"\n"))
    places = rows.numbers.tolist() + [number for number, _, _ in rows.bad]
    assert sorted(places) == list(range(lines))
    assert (np.diff(rows.numbers) > 0).all()
    assert rows.table.num_rows == len(rows.numbers)


def pieces(format, path, step):
    size = path.stat().st_size
    return [
        format.lines(str(path), start, min(start + step, size)) for start in range(0, size, step)
    ]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 10, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("columns", [None, ("a", "b")])
def test_any_cut_of_a_file_gives_each_line_once(tmp_path, step, end, columns):
    path = tmp_path / "log.csv"
    header = [] if columns else [b"a,b"]
    lines = [b"1,2", b"", b"33333,44444444", b"5,\xc3\xa9", b"7,8"]
    path.write_bytes(b"\xef\xbb\xbf" + end.join(header + lines))
    found = b"".join(pieces(Delimited(columns=columns), path, step))
    assert found == b"\n".join(lines)


def test_latin_1_becomes_utf_8(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes("a,b\ncafé,1\n".encode("latin-1"))
    assert Delimited(encoding="latin-1").lines(str(path), 0, 100) == "café,1\n".encode()


def test_the_header_may_be_quoted_and_end_in_any_way(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b'\xef\xbb\xbf"user id",b\r\n1,2\r\n')
    assert CSV.header(str(path)) == ("user id", "b")
    path.write_bytes(b"a::b")
    assert Delimited(separator="::").header(str(path)) == ("a", "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty line"), (b"a,b,a\n", "'a' twice"), (b'"a,b\n', "not closed")],
)
def test_a_header_that_names_no_columns_is_an_error(tmp_path, content, message):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        CSV.header(str(path))
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("header", "separator", "way_out"),
    [
        ("user;item", ",", r"the first line, 'user;item', has no ','; write separator: \";\"$"),
        ("user\titem,s", ";", r"has no ';'; write separator: \",\"$"),
        ("user\titem", ",", r"has no ','; write separator: \"\\t\"$"),
        ("user|item", "::", r"has no '::'; write separator: \"\|\"$"),
    ],
)
def test_a_header_with_another_separator_is_an_error_that_names_it(
    tmp_path, header, separator, way_out
):
    (tmp_path / "log.csv").write_text(header + "\n")
    with pytest.raises(ConfigError, match=way_out):
        Delimited(separator=separator).header(str(tmp_path / "log.csv"))
    for one_column in ("user", '"a;b"'):
        (tmp_path / "log.csv").write_text(one_column + "\n")
        assert len(CSV.header(str(tmp_path / "log.csv"))) == 1


def test_texts_that_stand_for_no_value_are_null():
    data = b'a,NULL,1\n"a","NULL",\\N\nNULLS,,NA\n'
    rows = Delimited(missing=("NULL", "\\N")).parse(data, ["x", "y", "z"], ["x", "y", "z"])
    assert rows.table.to_pydict() == {
        "x": [b"a", b"a", b"NULLS"],
        "y": [None, None, b""],
        "z": [b"1", None, b"NA"],
    }
    assert not rows.bad


def test_numbers_with_a_decimal_comma_are_given_with_a_point():
    data = b'a;1,5;x\n"b,5";"-,25";7\nc;1,5,2;1.000,5\n'
    rows = Delimited(";", decimal=",").parse(data, ["x", "y", "z"], ["y", "x", "z"])
    assert rows.table.to_pydict() == {
        "y": [b"1.5", b"-.25", b"1,5,2"],
        "x": [b"a", b"b,5", b"c"],
        "z": [b"x", b"7", b"1.000,5"],
    }
    assert not rows.bad
