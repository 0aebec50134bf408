"""The table of items' attributes, by ids that are added to."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np


def with_new_ids(
    table: np.ndarray, before: np.ndarray, num_items: int, sizes: Sequence[int]
) -> np.ndarray:
    """A table of attributes `[items, G]`, of features of the sizes `before` `[F]`, for more ids.

    New ids of items, and of each feature, are last, and have no attribute.
    """
    edges = pairwise(accumulate(before, initial=0))
    parts = [
        np.pad(table[:, start:stop], [(0, num_items - len(table)), (0, size - (stop - start))])
        for (start, stop), size in zip(edges, sizes, strict=True)
    ]
    return np.concatenate(parts, axis=1)
