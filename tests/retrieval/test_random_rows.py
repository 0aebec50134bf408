"""Random earlier rows: which may come, how often, and from several parts as from one."""

import numpy as np

from tfctr.retrieval.random_rows import RandomRows


def test_draws_are_earlier_different_and_all_there_are_where_few() -> None:
    times = np.array([5, 1, 3, 3, 9])
    targets = np.array([1, 2, 3, 4, 100])
    for seed in range(50):
        rows, scores = RandomRows(times, seed).search(targets, 3)
        for target, found, score in zip(targets, rows, scores, strict=True):
            there = found[found >= 0]
            assert (times[there] < target).all()
            assert len(set(there.tolist())) == len(there) == min(3, (times < target).sum())
            assert (found[len(there) :] == -1).all()
            assert (score[: len(there)] > 0).all()
            assert (score[len(there) :] == 0).all()
            assert (np.diff(score) <= 0).all()


def test_each_earlier_row_is_as_likely_as_any_other() -> None:
    targets = np.full(20_000, 6)
    rows, _ = RandomRows(np.arange(10), seed=1).search(targets, 4)
    counts = np.bincount(rows.ravel(), minlength=10)
    assert (counts[6:] == 0).all()
    np.testing.assert_allclose(counts[:6] / len(targets), 4 / 6, atol=0.02)
    pairs = np.array([[(row == a).any() and (row == b).any() for row in rows[:4000]]
                      for a in range(3) for b in range(a)])  # fmt: skip
    np.testing.assert_allclose(pairs.mean(axis=1), 4 / 6 * 3 / 5, atol=0.03)


def test_the_best_of_several_parts_are_drawn_from_the_whole() -> None:
    targets = np.full(20_000, 100)
    parts = {0: np.arange(3), 1: np.arange(3, 12)}  # of 3 and 9 rows
    found = [RandomRows(times, seed=part).search(targets, 2) for part, times in parts.items()]
    of_small = np.concatenate([np.full((20_000, 2), part) for part in parts], axis=1)
    scores = np.concatenate([scores for _, scores in found], axis=1)
    best = np.take_along_axis(of_small, np.argsort(-scores, axis=1)[:, :2], axis=1)
    both_small = (best == 0).all(axis=1).mean()
    np.testing.assert_allclose((best == 0).mean(), 3 / 12, atol=0.01)
    np.testing.assert_allclose(both_small, 3 / 12 * 2 / 11, atol=0.01)


def test_equal_seeds_draw_alike_and_an_empty_pool_gives_nothing() -> None:
    times, targets = np.arange(50), np.arange(50)
    first, again, other = (RandomRows(times, seed).search(targets, 5)[0] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    rows, scores = RandomRows(times[:0], 1).search(targets, 2)
    assert (rows == -1).all()
    assert (scores == 0).all()
