"""The numbers of a user and a candidate, against plain loops."""

from typing import Any

import numpy as np
import pytest

from tfctr.frameworks.statistics import UserStatistics
from tfctr.frameworks.statistics.user_statistics import knots_of
from tfctr.schema import OOV_ID

ITEMS, GRADES, NEIGHBOURS, FACTORS, FADING = 8, 7, 2, 3, 4.0
ATTRIBUTES, FADINGS = [3, 2], [5.0, 2.0]  # two features of attributes
RNG = np.random.default_rng(1)
VALUES = np.array([0, 0, 0, 1.0, 2, 4, 5])
TABLES = {
    "means": RNG.normal(3, 1, size=(3, ITEMS)).astype("float32"),
    "loadings": RNG.normal(size=(3, ITEMS, FACTORS)).astype("float32"),
    "popularity": RNG.random((3, ITEMS)).astype("float32"),
    "noise": np.array([0.5, 0.7, 0.9], "float32"),
    "grades": VALUES.astype("float32"),
    "is_grade": (np.arange(GRADES) >= 3).astype("float32"),
    "shares": np.array([0.2, 0.3], "float32"),
    "grade_scale": np.array([3.0, 1.5], "float32"),
    "attributes": (RNG.random((ITEMS, sum(ATTRIBUTES))) < 0.4).astype("float32"),
    "attribute_sizes": np.array(ATTRIBUTES),
    "neighbours": np.stack([RNG.permutation(5)[:NEIGHBOURS] + 3 for _ in range(3 * ITEMS)]).reshape(
        3, ITEMS, NEIGHBOURS
    ),
    "similarities": RNG.normal(size=(3, ITEMS, NEIGHBOURS)).astype("float32"),
}
NEAREST, SIMILAR = (TABLES[name].reshape(-1, NEIGHBOURS) for name in ("neighbours", "similarities"))
# Oldest first, padded at the end; item 1 and grade 1 are out of vocabulary.
HISTORY = [
    ([3, 4, 5, 6, 7, 3], [3, 4, 5, 6, 3, 4]),
    ([5, 1, 6, 0, 0, 0], [6, 5, 1, 0, 0, 0]),
    ([0, 4, 0, 0, 0, 0], [5, 3, 0, 0, 0, 0]),
    ([0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]),
]


@pytest.fixture
def layer() -> Any:
    made = UserStatistics(ITEMS, GRADES, ATTRIBUTES, NEIGHBOURS, FACTORS, 4, FADING, FADINGS)
    made.build()
    made.set_tables(TABLES)
    return made


def by_a_loop(items: list[int], grades: list[int], population: int, candidate: int) -> list[float]:
    means, loadings = TABLES["means"][population], TABLES["loadings"][population]
    length = max((n + 1 for n in range(len(items)) if items[n] or grades[n]), default=0)
    events = [
        (length - 1 - n, items[n], VALUES[grades[n]])
        for n in range(length)
        if items[n] >= 3 and grades[n] >= 3
    ]
    found = []
    for window in (3, 10, 25, 50, 150, 10**9):
        deviations = [grade - means[item] for lag, item, grade in events if lag < window]
        found.append(sum(deviations) / (len(deviations) + 2.5))
    for usual, is_one in ((0.2, lambda z: z > 0.8), (0.3, lambda z: z < -0.8)):
        for window in (10, 50, 10**9):
            inside = [grade for lag, _, grade in events if lag < window]
            number = sum(is_one((grade - 3) / 1.5) for grade in inside)
            found.append((number + 5 * usual) / (len(inside) + 5))
    found += [np.log1p(len(events)), means[candidate], TABLES["popularity"][population, candidate]]
    for fading in (np.inf, FADING):
        precision, pull = np.eye(FACTORS), np.zeros(FACTORS)
        for lag, item, grade in events:
            weight = np.exp(-lag / fading) / TABLES["noise"][population]
            precision += weight * np.outer(loadings[item], loadings[item])
            pull += weight * (grade - means[item]) * loadings[item]
        covariance, v = np.linalg.inv(precision), loadings[candidate]
        expected = v @ covariance @ pull
        found += [means[candidate] + expected, expected, v @ covariance @ v]
    for columns in (slice(0, 3), slice(3, 5)):
        found += _of_attributes(events, means, candidate, TABLES["attributes"][:, columns])
    usual, row = found[3], population * ITEMS + candidate
    similar = [
        (s, grade - means[item] - usual, lag)
        for lag, item, grade in events
        for j, s in zip(NEAREST[row], SIMILAR[row], strict=True)
        if j == item
    ]
    strength = sum(abs(s) for s, _, _ in similar)
    found += [sum(s * d for s, d, _ in similar) / (strength + 0.5), strength]
    return found


def _of_attributes(
    events: list[Any], means: np.ndarray, candidate: int, attributes: np.ndarray
) -> list[float]:
    """Of one feature, whose columns of the table these are."""
    own = np.flatnonzero(attributes[candidate])
    if not len(own):
        return [0] * 7
    found, least = [], 0.0
    for fading in (np.inf, *FADINGS):
        affinities, number = [], 0.0
        for attribute in own:
            weighted, weights = 0.0, 0.0
            for lag, item, grade in events:
                if attributes[item, attribute]:
                    weights += np.exp(-lag / fading)
                    weighted += np.exp(-lag / fading) * (grade - means[item])
            affinities.append(weighted / (weights + 3))
            number += weights
        if fading == np.inf:
            least = min(affinities)
        found += [np.mean(affinities), np.log1p(number / len(own))]
    return [*found, least]


@pytest.mark.parametrize("population", [0, 1, 2])
def test_the_numbers_are_those_of_a_loop_over_events(layer: Any, population: int) -> None:
    items, grades = (np.array(column) for column in zip(*HISTORY, strict=True))
    populations = np.full(len(items), population)
    candidates = np.array([[3, 5], [1, 7], [4, 6], [2, 3]])
    assert TABLES["attributes"][candidates].sum(2).min() == 0  # one has no attributes
    user = layer.encode(items, grades, populations)
    numbers = np.array(layer.of_candidates(user, candidates, populations))
    for row, history in enumerate(HISTORY):
        for place, candidate in enumerate(candidates[row]):
            expected = by_a_loop(*history, population, candidate)
            # The other numbers of neighbours: test_neighbours.py.
            found = numbers[row, place, : len(expected)]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_how_far_a_history_is_padded_changes_nothing(layer: Any) -> None:
    population = np.array([2, 2, 2, 2])
    found = []
    for length in (6, 3000):  # e^(3000 / 15) would be infinite
        events = [
            np.pad(column, [(0, 0), (0, length - 6)])
            for column in map(np.array, zip(*HISTORY, strict=True))
        ]
        user = layer.encode(*events, population)
        found.append(
            np.array(layer.of_candidates(user, np.array([[3], [4], [5], [6]]), population))
        )
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-6)


def test_in_training_a_user_reads_the_tables_of_the_other_half(layer: Any) -> None:
    users = np.array([3, 4, 5])
    assert np.array(layer.population(users, training=True)).tolist() == [0, 1, 0]
    assert np.array(layer.population(users, training=False)).tolist() == [2, 2, 2]


def test_knots_have_equally_many_rows_between_them(layer: Any) -> None:
    numbers = RNG.normal(size=(3000, layer.num_numbers)).astype("float32")
    numbers[:, 0] = 5
    numbers[:1500, 1] = 5
    knots = knots_of(numbers, 4)
    assert (np.diff(knots) > 0).all()
    layer.set_scale(numbers.mean(0), numbers.std(0), knots)
    below, share = (np.array(found) for found in layer.between(numbers))
    for column in below[:, 2:].T:
        np.testing.assert_allclose(np.bincount(column), [1000] * 3, atol=2)
    rows = np.arange(layer.num_numbers)
    start, end = knots[rows, below], knots[rows, below + 1]
    np.testing.assert_allclose(start + share * (end - start), numbers, atol=1e-5)
    far = numbers[:2] + np.array([[-99], [99]], "float32")
    below, share = (np.array(found) for found in layer.between(far))
    assert below.tolist() == [[0] * len(rows), [2] * len(rows)]
    assert share.tolist() == [[0] * len(rows), [1] * len(rows)]
    assert abs(np.array(layer.scaled(10 * numbers))).max() == 3.0


def test_ids_that_are_newer_than_the_tables_are_like_items_without_an_event(layer: Any) -> None:
    tables = {name: values.copy() for name, values in TABLES.items()}
    for name in ("means", "loadings", "popularity", "neighbours", "similarities"):
        tables[name][:, 7] = tables[name][:, OOV_ID]  # which nobody has graded
    tables["neighbours"][tables["neighbours"] == 7] = 0
    tables["attributes"][7] = 0
    layer.set_tables(tables)
    later = UserStatistics(ITEMS + 2, GRADES + 1, [5, 3], NEIGHBOURS, FACTORS, 4, FADING, FADINGS)
    later.build()
    later.set_tables(tables)

    def numbers(of: Any, item: int, grade: int) -> np.ndarray:
        population = np.array([2])
        user = of.encode(np.array([[3, 4, item, 6]]), np.array([[3, 5, 4, grade]]), population)
        return np.asarray(of.of_candidates(user, np.array([[5, item]]), population))

    found = numbers(later, item=ITEMS + 1, grade=GRADES)
    np.testing.assert_allclose(found, numbers(layer, item=7, grade=OOV_ID), atol=1e-6)
    assert np.abs(found - numbers(layer, item=3, grade=OOV_ID)).max() > 0.1


def test_without_tables_and_scale_all_is_finite() -> None:
    """As an untrained model is exported, to measure what a request costs."""
    made = UserStatistics(ITEMS, GRADES, ATTRIBUTES, NEIGHBOURS, FACTORS, 4, FADING, FADINGS)
    made.build()
    items, grades = (np.array(column) for column in zip(*HISTORY, strict=True))
    population = made.population(items[:, 0], training=False)
    user = made.encode(items, grades, population)
    numbers = made.of_candidates(user, items[:, :1], population)
    for found in (numbers, made.scaled(numbers), *made.between(numbers)):
        assert np.isfinite(np.array(found)).all()
