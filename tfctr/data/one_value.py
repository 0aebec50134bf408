"""What one raw value is, as a token or a number; `tfctr.data.conform` reads whole columns so.

A client needs no more than this, and this needs no library.
"""

import re

# An integer may end in ".0": pandas writes a whole column so if one value is missing.
INTEGER = re.compile(r"\s*([+-]?)0*(\d{1,19})(\.0*)?\s*", re.ASCII)
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
NOT_FINITE = re.compile(r"\s*[+-]?(nan|inf|infinity)\s*", re.ASCII | re.IGNORECASE)
LARGEST_FLOAT = (2.0 - 2.0**-23) * 2.0**127  # of float32
WHOLE_FLOATS = 2.0**53  # below it every integer has its own double

# Formats and their writers spell one value in several ways: `True` of Python is `true` in JSON, and
# an integer column with gaps is one of floats in pandas.
TRUE, FALSE = ("True", "true", "TRUE"), ("False", "false", "FALSE")
BOOLEANS = dict.fromkeys(TRUE, "1") | dict.fromkeys(FALSE, "0")
WHOLE = r"(?:(-?[1-9][0-9]{0,15})|-?(0))\.0"


def token_of(value: bool | float | str) -> str:
    """The token of one value: that of `to_tokens`, which reads whole columns.

    token_of(True) == token_of("true") == "1"
    token_of(4) == token_of(4.0) == token_of("4.0") == "4"
    """
    text = str(int(value) if isinstance(value, bool) else value)
    whole = re.fullmatch(WHOLE, text)
    return whole[1] or whole[2] if whole else BOOLEANS.get(text, text)


def other_spellings(token: str) -> tuple[str, ...]:
    """All other texts that are this token."""
    booleans = {"1": TRUE, "0": FALSE}.get(token, ())
    floats = (f"{token}.0", "-0.0")[: 1 + (token == "0")]
    return (*booleans, *(text for text in floats if token_of(text) == token))


def read_int(text: str) -> int | None:
    """The 64-bit integer that a text is; None if it is none.

    read_int("007") == read_int("7.0") == 7
    read_int("1_000") is None
    """
    found = INTEGER.fullmatch(BOOLEANS.get(text, text))
    if found is None:
        return None
    number = int(found[1] + found[2])
    return number if -(2**63) <= number < 2**63 else None


def read_float(text: str) -> float | None:
    """The number that a text is, maybe infinite or NaN; None if it is none.

    read_float("true") == read_float("1e0") == 1.0
    """
    text = BOOLEANS.get(text, text)
    return float(text) if NUMBER.fullmatch(text) or NOT_FINITE.fullmatch(text) else None
