"""DataFrames and `tf.data` as Arrow tables and Parquet files."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfctr.config import ConfigError
from tfctr.data.manifest import DataError

NAME = "DataFrame"  # in errors
ROWS = 1 << 17  # of a row group, which is what a worker takes at a time
UNNAMED_INDEX = re.compile(r"__index_level_\d+__")  # as pandas names one in Arrow
BATCH = 8192


def is_frame(x: Any) -> bool:
    """Whether it is a table of Arrow's interface: a DataFrame of pandas (2.2) or Polars, a
    `pyarrow.Table`, ..."""
    return hasattr(x, "__arrow_c_stream__")


def to_table(frame: Any) -> pa.Table:
    """A DataFrame as an Arrow table, without an index that has no name.

    Raises:
        ConfigError: it is no DataFrame; Arrow has no type for a column.
    """
    if not is_frame(frame):
        raise ConfigError(
            f"found {type(frame).__name__}; a DataFrame is needed, of pandas 2.2 or newer, Polars, "
            "pyarrow, or another library with Arrow's interface (__arrow_c_stream__)"
        )
    try:
        try:
            table = pa.table(frame)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            if not hasattr(frame, "isna"):  # pandas has columns of any objects
                raise
            table = pa.table(_of_texts(frame))
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise ConfigError(f"{NAME}: {' '.join(str(error).split())}") from None
    unnamed = [name for name in table.column_names if UNNAMED_INDEX.fullmatch(name)]
    return table.drop_columns(unnamed)


def _of_texts(frame: Any) -> Any:
    """A DataFrame of pandas whose columns of several types are texts, as a CSV file has them: so
    what does not fit a feature is a bad row."""
    frame = frame.copy(deep=False)
    for name in frame.columns:
        column = frame[name]
        try:
            pa.array(column, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            texts = [
                None if is_missing else str(value)
                for value, is_missing in zip(column, column.isna(), strict=True)
            ]
            frame[name] = texts
    return frame


@contextmanager
def as_log(frame: Any) -> Iterator[str]:
    """The path of a Parquet file with the rows of a DataFrame, which is deleted afterwards.

    Raises:
        ConfigError, DataError: as raised in the context, with a name in place of the path; as
            `to_table`.
    """
    table = to_table(frame)
    with tempfile.TemporaryDirectory(prefix="tfctr-") as folder:
        path = f"{folder}/{NAME}.parquet"
        try:
            pq.write_table(table, path, row_group_size=ROWS)
        except (pa.ArrowException, ValueError) as error:
            raise ConfigError(f"{NAME}: {' '.join(str(error).split())}") from None
        try:
            yield path
        except (ConfigError, DataError) as error:
            kind = ConfigError if isinstance(error, ConfigError) else DataError
            raise kind(str(error).replace(path, NAME)) from None


def from_batches(batches: Any, label: str) -> pa.Table:
    """The rows of a `tf.data.Dataset` as an Arrow table.

    Args:
        batches: of `({feature: values}, label)`, or of `{feature: values}` with the label among
            them; rows, or batches of rows. A feature has a value a row, or a list (a dense or a
            ragged tensor).
        label: name of the column for the label.

    Raises:
        ConfigError: the elements are something else, or there are none.
    """
    import tensorflow as tf

    spec = batches.element_spec
    features = spec[0] if isinstance(spec, tuple) and len(spec) == 2 else spec
    if not isinstance(features, dict):
        raise ConfigError(
            "tf.data: elements must be ({feature: values}, label) or {feature: values}, found "
            f"{type(spec).__name__}"
        )
    of_label = spec[1] if features is not spec else features.get(label)
    if of_label is None:
        raise ConfigError(f"label: found {label!r}; features of the rows: {', '.join(features)}")
    if of_label.shape.rank == 0:
        batches = batches.ragged_batch(BATCH)  # a feature may have lists of several lengths
    parts: dict[str, list[pa.Array]] = {}
    for element in batches:
        found = element if features is spec else {**element[0], label: element[1]}
        for name, values in found.items():
            parts.setdefault(name, []).append(_array(values, is_one=name == label, tf=tf))
    if not parts:
        raise ConfigError("tf.data: found no rows")
    return pa.table({name: pa.chunked_array(arrays) for name, arrays in parts.items()})


def _array(values: Any, is_one: bool, tf: Any) -> pa.Array:
    """Of `[B]` or `[B, 1]`; lists of `[B, M]`."""
    if isinstance(values, tf.RaggedTensor):
        offsets = pa.array(values.row_splits.numpy(), pa.int64())
        return pa.LargeListArray.from_arrays(offsets, pa.array(values.flat_values.numpy()))
    array = np.asarray(values.numpy())
    if array.ndim == 1 or is_one:
        return pa.array(array.reshape(-1))
    offsets = np.arange(len(array) + 1, dtype=np.int64) * array.shape[1]
    return pa.LargeListArray.from_arrays(offsets, pa.array(array.reshape(-1)))
