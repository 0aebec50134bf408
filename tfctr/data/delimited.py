"""Delimited text (CSV, TSV, MovieLens' `::`) as binary columns; a bad line affects no other.

Each physical line is one record. A quoted value may hold the separator, but no line break: so a
stray quote affects only its own line, and files can be read in pieces.
"""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from tfctr.config import ConfigError
from tfctr.data import files

INNER_SEPARATOR = b"\x1f"  # replaces separators of several bytes, which Arrow does not support


@dataclass
class Rows:
    """Raw rows of a piece of a source.

    `table`: the requested columns, binary for text formats. `numbers`: int64, each row's place in
    the piece, bad rows included. `bad`: (place, reason, the raw row).
    """

    table: pa.Table
    numbers: np.ndarray
    bad: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Delimited:
    """The format of a delimited file."""

    separator: str = ","
    encoding: str = "utf-8"
    columns: tuple[str, ...] | None = None  # None: the first line names them
    missing: tuple[str, ...] = ()  # values that stand for none; they are null
    decimal: str = "."  # of numbers; they are given with a point

    @property
    def quoted(self) -> bool:
        return self.separator in (",", ";")

    def header(self, path: str) -> tuple[str, ...]:
        """The columns' names.

        Raises:
            ConfigError: a name occurs twice, the file is empty, or its separator is another.
        """
        if self.columns is not None:
            return self.columns
        with files.open_to_read(path) as file:
            line = file.readline().removeprefix(files.BOM).rstrip(b"\r\n")
        text = line.decode(self.encoding, "replace")
        try:
            names = tuple(self.values(text))
        except ValueError as error:
            raise ConfigError(f"{path}: {error}; the first line must name the columns") from None
        others = [sign for sign in (",", ";", "\t", "|") if sign in text]
        if len(names) == 1 and others and '"' not in text:
            raise ConfigError(
                f"{path}: the first line, {text[:80]!r}, has no {self.separator!r}; write "
                f"separator: {json.dumps(others[0])}"
            )
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"{path}: the header names {twice!r} twice: {', '.join(names)}")
        return names

    def lines(self, path: str, start: int, stop: int) -> bytes:
        """The records whose first byte lies in `[start, stop)`, as UTF-8 if they are text."""
        data = files.read_lines(path, start, stop, has_header=self.columns is None)
        return data if self.encoding == "utf-8" else data.decode(self.encoding).encode()

    def parse(self, data: bytes, names: Sequence[str], wanted: Sequence[str]) -> Rows:
        """Lines to columns; a line that is not a record is `bad` with its reason.

        Arrow reads the plain lines. Lines with quotes, carriage returns or a wrong number of
        separators are read one at a time.
        """
        if data and not data.endswith(b"\n"):
            data += b"\n"
        odd = self._odd_lines(data, len(names) - 1)
        numbers = np.flatnonzero(~odd)
        if not odd.any():
            return Rows(self._with_points(self._plain(data, names, wanted)), numbers)
        lines = data.split(b"\n")[:-1]
        plain = b"".join(b"%s\n" % lines[i] for i in numbers)
        suspects = {int(i): lines[i] for i in np.flatnonzero(odd)}
        table, careful = self._plain(plain, names, wanted), self._careful(suspects, names, wanted)
        places = np.concatenate([numbers, careful.numbers])
        order = np.argsort(places, kind="stable")
        table = pa.concat_tables([table, careful.table]).take(order)
        return Rows(self._with_points(table), places[order], careful.bad)

    def _with_points(self, table: pa.Table) -> pa.Table:
        if self.decimal == ".":
            return table
        number = rf"^([+-]?\d*){re.escape(self.decimal)}(\d+)$"
        columns = {
            name: pc.replace_substring_regex(table[name], number, r"\1.\2").combine_chunks()
            for name in table.column_names
        }
        return pa.table(columns)

    def _odd_lines(self, data: bytes, separators: int) -> np.ndarray:
        """bool `[lines]`."""
        ends = _places(data, b"\n")
        odd = np.diff(ends, prepend=-1) == 1  # empty
        signs = [b"\r"] + [b'"'] * self.quoted + [INNER_SEPARATOR] * (len(self.separator) > 1)
        for sign in signs:
            if sign in data:
                odd[np.searchsorted(ends, _places(data, sign))] = True
        data, separator = self._with_short_separator(data)
        ends = _places(data, b"\n")
        found = np.searchsorted(_places(data, separator), ends)
        return odd | (np.diff(found, prepend=0) != separators)

    def _with_short_separator(self, data: bytes) -> tuple[bytes, bytes]:
        separator = self.separator.encode()
        if len(separator) == 1:
            return data, separator
        return data.replace(separator, INNER_SEPARATOR), INNER_SEPARATOR

    def _plain(self, data: bytes, names: Sequence[str], wanted: Sequence[str]) -> pa.Table:
        if not data:
            return pa.table({name: pa.array([], pa.binary()) for name in wanted})
        data, separator = self._with_short_separator(data)
        table = arrow_csv.read_csv(
            io.BytesIO(data),
            # One block, so that no record is in two.
            arrow_csv.ReadOptions(
                column_names=names, use_threads=False, block_size=max(len(data) + 1, 1 << 16)
            ),
            arrow_csv.ParseOptions(delimiter=separator.decode(), quote_char=False),
            arrow_csv.ConvertOptions(
                column_types={name: pa.binary() for name in names},
                include_columns=list(wanted),
                null_values=list(self.missing),
                strings_can_be_null=bool(self.missing),
            ),
        )
        return table.combine_chunks()

    def _careful(
        self, lines: dict[int, bytes], names: Sequence[str], wanted: Sequence[str]
    ) -> Rows:
        positions = [names.index(name) for name in wanted]
        good: list[tuple[int, list[bytes | None]]] = []
        bad: list[tuple[int, str, str]] = []
        for number, line in lines.items():
            # Bytes that are not UTF-8 are kept: the feature's type decides whether they are bad.
            text = line.decode("utf-8", "surrogateescape")
            try:
                values = self.values(text)
                if len(values) != len(names):
                    raise ValueError(f"{len(values)} values where {len(names)} columns are")
            except ValueError as error:
                bad.append((number, str(error), line.decode("utf-8", "backslashreplace")))
                continue
            good.append((number, [self._value(values[i]) for i in positions]))
        columns = {
            name: pa.array([values[i] for _, values in good], pa.binary())
            for i, name in enumerate(wanted)
        }
        return Rows(pa.table(columns), np.array([n for n, _ in good], dtype=np.int64), bad)

    def _value(self, text: str) -> bytes | None:
        return None if text in self.missing else text.encode("utf-8", "surrogateescape")

    def values(self, line: str) -> list[str]:
        """The values of a line. Raises a `ValueError` if it is no record."""
        if not line:
            raise ValueError("empty line")
        if not self.quoted:
            if "\r" in line:
                raise ValueError("a carriage return inside the line")
            return line.split(self.separator)
        try:
            return next(csv.reader([line], delimiter=self.separator, strict=True))
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise ValueError("a quote is not closed") from None
            if "new-line" in str(error):
                raise ValueError("a carriage return inside the line") from None
            raise ValueError(f"quotes: {error}") from None


def _places(data: bytes, sign: bytes) -> np.ndarray:
    """The places of a byte, int64."""
    return np.flatnonzero(np.frombuffer(data, np.uint8) == sign[0])
