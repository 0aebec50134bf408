"""Rows of a prepared split as they were before vocabularies: what a served model is asked with."""

import re
from typing import Any

import numpy as np
import pyarrow as pa

from beam_pipelines.clean import ROW, Cleaner
from tfctr.config import DataConfig
from tfctr.data.manifest import DataError


def raw_rows(config: DataConfig, data: Any, split: str, limit: int) -> pa.Table:
    """The first `limit` rows of a split, in the order of `Dataset.columns(split)`.

    Reads only the pieces of the source that hold them.

    Args:
        config: the data config that the dataset was prepared with.
        data: its `tfctr.data.Dataset`.
        split: "train", "valid" or "test".
        limit: int. How many rows at most.

    Returns:
        `row_id`, `time`, `label`, and a column a feature: strings, int64, double, or lists of the
        first two; null where there is no value.

    Raises:
        DataError: the source no longer holds the rows that the dataset was made from.
    """
    cleaner = Cleaner(config)
    pieces = {piece.index: piece for piece in cleaner.source.events.pieces()}
    wanted = data.columns(split, [ROW])[ROW][:limit]
    parts: list[pa.Table] = []
    first, counted, found = 0, 0, 0
    for shard in data.manifest["splits"][split]["shards"]:
        if found >= len(wanted):
            break
        index = int(re.findall(r"\d+", shard["name"])[-1])
        while counted < index:
            first += cleaner.source.events.count(pieces[counted])
            counted += 1
        ids = wanted[found : found + shard["rows"]]
        table, _, _ = cleaner.clean(pieces[index])
        here = table[ROW].to_numpy() + first
        places = np.searchsorted(here, ids)
        if len(here) == 0 or (here[np.minimum(places, len(here) - 1)] != ids).any():
            raise DataError(f"{pieces[index].path}: changed since the dataset was prepared from it")
        part = table.take(pa.array(places))
        parts.append(part.set_column(part.column_names.index(ROW), ROW, pa.array(ids)))
        found += len(ids)
    return pa.concat_tables(parts).combine_chunks()
