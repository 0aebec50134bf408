"""Typed values of a feature as a model reads them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from tfctr.data.vocabulary import Vocabulary
from tfctr.schema import PAD_ID, Numeric


def encoded(feature: Any, values: pa.Array, vocabularies: Mapping[str, Vocabulary]) -> np.ndarray:
    """Ids int64 `[N]`, or `[N, max_length]` padded with `PAD_ID` at the end; numbers float32 `[N]`,
    NaN where missing.

    Args:
        feature: no text.
        values: as `conform` gives them: string, int64, double, or lists of the first two.
        vocabularies: by name; that of the feature among them.
    """
    if isinstance(feature, Numeric):
        numbers = values.to_numpy(zero_copy_only=False).astype(np.float32)
        return np.where(np.isfinite(numbers), numbers, np.float32(np.nan))
    vocabulary = vocabularies[feature.vocabulary]
    if not feature.is_list:
        return vocabulary.ids(values)
    lengths = np.diff(values.offsets.to_numpy())
    ids = np.full((len(values), feature.max_length), PAD_ID, np.int64)
    rows = np.repeat(np.arange(len(values)), lengths)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    ids[rows, places] = vocabulary.ids(values.flatten())
    return ids
