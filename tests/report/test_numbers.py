"""The numbers of a page, by hand."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from sklearn.metrics import auc as area

from tfctr.metrics import auc
from tfctr.report.importance import affordable_rows, importances
from tfctr.report.neighbours import nearest
from tfctr.report.profile import drift, number_counts, token_counts, tokens_of
from tfctr.report.run_pictures import POINTS, roc_points

RNG = np.random.default_rng(5)


def test_a_feature_that_the_model_does_not_use_has_no_importance() -> None:
    labels = np.array([1.0, 1, 0, 0])
    columns = {"used": np.array([4.0, 3, 2, 1]), "unused": np.array([[1], [2], [3], [4]])}

    def predict(of: Mapping[str, np.ndarray]) -> np.ndarray:
        return of["used"]

    found = {one.name: one for one in importances(predict, columns, labels, repeats=3, seed=1)}
    assert found["unused"][1:] == (0, 0, 0)
    generator = np.random.default_rng(1)
    falls = [1 - auc(labels, columns["used"][generator.permutation(4)]) for _ in range(3)]
    assert found["used"][1:] == pytest.approx((np.mean(falls), min(falls), max(falls)))
    assert found["used"].mean > 0
    assert columns["used"].tolist() == [4, 3, 2, 1]  # as they were


@pytest.mark.parametrize(
    ("seconds", "rows"), [(1e-6, 5000), (8 / 4 / 3000, 2048), (8 / 4 / 500, None)]
)
def test_a_model_that_is_too_slow_is_asked_for_fewer_rows_or_none(
    seconds: float, rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = [0.0], []

    def predict(of: Mapping[str, np.ndarray]) -> np.ndarray:
        asked.append(len(of["a"]))
        now[0] += len(of["a"]) * seconds
        return of["a"]

    monkeypatch.setattr("tfctr.report.importance.time.process_time", lambda: now[0])
    columns = {"a": np.zeros(5000)}  # four predictions: the whole, and three permutations
    assert affordable_rows(predict, columns) == rows
    assert {*asked} == {512}


def test_drift_is_the_distance_of_two_distributions() -> None:
    assert drift(np.array([3, 1, 0]), np.array([6, 2, 0])) == 0
    assert drift(np.array([5, 5, 0]), np.array([0, 0, 7])) == pytest.approx(1)
    # (1/2, 1/2) and (1, 0): their mixture is (3/4, 1/4).
    entropies = [
        0.5 * math.log2(0.5 / 0.75) + 0.5 * math.log2(0.5 / 0.25),
        1 * math.log2(1 / 0.75),
    ]
    expected = math.sqrt(sum(entropies) / 2)
    assert drift(np.array([2, 2]), np.array([9, 0])) == pytest.approx(expected)


def test_tokens_are_counted_as_missing_unknown_frequent_and_others() -> None:
    lists = np.array([[3, 4, 0], [0, 0, 0], [1, 3, 30]])
    assert sorted(tokens_of(lists).tolist()) == [0, 1, 3, 3, 4, 30]
    found = token_counts(tokens_of(lists))
    assert len(found) == 3 + 20 + 1
    assert {i: n for i, n in enumerate(found.tolist()) if n} == {0: 1, 1: 1, 3: 2, 4: 1, 23: 1}


def test_numbers_are_counted_between_edges() -> None:
    numbers = np.array([np.nan, 0.5, 1.0, 1.5, 2.0, 9.0, np.inf])
    assert number_counts(numbers, np.array([1.0, 2.0])).tolist() == [2, 1, 2, 2]
    assert number_counts(numbers[:1], np.zeros(0)).tolist() == [1, 0]


def test_neighbours_have_the_greatest_cosine_and_are_others() -> None:
    vectors = np.array([[1.0, 0], [2, 0.2], [0, 3], [-1, 0], [0, 0]], np.float32)
    places, cosines = nearest(vectors, np.array([0, 2]), k=2)
    assert places[0].tolist()[0] == 1
    assert places[1].tolist()[0] == 1
    assert cosines[0, 0] == pytest.approx(2 / math.hypot(2, 0.2), abs=1e-6)
    assert cosines[1].tolist() == pytest.approx([0.2 / math.hypot(2, 0.2), 0], abs=1e-6)


def test_the_roc_curve_is_thinned_and_keeps_its_area() -> None:
    labels = np.array([1, 0, 1, 0])
    false, true = roc_points(labels, np.array([4.0, 3, 2, 1]))
    assert list(zip(false, true, strict=True)) == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]
    labels = (RNG.random(20_000) < 0.3).astype(float)
    scores = RNG.normal(labels, 1)
    false, true = roc_points(labels, scores)
    assert len(false) <= POINTS
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert area(false, true) == pytest.approx(auc(labels, scores), abs=1e-3)
