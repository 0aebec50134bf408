"""The table of items' attributes."""

import numpy as np

from tfctr.frameworks.statistics.attribute_table import with_new_ids


def test_new_ids_are_behind_those_of_their_feature() -> None:
    table = np.array([[1, 0, 1], [0, 1, 0]])
    found = with_new_ids(table, np.array([2, 1]), 3, [3, 2])
    assert found.tolist() == [[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
