"""The search for similar earlier rows, against a plain loop over the whole pool."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfctr.retrieval import bm25
from tfctr.retrieval.bm25 import UNIT, Bm25Index, idf

K = 4


def random_rows(seed: int, num_rows: int, skew: float = 1.5) -> dict[str, Any]:
    """Rows of two single-valued fields and a list, few values and times so that scores tie."""
    random = np.random.default_rng(seed)

    def ids(size: Any) -> Any:
        return np.minimum(random.zipf(skew, size), 12)  # 1 is unknown; the rest but 2 are tokens

    tags = ids((num_rows, 3))
    tags[random.random((num_rows, 3)) < 0.3] = 0
    columns = {"user": ids(num_rows), "item": ids(num_rows), "tags": tags}
    columns["user"][random.random(num_rows) < 0.1] = 0
    return {
        "columns": columns,
        "times": random.integers(0, max(num_rows // 3, 1), num_rows),
        "row_ids": random.permutation(num_rows) + 100,
    }


def weights_of(rows: dict[str, Any]) -> dict[str, np.ndarray]:
    num_rows = len(rows["times"])
    found = {}
    for name, ids in rows["columns"].items():
        holding = [(ids.reshape(num_rows, -1) == i).any(axis=1).sum() for i in range(13)]
        found[name] = idf(np.array(holding), num_rows)
    return found


def plain_search(
    pool: dict[str, Any], weights: dict[str, np.ndarray], target: dict[str, Any], time: int, k: int
) -> list[tuple[int, int]]:
    """`(row, score)` of the best earlier rows, by a loop over all."""
    scored = []
    for row in range(len(pool["times"])):
        if pool["times"][row] >= time:
            continue
        score = 0
        for name, ids in pool["columns"].items():
            shared = set(np.ravel(ids[row]).tolist()) & set(np.ravel(target[name]).tolist())
            score += sum(int(weights[name][token]) for token in shared if token > 2)
        if score:
            scored.append((score, pool["times"][row], pool["row_ids"][row], row))
    return [(row, score) for score, _, _, row in sorted(scored, reverse=True)[:k]]


def check(pool: dict[str, Any], targets: dict[str, Any], k: int = K) -> None:
    weights = weights_of(pool)
    index = Bm25Index(pool["columns"], pool["times"], pool["row_ids"], weights)
    rows, scores = index.search(targets["columns"], targets["times"], k)
    for i, time in enumerate(targets["times"]):
        target = {name: ids[i] for name, ids in targets["columns"].items()}
        expected = plain_search(pool, weights, target, time, k)
        missing = k - len(expected)
        assert rows[i].tolist() == [row for row, _ in expected] + [-1] * missing
        assert scores[i].tolist() == [score for _, score in expected] + [0] * missing


def test_idf_is_that_of_bm25_and_never_negative() -> None:
    found = idf(np.array([7, 9, 5, 0, 1, 100, 99]), 100)
    assert found[:3].tolist() == [0, 0, 0]  # missing, unknown and the id kept free
    assert found[3] == round(np.log(1 + 100.5 / 0.5) * UNIT)
    assert found[5] == round(np.log(1 + 0.5 / 100.5) * UNIT) > 0
    assert (np.diff(found[[3, 4, 6, 5]]) < 0).all()  # the rarer, the more


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), num_rows=st.integers(1, 80), k=st.integers(1, 8))
def test_random_pools_are_searched_exactly(seed: int, num_rows: int, k: int) -> None:
    check(random_rows(seed, num_rows), random_rows(seed + 1, 20), k)


def test_thousands_of_rows_are_searched_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bm25, "CHUNK", 64)  # many pieces of a list
    check(random_rows(0, 3_000), random_rows(1, 150))
    check(random_rows(2, 3_000, skew=3.0), random_rows(3, 150, skew=3.0))  # a value in most rows


def test_a_row_finds_neither_itself_nor_what_came_with_it_or_later() -> None:
    pool = random_rows(5, 500)
    index = Bm25Index(pool["columns"], pool["times"], pool["row_ids"], weights_of(pool))
    rows, _ = index.search(pool["columns"], pool["times"], 50)
    times = np.where(rows >= 0, pool["times"][rows], -1)
    assert (times < pool["times"][:, None]).all()
    assert (rows >= 0).any()


def test_of_equal_scores_the_newest_is_first() -> None:
    same = {"user": np.full(6, 3)}
    times, row_ids = np.array([1, 5, 3, 5, 0, 9]), np.array([10, 11, 12, 13, 14, 15])
    index = Bm25Index(same, times, row_ids, {"user": np.array([0, 0, 0, 8])})
    rows, scores = index.search({"user": np.array([3])}, np.array([9]), 4)
    assert rows.tolist() == [[3, 1, 2, 0]]
    assert scores.tolist() == [[8, 8, 8, 8]]


def test_nothing_is_found_where_nothing_is_shared_or_nothing_is_earlier() -> None:
    pool = {"user": np.array([3, 0, 1]), "item": np.array([4, 5, 1])}
    weights = {name: np.array([0, 0, 0, 1, 1, 1, 1]) for name in pool}
    index = Bm25Index(pool, np.array([5, 6, 7]), np.arange(3), weights)
    targets = {"user": np.array([6, 3, 0, 1]), "item": np.array([6, 4, 0, 1])}
    rows, scores = index.search(targets, np.array([9, 5, 9, 9]), 3)  # missing and unknown: no token
    assert (rows == -1).all()
    assert (scores == 0).all()


def test_an_empty_pool_and_fewer_rows_than_k() -> None:
    empty = {"user": np.zeros(0, np.int64)}
    none = np.zeros(0, np.int64)
    weights = {"user": np.array([0, 0, 0, 5])}
    found = Bm25Index(empty, none, none, weights).search({"user": np.array([3])}, np.array([1]), 2)
    assert found[0].tolist() == [[-1, -1]]
    index = Bm25Index({"user": np.array([3])}, np.array([0]), np.array([7]), weights)
    rows, scores = index.search({"user": np.array([3])}, np.array([1]), 3)
    assert (rows.tolist(), scores.tolist()) == ([[0, -1, -1]], [[5, 0, 0]])
