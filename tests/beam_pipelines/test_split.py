import itertools

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather

from beam_pipelines.transforms.split import (
    DROPPED,
    POOL,
    AssignSplits,
    SplitPiece,
    _by_user_bucket,
    _split_users,
)
from tfctr.config import Split
from tfctr.data.clean import LABEL, TIME, Staged
from tfctr.data.typed_rows import ROW


def stage(folder, times, users=None, cuts=(), first_row=0, labels=None):
    """Cleaned pieces as `Clean` leaves them, cut after these numbers of rows."""
    users = ["u"] * len(times) if users is None else users
    table = pa.table(
        {
            ROW: pa.array(range(first_row, first_row + len(times)), pa.int64()),
            TIME: pa.array(times, pa.int64()),
            LABEL: pa.array([0.0] * len(times) if labels is None else labels, pa.float32()),
            "user": pa.array(users, pa.string()),
        }
    )
    edges = [0, *cuts, len(times)]
    staged = []
    for i, (start, stop) in enumerate(itertools.pairwise(edges)):
        path = f"{folder}/{i}.feather"
        feather.write_feather(table[start:stop], path)
        dropped = table[start:stop][LABEL].null_count
        counts = {"read": stop - start, "bad": 0, "dropped": dropped}
        staged.append(Staged(i, path, stop - start, counts, {}))
    return staged


def assign(staged, split, expected_cuts=None):
    """The split of each row, in order: 0 training, 1 validation, 2 test."""
    transform = AssignSplits(Split(**split), "user", len(staged))
    with beam.Pipeline("FnApiRunner") as pipeline:
        _, cuts = pipeline | beam.Create(staged) | transform
        if expected_cuts is not None:
            assert_that(cuts, equal_to([expected_cuts]))
    found = [
        SplitPiece(**vars(piece), split_path=piece.path.removesuffix(".feather") + ".split").split()
        for piece in staged
    ]
    return np.concatenate(found).tolist()


def test_global_time_cuts_the_rows_by_their_time(tmp_path):
    times = [50, 10, 20, 100, 30, 40, 60, 70, 80, 90]
    split = {"by": "global_time", "valid": 0.2, "test": 0.1}
    found = assign(
        stage(tmp_path, times, cuts=(3, 3, 7)), split, {"valid_from": 80, "test_from": 100}
    )
    assert found == [0, 0, 0, 2, 0, 0, 0, 0, 1, 1]


def test_a_pool_is_the_first_rows_by_time(tmp_path):
    times = [50, 10, 20, 100, 30, 40, 60, 70, 80, 90]
    split = {"pool": 0.3, "valid": 0.2, "test": 0.1}
    cuts = {"train_from": 40, "valid_from": 80, "test_from": 100}
    found = assign(stage(tmp_path, times, cuts=(3, 7)), split, cuts)
    assert found == [0, POOL, POOL, 2, POOL, 0, 0, 0, 1, 1]


def test_rows_of_one_time_stay_together_in_the_later_split(tmp_path):
    times = [1, 2, 3, 4, 5, 5, 5, 5, 6, 7]
    split = {"valid": 0.3, "test": 0.2}
    # The first half ends among the fives, so all of them validate.
    found = assign(stage(tmp_path, times, cuts=(5, 7)), split, {"valid_from": 5, "test_from": 6})
    assert found == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("by", ["global_time", "user_time", "random"])
def test_a_share_of_zero_gets_no_row(tmp_path, by):
    times = list(range(97))
    for valid, test in ((0.2, 0.0), (0.0, 0.3), (0.0, 0.0)):
        found = assign(stage(tmp_path, times, cuts=(40,)), {"by": by, "valid": valid, "test": test})
        assert (1 in found) == (valid > 0)
        assert (2 in found) == (test > 0)
        assert 0 in found


def test_no_rows_at_all_are_no_error(tmp_path):
    for by in ("global_time", "user_time", "random"):
        assert assign(stage(tmp_path, [], cuts=(0,)), {"by": by}) == []


def test_random_keeps_the_shares_and_follows_the_seed_alone(tmp_path):
    times = [0] * 20_000

    def split(seed, cuts=()):
        config = {"by": "random", "valid": 0.1, "test": 0.2, "seed": seed}
        return assign(stage(tmp_path, times, cuts=cuts), config)

    found = split(7)
    np.testing.assert_allclose(np.bincount(found) / 20_000, [0.7, 0.1, 0.2], atol=0.01)
    assert split(7, cuts=(123, 9_000)) == found
    other = split(-1)
    assert np.mean(np.array(other) == found) < 0.6


def plain_user_split(users, times, shares):
    """Each user's rows by time; rows of one time go where the last of them goes."""
    found = [0] * len(users)
    for user in set(users):
        rows = [i for i, other in enumerate(users) if other == user]
        ordered = sorted(times[i] for i in rows)
        for i in rows:
            rank = len(ordered) - 1 - ordered[::-1].index(times[i])
            found[i] = sum((rank + 0.5) / len(rows) >= share for share in shares)
    return found


def test_user_time_is_what_a_plain_loop_finds(tmp_path):
    rng = np.random.default_rng(0)
    users = [f"u{i}" for i in rng.zipf(1.5, 800) % 60]
    times = rng.integers(0, 40, 800).tolist()
    split = {"by": "user_time", "valid": 0.2, "test": 0.2}
    found = assign(stage(tmp_path, times, users, cuts=(1, 300, 301)), split)
    assert found == plain_user_split(users, times, [0.6, 0.8])
    for user in set(users):
        by_split = [
            [t for t, u, s in zip(times, users, found, strict=True) if (u, s) == (user, k)]
            for k in range(3)
        ]
        filled = [part for part in by_split if part]
        assert all(max(a) < min(b) for a, b in itertools.pairwise(filled))


@pytest.mark.parametrize("by", ["global_time", "user_time"])
def test_dropped_rows_go_where_their_time_says_and_change_nothing_for_others(tmp_path, by):
    rng = np.random.default_rng(1)
    users = [f"u{i}" for i in rng.integers(0, 12, 300)]
    times = rng.integers(0, 40, 300).tolist()
    dropped = (rng.random(300) < 0.3) | (np.array(users) == "u0")
    labels = [None if left_out else 1.0 for left_out in dropped]
    split = {"by": by, "valid": 0.2, "test": 0.2}
    (tmp_path / "kept").mkdir()
    kept = np.flatnonzero(~dropped)
    examples = [(times[i], users[i]) for i in kept]
    expected = assign(stage(tmp_path / "kept", *map(list, zip(*examples, strict=True))), split)
    codes = assign(stage(tmp_path, times, users, cuts=(100, 101), labels=labels), split)
    assert [codes[i] for i in kept] == expected
    for i in np.flatnonzero(dropped):
        before = [
            (time, code)
            for (time, user), code in zip(examples, expected, strict=True)
            if time <= times[i] and (by == "global_time" or user == users[i])
        ]
        assert codes[i] == DROPPED + max(before, default=(0, 0))[1]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_user_time_with_many_ties(tmp_path_factory, rows):
    users, times = [user for user, _ in rows], [time for _, time in rows]
    (piece,) = stage(tmp_path_factory.mktemp("staged"), times, users)
    found = [None] * len(rows)
    for _, part in _by_user_bucket(piece, "user"):
        for _, (places, splits) in _split_users((0, [part]), [0.5, 0.8]):
            for place, split in zip(places, splits, strict=True):
                found[place] = split
    assert found == plain_user_split(users, times, [0.5, 0.8])
