"""The files of a log, and of the tables joined to it, as the `source` of a data config."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfctr.config import ConfigError, FileSource
from tfctr.data.formats import BY_NAME, SEPARATORS, extension, format_of
from tfctr.data.readers import Reader
from tfctr.data.sources import matching, opened
from tfctr.guess import sample
from tfctr.guess.columns import Column
from tfctr.guess.text_format import TextFormat, format_of_text, text_format


@dataclass
class Table:
    """The files of a log, or of a table of users or items.

    Attributes:
        patterns: paths, folders or globs, as a config in `directory` writes them.
        columns: of the sample, by name; `c1`, `c2`, ... if the files do not name them.
        objects: columns that hold objects.
        is_named: whether the files name their columns.
    """

    patterns: tuple[str, ...]
    directory: str
    kind: str
    paths: tuple[str, ...]
    text: TextFormat | None
    columns: dict[str, Column]
    objects: tuple[str, ...] = ()

    @property
    def is_named(self) -> bool:
        return self.text is None or self.text.has_header

    @property
    def name(self) -> str:
        return " ".join(self.patterns)

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values())).values) if self.columns else 0

    @property
    def separator(self) -> str | None:
        """Of its text, also if its extension says it."""
        if self.text is None:
            return None
        return self.text.separator or SEPARATORS.get(extension(self.paths[0]), ",")

    def reader(self, keys: dict[str, Any]) -> Reader:
        """A reader of it, with further keys of a source."""
        content: dict[str, Any] = {"format": self.kind, "events": self.patterns}
        if self.text is not None:
            content |= keys | ({"separator": self.text.separator} if self.text.separator else {})
            if not self.text.has_header:
                content["columns"] = [f"c{i + 1}" for i in range(len(self.text.first))]
        return opened(FileSource.model_validate(content), self.directory).events

    def rename(self, names: dict[str, str]) -> None:
        """Gives columns that the files do not name other names."""
        self.columns = {
            names.get(name, name): Column(names.get(name, name), column.values)
            for name, column in self.columns.items()
        }


def find(patterns: Sequence[str], directory: str) -> Table:
    """A table's files and their format; nothing is sampled yet.

    Raises:
        ConfigError: no such file, or its format is none that is read.
    """
    found = [path for pattern in patterns for path in matching(pattern, directory)]
    found = list(dict.fromkeys(found))
    by_name = [BY_NAME.get(extension(path)) for path in found]
    otherwise = "csv" if by_name[0] else format_of_text(found[0])
    kind, paths = format_of(found, otherwise)
    text = text_format(paths[0]) if kind == "csv" else None
    return Table(tuple(patterns), directory, kind, paths, text, {})


def read(tables: Sequence[Table]) -> dict[str, Any]:
    """Samples each table; returns the keys of the source that are said of all of them.

    Raises:
        ConfigError: the tables need different keys; one has no rows, or files of other columns.
    """
    keys = _format(tables) | _separator(tables)
    readers = [table.reader({}) for table in tables]
    for reader in readers:
        reader.pieces()  # checks that all files of a table have the same columns
    texts = [reader for table, reader in zip(tables, readers, strict=True) if table.text]
    if any(sample.encoding(sample.sampled_pieces(reader)) != "utf-8" for reader in texts):
        keys["encoding"] = "latin-1"
    written = {key: value for key, value in keys.items() if key == "encoding"}
    samples = [sample.sample(table.reader(written)) for table in tables]
    of_texts = [s for table, s in zip(tables, samples, strict=True) if table.text]
    if missing := list(dict.fromkeys(t for s in of_texts for t in sample.missing_texts(s.columns))):
        written["missing"] = missing
    if any(
        table.separator != "," and sample.has_decimal_commas(found.columns, missing)
        for table, found in zip(tables, samples, strict=True)
        if table.text
    ):
        written["decimal"] = ","
    if written.keys() - {"encoding"}:
        samples = [sample.sample(table.reader(written)) for table in tables]
    for table, found in zip(tables, samples, strict=True):
        if not found.rows:
            raise ConfigError(f"{table.name}: no rows that can be read; a config needs some")
        table.columns = {name: Column(name, values) for name, values in found.columns.items()}
        table.objects = found.objects
    return keys | written


def _format(tables: Sequence[Table]) -> dict[str, Any]:
    """The format of files whose extension says nothing."""
    by_content = {t.name: t.kind for t in tables if BY_NAME.get(extension(t.paths[0])) is None}
    if len({*by_content.values()} - {"parquet"}) > 1:
        shown = " and ".join(f"{name} ({kind})" for name, kind in by_content.items())
        raise ConfigError(
            f"{shown}: one source has one format of files whose extension says none; let their "
            "names end in .csv, .jsonl or .parquet"
        )
    return {"format": next(iter(by_content.values()), tables[0].kind)}


def _separator(tables: Sequence[Table]) -> dict[str, Any]:
    found = {table.name: table.separator for table in tables if table.text is not None}
    if all(table.text is None or table.text.separator is None for table in tables):
        return {}
    if len({*found.values()}) > 1:
        shown = " and ".join(f"{name} ({sign!r})" for name, sign in found.items())
        raise ConfigError(
            f"{shown}: one source has one separator of values; write the files with the same one"
        )
    return {"separator": next(iter(found.values()))}
