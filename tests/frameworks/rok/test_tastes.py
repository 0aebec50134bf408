"""What a job computes of users' events, against what a request computes."""

import numpy as np
import pytest

from tests.frameworks.statistics.test_user_statistics import (
    ATTRIBUTES,
    FACTORS,
    FADING,
    GRADES,
    HISTORY,
    ITEMS,
    NEIGHBOURS,
    TABLES,
)
from tfctr.frameworks.rok.tastes import read_events
from tfctr.frameworks.statistics import UserStatistics
from tfctr.frameworks.statistics.user_statistics import USUAL


@pytest.mark.parametrize("population", [0, 1, 2])
def test_they_are_those_of_a_request(population: int) -> None:
    layer = UserStatistics(ITEMS, GRADES, ATTRIBUTES, NEIGHBOURS, FACTORS, 4, FADING, ())
    layer.build()
    layer.set_tables(TABLES)
    items, grades = (np.array(column) for column in zip(*HISTORY, strict=True))
    found = read_events(items, grades, TABLES, population)
    user = layer.encode(items, grades, np.full(len(items), population))
    np.testing.assert_allclose(found.tastes, user["tastes"][:, 0], atol=1e-5)
    np.testing.assert_allclose(found.usual, user["numbers"][:, USUAL], atol=1e-6)
    read = (found.deviation, found.usual[:, None], found.known, found.lag)
    events = layer.of_neighbours.encode(items, *(values.astype("float32") for values in read))
    for mine, theirs in zip(events, (user["events"], user["sums"]), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
