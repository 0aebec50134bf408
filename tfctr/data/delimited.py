"""Delimited text (CSV, TSV, MovieLens' `::`) as binary columns; no bad line harms another.

One record a physical line. A quoted value may hold the separator, not a line break: so a stray
quote spoils its own line and no other, and files can be read in pieces.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from tfctr.data import files

INNER_SEPARATOR = b"\x1f"  # stands for separators of several bytes, which Arrow does not take


@dataclass
class Rows:
    """Raw rows of a piece of a source.

    `table`: the columns asked for; text formats give binary columns. `numbers`: int64, each row's
    place in the piece, counting bad ones. `bad`: (place, reason, the row as found).
    """

    table: pa.Table
    numbers: np.ndarray
    bad: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Delimited:
    """How the lines of a delimited file are made."""

    separator: str = ","
    encoding: str = "utf-8"
    columns: tuple[str, ...] | None = None  # None: the first line names them

    @property
    def quoted(self) -> bool:
        return self.separator in ",;"

    def header(self, path: str) -> tuple[str, ...]:
        """The columns' names.

        Raises:
            ValueError: a name stands twice, or the file is empty.
        """
        if self.columns is not None:
            return self.columns
        with files.open_to_read(path) as file:
            line = file.readline().removeprefix(files.BOM).rstrip(b"\r\n")
        text = line.decode(self.encoding, "replace")
        names = tuple(next(csv.reader([text], delimiter=self.separator), ()))
        if not names:
            raise ValueError(f"{path}: empty; the first line must name the columns")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{path}: the header names {twice!r} twice: {', '.join(names)}")
        return names

    def lines(self, path: str, start: int, stop: int) -> bytes:
        """The records whose first byte lies in `[start, stop)`, as UTF-8 if they are text."""
        data = files.read_lines(path, start, stop, has_header=self.columns is None)
        return data if self.encoding == "utf-8" else data.decode(self.encoding).encode()

    def parse(self, data: bytes, names: Sequence[str], wanted: Sequence[str]) -> Rows:
        """Lines to columns; a line that is not a record is `bad` with its reason."""
        if data and not data.endswith(b"\n"):
            data += b"\n"
        separator = self.separator.encode()
        num_lines = data.count(b"\n")
        suspects: dict[int, bytes] = {}
        if (
            data.startswith(b"\n")
            or b"\n\n" in data
            or b"\r" in data
            or (self.quoted and b'"' in data)
        ):
            lines = data.split(b"\n")[:-1]
            suspects = {
                i: line
                for i, line in enumerate(lines)
                if not line or b"\r" in line or (self.quoted and b'"' in line)
            }
            data = b"".join(b"%s\n" % x for i, x in enumerate(lines) if i not in suspects)
        numbers = np.delete(np.arange(num_lines), list(suspects))
        if len(separator) > 1:
            data, separator = data.replace(separator, INNER_SEPARATOR), INNER_SEPARATOR
        table, bad = _plain(data, numbers, separator, names, wanted, self.separator)
        kept = np.setdiff1d(numbers, [number for number, _, _ in bad], assume_unique=True)
        if suspects:
            careful, numbers, worse = _careful(suspects, self.separator, names, wanted)
            order = np.argsort(np.concatenate([kept, numbers]), kind="stable")
            table = pa.concat_tables([table, careful]).take(order)
            kept = np.concatenate([kept, numbers])[order]
            bad = sorted(bad + worse)
        return Rows(table, kept, bad)


def _plain(
    data: bytes,
    numbers: np.ndarray,
    separator: bytes,
    names: Sequence[str],
    wanted: Sequence[str],
    shown: str,
) -> tuple[pa.Table, list[tuple[int, str, str]]]:
    """Lines without quotes, blanks or stray carriage returns, by Arrow's reader."""
    bad: list[tuple[int, str, str]] = []
    if not data:
        return pa.table({name: pa.array([], pa.binary()) for name in wanted}), bad

    def on_invalid(row: Any) -> str:
        reason = f"{row.actual_columns} columns where {row.expected_columns} are needed"
        bad.append((int(numbers[row.number - 1]), reason, row.text.replace("\x1f", shown)))
        return "skip"

    table = arrow_csv.read_csv(
        io.BytesIO(data),
        # One block: a record may not straddle two.
        arrow_csv.ReadOptions(
            column_names=names, use_threads=False, block_size=max(len(data) + 1, 1 << 16)
        ),
        arrow_csv.ParseOptions(
            delimiter=separator.decode(), quote_char=False, invalid_row_handler=on_invalid
        ),
        arrow_csv.ConvertOptions(
            column_types={name: pa.binary() for name in names},
            include_columns=list(wanted),
            strings_can_be_null=False,
        ),
    )
    return table.combine_chunks(), bad


def _careful(
    suspects: dict[int, bytes], separator: str, names: Sequence[str], wanted: Sequence[str]
) -> tuple[pa.Table, np.ndarray, list[tuple[int, str, str]]]:
    """Lines that need a real CSV parser, one at a time."""
    positions = [names.index(name) for name in wanted]
    good: list[tuple[int, list[bytes]]] = []
    bad: list[tuple[int, str, str]] = []
    for number, line in suspects.items():
        # Bytes that are not UTF-8 pass through; the column they are in decides what they mean.
        text = line.decode("utf-8", "surrogateescape")
        if not text:
            bad.append((number, "empty line", ""))
            continue
        try:
            values = next(csv.reader([text], delimiter=separator, strict=True))
        except csv.Error as error:
            reason = str(error)
            if "unexpected end" in reason:
                reason = "a quote is not closed"
            elif b"\r" in line:
                reason = "a carriage return inside the line"
            bad.append((number, reason, line.decode("utf-8", "backslashreplace")))
            continue
        if len(values) != len(names):
            reason = f"{len(values)} columns where {len(names)} are needed"
            bad.append((number, reason, line.decode("utf-8", "backslashreplace")))
            continue
        good.append((number, [values[i].encode("utf-8", "surrogateescape") for i in positions]))
    columns = {
        name: pa.array([values[i] for _, values in good], pa.binary())
        for i, name in enumerate(wanted)
    }
    return pa.table(columns), np.array([number for number, _ in good], dtype=np.int64), bad
