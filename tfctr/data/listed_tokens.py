"""Tokens that exist although no training row has them, from files that a data config names."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.config import DataConfig
from tfctr.data.conform import conform, reason
from tfctr.data.manifest import DataError
from tfctr.data.readers import ParquetReader
from tfctr.data.sources import token_files
from tfctr.data.typed_rows import refuse_mixed_types


@dataclass(frozen=True)
class ListedTokens:
    """The files with a feature's tokens."""

    feature: Any  # its column is that of the files
    paths: tuple[str, ...]

    def read(self) -> pa.Array:
        """The tokens, string or int64 `[N]`, each once, sorted.

        Raises:
            ConfigError: a file is not Parquet, lacks the column, or is of another type.
            DataError: a value is no token of the feature.
        """
        reader, column = ParquetReader(self.paths), self.feature.source_column
        types = dict(reader.types([column]))
        parts = [
            tokens_of(self.feature, of_file.empty_table()[column], path, column)
            for path, of_file in types.items()
        ]
        refuse_mixed_types(reader, types, [self.feature])
        for piece in reader.pieces():
            found = reader.read(piece, [column]).table[column]
            parts.append(tokens_of(self.feature, found, piece.path, column).unique())
        tokens = pa.concat_arrays(parts).unique()
        return tokens.take(pc.sort_indices(tokens))


def listed_tokens(config: DataConfig) -> dict[str, ListedTokens]:
    """Those of a data config, by feature.

    Raises:
        NoInput: a file is not there.
    """
    found = {}
    for feature, paths in token_files(config):
        column = feature.tokens.column or feature.source_column
        in_files = feature.of_models().model_copy(update={"column": column})
        found[feature.name] = ListedTokens(in_files, tuple(paths))
    return found


def tokens_of(feature: Any, column: pa.ChunkedArray, path: str, key: str) -> pa.Array:
    """The tokens of a column, as the feature's type.

    Args:
        feature: categorical.
        column: raw values.
        path, key: of the file and the column, for errors.

    Raises:
        DataError: a value is no token of the feature, or missing.
    """
    try:
        tokens, bad = conform(feature, column.combine_chunks())
    except TypeError as error:
        raise DataError(f"{path}: column {key!r}: {error}") from None
    if (bad is not None and bad.any()) or tokens.null_count:
        wrong = tokens.is_null().to_numpy(zero_copy_only=False)
        row = int(np.flatnonzero(wrong if bad is None else bad | wrong)[0])
        raise DataError(
            f"{path}: column {key!r}: row {row}: found {column[row].as_py()!r}: {reason(feature)}"
        )
    return tokens
