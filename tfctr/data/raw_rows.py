"""Raw rows of a prepared split, as in requests to a served model."""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.config import DataConfig, FileSource
from tfctr.data.clean import LABEL, TIME, Cleaner, event_column
from tfctr.data.fingerprint import row_keys
from tfctr.data.held_out import left_out_rows
from tfctr.data.histories import earlier_events, history_features, is_event, ranges
from tfctr.data.manifest import DataError
from tfctr.data.typed_rows import ROW


def raw_rows(config: DataConfig, data: Any, split: str, limit: int) -> pa.Table:
    """The first `limit` rows of a split, in the order of `Dataset.columns(split)`.

    Reads only the pieces of the source that hold them; with histories, all pieces.

    Args:
        config: the data config that the dataset was prepared with.
        data: its `tfctr.data.Dataset`.
        split: "train", "valid" or "test".
        limit: int. Greatest number of rows.

    Returns:
        `row_id`, `time`, `label`, and a column a feature: strings, int64, double, or lists of the
        first two; null for a missing value.

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
    table = pa.concat_tables(parts).combine_chunks()
    if not history_features(config.feature_schema):
        return table
    return _with_histories(cleaner, table, left_out_rows(str(data.directory)))


def raw_ids(config: DataConfig, data: Any, split: str) -> dict[str, pa.ChunkedArray]:
    """The `user` and `item` of each row of a split as in the log, string or int64 `[N]`, in the
    order of `Dataset.columns(split)`. Those that the config does not name are left out.

    Args, errors: as for `raw_rows`.
    """
    sides = {side: getattr(config, side) for side in ("user", "item") if getattr(config, side)}
    if not sides:
        return {}
    features = tuple(feature for feature in config.features if feature.name in sides.values())
    ids = config.model_copy(update={"features": features})
    if isinstance(ids.source, FileSource):  # tables may be large: those without an id are left out
        read = Cleaner(ids).joined.features_by_table
        without = {name: None for name in ("users", "items") if not read.get(name)}
        ids = ids.model_copy(update={"source": ids.source.model_copy(update=without)})
    rows = raw_rows(ids, data, split, data.num_rows(split))
    return {side: rows[name] for side, name in sides.items()}


def _with_histories(cleaner: Cleaner, rows: pa.Table, left_out: np.ndarray) -> pa.Table:
    """The rows with their histories, from the whole log without the rows with ids `left_out`."""
    config, schema = cleaner.config, cleaner.config.feature_schema
    users = np.unique(_user_keys(config, rows))
    parts: list[pa.Table] = []
    first = 0
    for piece in cleaner.source.events.pieces():
        table, _, _ = cleaner.clean(piece)
        table = table.filter(pa.array(np.isin(_user_keys(config, table), users)))
        table = table.set_column(0, ROW, pc.add(table[ROW], first))
        parts.append(table.filter(pa.array(~np.isin(table[ROW].to_numpy(), left_out))))
        first += cleaner.source.events.count(piece)
    log = pa.concat_tables(parts).combine_chunks()
    log = log.take(pa.array(np.lexsort((log[TIME].to_numpy(), _user_keys(config, log)))))
    here = pc.index_in(rows[ROW], value_set=log[ROW].combine_chunks()).to_numpy()
    events = is_event(config, log)
    histories = history_features(schema)
    longest = max(history.max_length for history in histories)
    start, end = earlier_events(_user_keys(config, log), log[TIME].to_numpy(), events, longest)
    columns = {name: rows[name] for name in rows.column_names}
    for history in histories:
        tokens = log[event_column(schema, history)].filter(pa.array(events))
        lengths = np.minimum(end - start, history.max_length)[here]
        past = tokens.take(pa.array(ranges(end[here] - lengths, lengths))).combine_chunks()
        offsets = pa.array(np.r_[0, np.cumsum(lengths)], pa.int32())
        columns[history.name] = pa.ListArray.from_arrays(offsets, past)
    order = [ROW, TIME, LABEL] + [feature.name for feature in schema]
    return pa.table({name: columns[name] for name in order})


def _user_keys(config: DataConfig, table: pa.Table) -> np.ndarray:
    return row_keys(table[config.user].combine_chunks())
