import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.transforms.histogram import (
    Histogram,
    from_ordered_bits,
    ordered_bits,
    quantiles,
)

VALUES = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5), min_size=1, max_size=200)


def count(histogram, parts):
    state = histogram.create_accumulator()
    for part in parts:
        state = histogram.add_input(state, np.array(part, dtype=np.int64))
    return state


def assert_same(one, other):
    assert one[0] == other[0]
    np.testing.assert_array_equal(one[1], other[1])
    np.testing.assert_array_equal(one[2], other[2])


@given(VALUES, st.randoms(use_true_random=False), st.integers(1, 5), st.sampled_from([2, 8, 1000]))
@settings(max_examples=80, deadline=None)
def test_any_order_of_adding_and_merging_gives_the_same(values, random, num_parts, max_bins):
    histogram = Histogram(max_bins)
    whole = count(histogram, [values])
    shuffled = random.sample(values, len(values))
    parts = [shuffled[i::num_parts] for i in range(num_parts)]
    states = [count(histogram, [part]) for part in parts]
    random.shuffle(states)
    assert_same(histogram.merge_accumulators(states), whole)
    assert_same(count(histogram, parts), whole)
    left = histogram.merge_accumulators(states[:2])
    assert_same(histogram.merge_accumulators([left, *states[2:]]), whole)


@given(VALUES)
@settings(max_examples=50, deadline=None)
def test_it_is_exact_as_long_as_the_distinct_values_fit(values):
    bits, bins, counts = count(Histogram(200), [values])
    expected, expected_counts = np.unique(values, return_counts=True)
    assert bits == 0
    np.testing.assert_array_equal(bins, expected)
    np.testing.assert_array_equal(counts, expected_counts)


def test_it_stays_small_and_loses_no_count():
    rng = np.random.default_rng(0)
    values = rng.integers(-(2**60), 2**60, 50_000)
    bits, bins, counts = count(Histogram(1000), np.array_split(values, 7))
    assert 500 < len(bins) <= 1000
    assert counts.sum() == 50_000
    np.testing.assert_array_equal(bins, np.unique(values >> bits))


def test_quantiles_cut_as_sorting_would():
    rng = np.random.default_rng(1)
    values = np.sort(rng.integers(0, 10**9, 1000))
    state = count(Histogram(), [values])
    assert quantiles(state, [0.8, 0.9]) == [values[800], values[900]]
    assert quantiles(state, [0.29, 0.7]) == [values[290], values[700]]  # 0.29 * 1000 < 290


def test_equal_values_stay_above_the_cut():
    state = count(Histogram(), [[1, 1, 1, 1, 1, 1, 2, 2, 2, 2]])
    # 5 of 10 smallest: the cut would fall among the ones, so all of them lie behind it.
    assert quantiles(state, [0.5, 0.6, 0.9]) == [1, 2, 2]


def test_a_share_of_one_is_cut_above_everything():
    assert quantiles(count(Histogram(), [[3, 8]]), [0.5, 1.0]) == [8, 9]


def test_nothing_counted_gives_edges_all_the_same():
    assert quantiles(Histogram().create_accumulator(), [0.8, 0.9]) == [0, 0]


def test_a_coarse_histogram_cuts_near_the_right_value():
    values = np.arange(100_000)
    state = count(Histogram(1000), [values])
    for share in (0.1, 0.5, 0.9):
        (edge,) = quantiles(state, [share])
        assert abs(np.mean(values < edge) - share) <= 0.002


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_floats_sort_as_their_bits_do(zero):
    floats = np.array([-3.4e38, -1.5, -1e-40, zero, 1e-40, 2.0, 3.4e38], np.float32)
    bits = ordered_bits(floats)
    assert (np.diff(bits) > 0).all()
    np.testing.assert_array_equal(from_ordered_bits(bits), floats)
    assert ordered_bits(np.array([zero]))[0] == 0
