"""How a text file is written: its format, separator and header line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tfctr.config import ConfigError
from tfctr.data import files
from tfctr.data.delimited import Delimited
from tfctr.data.formats import SEPARATORS, extension
from tfctr.data.one_value import read_float

SIGNS = (",", "\t", ";", "::", "|")  # separators, the likelier first
FEW_LINES = 200
ALIKE = 0.9  # share of the lines that have as many values as the first
DATE = re.compile(r"\d{2,4}[-/.]\d{1,2}[-/.]\d{2,4}")


@dataclass(frozen=True)
class TextFormat:
    """Of a delimited file.

    Attributes:
        separator: None if it is the one that the file's extension says.
        first: the values of the first line.
        has_header: whether the first line names the columns.
    """

    separator: str | None
    first: tuple[str, ...]
    has_header: bool


def format_of_text(path: str) -> str:
    """ "jsonl" or "csv", of a text file whose extension does not say it."""
    return "jsonl" if files.start(path).removeprefix(files.BOM).lstrip().startswith(b"{") else "csv"


def text_format(path: str) -> TextFormat:
    """The format of a delimited file, by its first lines.

    The first line holds names if none of its values is a number or a date: a log has a label, which
    is a number, in each row.

    Raises:
        ConfigError: no separator makes columns of it.
    """
    with files.open_to_read(path) as file:
        data = file.read(1 << 18).removeprefix(files.BOM)
    # Latin-1 reads any bytes, and separators are ASCII.
    lines = data.decode("latin-1").splitlines()[: FEW_LINES + 1]
    lines = lines[:-1] if len(lines) > FEW_LINES else lines
    by_name = SEPARATORS.get(extension(path), ",")
    found = {sign: values for sign in SIGNS if (values := _first(lines, sign))}
    if not found:
        raise ConfigError(
            f"{path}: no columns: the lines have no number of values in common, with none of the "
            f"separators {' '.join(map(repr, SIGNS))}; write one record a line"
        )
    separator = by_name if by_name in found else max(found, key=lambda sign: len(found[sign]))
    first = found[separator]
    has_header = not any(_is_value(text) for text in first)
    return TextFormat(None if separator == by_name else separator, tuple(first), has_header)


def _first(lines: Sequence[str], separator: str) -> list[str] | None:
    """The values of the first line; None if other lines have another number of them, or one."""
    form = Delimited(separator)
    try:
        first = form.values(lines[0])
    except (ValueError, IndexError):
        return None
    alike = 0
    for line in lines:
        try:
            alike += len(form.values(line)) == len(first)
        except ValueError:
            continue
    return first if len(first) > 1 and alike >= ALIKE * len(lines) else None


def _is_value(text: str) -> bool:
    number = read_float(text)
    is_number = number is not None and number == number
    return is_number or DATE.match(text) is not None
