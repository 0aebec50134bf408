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
        parts = [self._tokens(path, of_file.empty_table()) for path, of_file in types.items()]
        refuse_mixed_types(reader, types, [self.feature])
        for piece in reader.pieces():
            parts.append(self._tokens(piece.path, reader.read(piece, [column]).table).unique())
        tokens = pa.concat_arrays(parts).unique()
        return tokens.take(pc.sort_indices(tokens))

    def _tokens(self, path: str, table: pa.Table) -> pa.Array:
        column = self.feature.source_column
        where = f"{path}: column {column!r}"
        return tokens_of(self.feature, table[column].combine_chunks(), where)


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


def tokens_of(feature: Any, values: pa.Array, where: str) -> pa.Array:
    """Tokens as the feature's type.

    Args:
        feature: categorical.
        values: raw ones.
        where: they are, for errors, e.g. "items.parquet: column 'id'".

    Raises:
        DataError: a value is no token of the feature, or missing.
    """
    try:
        tokens, bad = conform(feature, values)
    except TypeError as error:
        raise DataError(f"{where}: {error}") from None
    if (bad is not None and bad.any()) or tokens.null_count:
        wrong = tokens.is_null().to_numpy(zero_copy_only=False)
        row = int(np.flatnonzero(wrong if bad is None else bad | wrong)[0])
        raise DataError(f"{where}: row {row}: found {values[row].as_py()!r}: {reason(feature)}")
    return tokens
