"""A sample of a split's rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

FEWEST = 4  # shards


def sample(
    data: Any, split: str, names: Sequence[str], rows: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Columns of rows that are drawn at random, in the order of the dataset.

    Of a large split only as many shards are read as hold so many rows, from all of its time.

    Args:
        data: a `tfctr.data.Dataset`.
        split: "train", "valid" or "test".
        names: as for `Dataset.columns`.
        rows: int, at least 1; fewer if the split has fewer.
        seed: int.
    """
    shards = len(data.manifest["splits"][split]["shards"])
    step = max(1, data.num_rows(split) // rows)
    step = min(step, max(1, shards // FEWEST))
    columns = data.columns(split, names, slice(None, None, step))
    count = len(next(iter(columns.values())))
    if count <= rows:
        return dict(columns)
    chosen = np.random.default_rng(seed).choice(count, rows, replace=False)
    chosen.sort()
    return {name: values[chosen] for name, values in columns.items()}
