"""The logs, and the tables joined to them, that data configs name."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from tfctr import schema
from tfctr.config import (
    ConfigError,
    DataConfig,
    FileSource,
    NoInput,
    Table,
    WorldSource,
    find_input,
    input_folders,
    no_input,
)
from tfctr.config.data import CategoricalOfLog, InputFiles, SourceConfig, several
from tfctr.data import files
from tfctr.data.delimited import Delimited
from tfctr.data.formats import SEPARATORS, extension, format_of
from tfctr.data.movielens import open_movielens
from tfctr.data.partitions import PartitionedReader, common_keys
from tfctr.data.readers import (
    DelimitedReader,
    JsonLinesReader,
    ParquetReader,
    Reader,
    Source,
    WorldReader,
)
from tfctr.data.world import World


def open_source(config: DataConfig) -> Source:
    """The source that a data config names.

    Raises:
        ConfigError: a file is not there; the text says where it was looked for.
    """
    return opened(config.source, config.directory, config.features)


def opened(source: SourceConfig, directory: str, features: Sequence[Any] = ()) -> Source:
    """As `open_source`, of a config's `source`; of its features, those with lists are needed."""
    if isinstance(source, WorldSource):
        world = World(
            num_users=source.users,
            num_items=source.items,
            num_events=source.events,
            days=source.days,
            seed=source.seed,
            ads_share=source.ads_share,
            drift=source.drift,
            extra_fields=source.extra_fields,
        )
        return Source(
            WorldReader(world, "events", source.domain),
            {
                "users": (WorldReader(world, "users"), "user_id"),
                "items": (WorldReader(world, "items"), "item_id"),
            },
        )
    if isinstance(source, FileSource):
        tables: dict[str, tuple[Reader, str]] = {}
        for name, table in (("users", source.users), ("items", source.items)):
            if table is not None:
                reader = _file_reader(source, table, directory, features)
                if table.key not in reader.names():
                    raise ConfigError(
                        f"source.{name}.key: found {table.key!r}; columns of {table.path}: "
                        f"{', '.join(reader.names())}"
                    )
                tables[name] = (reader, table.key)
        return Source(_file_reader(source, source, directory, features), tables)
    return open_movielens(find_input(source.path, directory), source.two_domains)


def columns(source: SourceConfig, directory: str) -> tuple[str, ...]:
    """The columns of a source's events, then those of its tables; errors as for `open_source`.

    Args:
        source: of a data config.
        directory: that its paths are relative to.
    """
    found = opened(source, directory)
    readers = [found.events, *(reader for reader, _ in found.tables.values())]
    return tuple(dict.fromkeys(name for reader in readers for name in reader.names()))


def _file_reader(
    source: FileSource, what: FileSource | Table, directory: str, features: Sequence[Any]
) -> Reader:
    patterns = several(what.events if isinstance(what, FileSource) else what.path)
    found = [path for pattern in patterns for path in matching(pattern, directory)]
    kind, paths = format_of(tuple(dict.fromkeys(found)), source.format)
    reader = _reader_of(kind, paths, source, what, features)
    if keys := common_keys(paths, input_folders(directory)):
        in_files = reader.names()
        keys = tuple(key for key in keys if key not in in_files)
    return PartitionedReader(reader, keys) if keys else reader


def delimited(source: FileSource, path: str, columns: tuple[str, ...] | None) -> Delimited:
    """The format of a source's delimited files, of which one is `path`."""
    separator = source.separator or SEPARATORS.get(extension(path), ",")
    return Delimited(separator, source.encoding, columns, source.missing, source.decimal)


def _reader_of(
    kind: str,
    paths: tuple[str, ...],
    source: FileSource,
    what: FileSource | Table,
    features: Sequence[Any],
) -> Reader:
    columns = tuple(what.columns) if what.columns else None
    if kind == "csv":
        return DelimitedReader(paths, delimited(source, paths[0], columns))
    if columns:
        raise ConfigError(f"source: columns name those of CSV files; {paths[0]} has its own names")
    if kind == "parquet":
        return ParquetReader(paths)
    return JsonLinesReader(
        paths,
        {
            f.source_column: f.separator
            for f in features
            if isinstance(f, schema.MultiValued | schema.Sequence)
        },
    )


def matching(pattern: str, directory: str) -> list[str]:
    """The files that a path, a folder or a glob of a config names.

    Raises:
        ConfigError: there is none, and as `files.matching`.
    """
    if paths := matching_if_any(pattern, directory):
        return paths
    if "://" in pattern:
        raise NoInput(f"source: no data file matches {pattern}")
    raise no_input(pattern, directory)


def paths_of(given: InputFiles) -> list[str]:
    """The files that a config names, each once; errors as for `matching`."""
    found = [path for pattern in given.files for path in matching(pattern, given.directory)]
    return [*dict.fromkeys(found)]


def token_files(config: DataConfig) -> Iterator[tuple[Any, list[str]]]:
    """The features with files of further tokens, and the files; errors as for `matching`."""
    for feature in config.features:
        if isinstance(feature, CategoricalOfLog) and feature.tokens is not None:
            try:
                yield feature, paths_of(feature.tokens)
            except NoInput as error:
                why = str(error).removeprefix("source: ")
                raise NoInput(f"features: {feature.name!r}: tokens: {why}") from None


def inputs_of(config: DataConfig) -> list[list[Any]]:
    """What a dataset is made from: the fingerprint of its source, then those of files with tokens;
    errors as for `open_source`."""
    found = open_source(config).fingerprint()
    listed = (path for _, paths in token_files(config) for path in paths)
    for path in dict.fromkeys(files.split_member(path)[0] for path in listed):
        if (about := files.fingerprint(path)) not in found:
            found.append(about)
    return found


def matching_if_any(pattern: str, directory: str) -> list[str]:
    """As `matching`, but empty if there is none."""
    pattern = os.path.expanduser(pattern)
    for folder in [""] if "://" in pattern else map(str, input_folders(directory)):
        if paths := files.matching(pattern, folder):
            return paths
    return []
