"""Similarities of items, and the numbers made of them, by plain loops."""

from typing import Any

import numpy as np
import pytest

from tfctr.frameworks.statistics import neighbours
from tfctr.frameworks.statistics.factor_model import Sums
from tfctr.frameworks.statistics.neighbour_statistics import NeighbourStatistics

ITEMS = 600  # in three blocks
# The second user graded item 299 twice; the fourth has one event.
USERS = np.array([2, 2, 2, 5, 5, 5, 5, 7, 7, 8])
GRADED = np.array([3, 299, 512, 299, 3, 299, 40, 3, 299, 3])
DEVIATIONS = np.array([1.0, -2, 0.5, 1, -1, 0.5, 2, -1.5, -2, 1])


def sums_by_a_loop() -> dict[tuple[int, int], np.ndarray]:
    found: dict[tuple[int, int], np.ndarray] = {}
    for user in set(USERS.tolist()):
        own = {GRADED[n]: DEVIATIONS[n] for n in np.flatnonzero(user == USERS)}  # the latest
        mean = sum(own.values()) / (len(own) + 5)
        for i, a in own.items():
            for j, b in own.items():
                if i != j:
                    values = np.array([a - mean, b - mean])
                    part = np.array([values.prod(), *values**2])
                    found[i, j] = found.get((i, j), 0) + part
    return found


def test_sums_of_pairs_are_those_of_a_loop_over_users() -> None:
    expected = sums_by_a_loop()
    blocks = dict(neighbours.pair_sums(USERS, GRADED, DEVIATIONS, ITEMS))
    assert sorted(blocks) == [0, 1, 2]
    found = {}
    for block, sums in blocks.items():
        assert (np.diff(sums.items) > 0).all()
        for pair, values in zip(sums.items, sums.sums, strict=True):
            assert pair // ITEMS // neighbours.ROWS == block
            found[divmod(pair, ITEMS)] = values
    assert found.keys() == expected.keys()
    for pair, values in expected.items():
        np.testing.assert_allclose(found[pair], values, atol=1e-6)


def test_only_the_latest_events_of_a_user_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "USER_EVENTS", 2)
    latest = [1, 2, 5, 6, 7, 8, 9]  # in place of the last three, item 299 and 40 of the second
    expected = neighbours.pair_sums(USERS[latest], GRADED[latest], DEVIATIONS[latest], ITEMS)
    found = neighbours.pair_sums(USERS, GRADED, DEVIATIONS, ITEMS)
    for (block, sums), (other, others) in zip(found, expected, strict=True):
        assert block == other
        np.testing.assert_array_equal(sums.items, others.items)
        np.testing.assert_array_equal(sums.sums, others.sums)


def test_users_with_one_event_have_no_pairs() -> None:
    assert [*neighbours.pair_sums(np.arange(3), np.array([3, 4, 3]), np.ones(3), ITEMS)] == []
    nobody = np.zeros(0, int)
    assert [*neighbours.pair_sums(nobody, nobody, np.zeros(0), ITEMS)] == []


def test_the_nearest_are_those_of_greatest_absolute_similarity() -> None:
    similarity = {p: v[0] / (np.sqrt(v[1] * v[2]) + 20) for p, v in sums_by_a_loop().items()}
    found = set()
    for _, sums in neighbours.pair_sums(USERS, GRADED, DEVIATIONS, ITEMS):
        for item, ids, values in zip(*neighbours.nearest(sums, ITEMS, 2), strict=True):
            own = [(j, s) for (i, j), s in similarity.items() if i == item]
            own = sorted(own, key=lambda pair: -abs(pair[1]))[:2]
            assert ids.tolist() == [j for j, _ in own] + [0] * (2 - len(own))
            np.testing.assert_allclose(values[: len(own)], [s for _, s in own], rtol=1e-5)
            found.add(item)
    assert found == {3, 40, 299, 512}
    (_, sums), *_ = neighbours.pair_sums(USERS, GRADED, DEVIATIONS, ITEMS)
    _, ids, values = neighbours.nearest(sums, ITEMS, 9)
    assert ids.shape == values.shape == (2, 9)
    assert (ids[:, 3:] == 0).all()


ROWS, NEIGHBOURS, LENGTH = 12, 20, 30


@pytest.fixture
def layer() -> Any:
    rng = np.random.default_rng(4)
    made = NeighbourStatistics(ROWS, NEIGHBOURS)
    made.build()
    ids = np.stack([rng.permutation(40)[:NEIGHBOURS] + 3 for _ in range(ROWS)])
    similarities = rng.normal(0, 0.3, (ROWS, NEIGHBOURS)) + 0.2
    similarities[:, -2:] = ids[:, -2:] = 0  # fewer than K
    order = np.argsort(-abs(similarities), axis=1)
    made.set_tables(*(np.take_along_axis(a, order, axis=1) for a in (ids, similarities)))
    return made


def test_the_numbers_are_those_of_a_loop_over_events(layer: Any) -> None:
    rng = np.random.default_rng(5)
    items = rng.integers(3, 43, (3, LENGTH))  # some of them twice
    deviation, known = rng.normal(size=(3, LENGTH)), rng.integers(0, 2, (3, LENGTH))
    items[1, 20:] = known[1, 20:] = 0
    items[2] = known[2] = 0  # no event
    lag = np.tile(np.arange(LENGTH)[::-1], (3, 1))
    usual = np.array([[0.3], [-0.2], [0.0]])
    arrays = [array.astype("float32") for array in (deviation * known, usual, known, lag)]
    rows = rng.integers(0, ROWS, (3, 4))
    events, sums = layer.encode(items, *arrays)
    numbers = np.concatenate(layer.of_candidates(events, sums, rows), axis=2)
    ids, similarities = np.array(layer.ids), np.array(layer.similarities)
    for user, place in np.ndindex(3, 4):
        row = rows[user, place]
        own = []  # s, d, deviation, lag of each event, by falling |s|
        for neighbour, s in zip(ids[row], similarities[row], strict=True):
            for n in np.flatnonzero((items[user] == neighbour) & (known[user] > 0)):
                residual = deviation[user, n] - usual[user, 0]
                own.append((neighbour, s, residual, deviation[user, n], lag[user, n]))
        tops = []
        for neighbour, s, *_ in own:
            if s > 0 and neighbour not in tops and len(tops) < 15:
                tops.append(neighbour)
        best = [event for event in own if event[0] in tops]

        def mean(events: Any, weight: Any, of: int, prior: float) -> float:
            above = sum(weight(e) * e[of] for e in events)
            return above / (sum(abs(weight(e)) for e in events) + prior)

        expected = [
            mean(own, lambda e: e[1], 2, 0.5),
            sum(abs(event[1]) for event in own),
            mean(own, lambda e: e[1] * abs(e[1]), 2, 0.02),
            mean(best, lambda e: e[1], 2, 0.2),
            mean(best, lambda e: e[1], 3, 0.2),
            mean(own, lambda e: e[1] * np.exp(-e[4] / 15), 2, 0.3),
            mean(own, lambda e: e[1] * np.exp(-e[4] / 60), 2, 0.3),
            max([0.0, *(event[1] for event in own)]),
        ]
        np.testing.assert_allclose(numbers[user, place], expected, rtol=1e-4, atol=1e-5)


def test_the_nearest_of_many_are_those_of_a_sort() -> None:
    """Also where equal similarities stand at the end of the list."""
    rng = np.random.default_rng(2)
    pairs = np.unique(rng.integers(0, 30 * 200, 2000))
    i, j = np.divmod(pairs, 200)
    both = rng.integers(-6, 7, len(pairs)).astype(float)
    sums = Sums(pairs, np.stack([both, np.full(len(pairs), 9.0), np.full(len(pairs), 4.0)], 1))
    items, ids, values = neighbours.nearest(sums, 200, 7)
    np.testing.assert_array_equal(items, np.unique(i))
    for item, found, similarity in zip(items, ids, values, strict=True):
        own = sorted(zip(-np.abs(both[i == item]), j[i == item], both[i == item], strict=True))[:7]
        assert found.tolist() == [other for _, other, _ in own]
        np.testing.assert_allclose(similarity, [sign / (6 + 20) for _, _, sign in own], rtol=1e-6)
