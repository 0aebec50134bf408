"""Dense retrieval against a loop over the pool."""

import numpy as np
import pytest

from tfctr.retrieval import dense
from tfctr.retrieval.dense import DenseIndex


@pytest.mark.parametrize("block_rows", [7, 64, 1000])
def test_the_nearest_earlier_rows_are_those_of_a_loop(
    block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(dense, "QUERIES", 9)
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(200, 6)).astype(np.float32)
    vectors[50:120] = vectors[:70]  # so that there are ties
    times, row_ids = rng.integers(0, 60, 200), rng.permutation(200)
    targets, when = rng.normal(size=(80, 6)).astype(np.float32), rng.integers(0, 70, 80)
    targets[:20] = vectors[40:60]
    rows, scores = DenseIndex(vectors, times, row_ids).search(targets, when, 5)
    for target, time, found, score in zip(targets, when, rows, scores, strict=True):
        cosine = vectors @ target / np.linalg.norm(vectors, axis=1) / np.linalg.norm(target)
        early = [i for i in range(200) if times[i] < time]
        best = sorted(early, key=lambda i: (-round(float(cosine[i]), 5), -times[i], -row_ids[i]))
        assert found.tolist() == best[:5] + [-1] * (5 - len(best))
        assert (score > 0).sum() == min(5, len(early))


def test_an_empty_pool_gives_nothing() -> None:
    index = DenseIndex(np.zeros((0, 3), np.float32), np.zeros(0, int), np.zeros(0, int))
    rows, scores = index.search(np.ones((2, 3), np.float32), np.array([1, 2]), 4)
    assert (rows == -1).all()
    assert (scores == 0).all()
