"""Quantiles of any number of int64 values, the same whatever the order they came in."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import apache_beam as beam
import numpy as np

State: TypeAlias = tuple[int, np.ndarray, np.ndarray]  # bits dropped, bins rising, counts


class Histogram(beam.CombineFn):
    """Counts of `value >> bits`, `bits` the least that leaves at most `max_bins` distinct bins.

    Until there are more distinct values than that, it is exact. `bits` depends on the values alone
    (a part of them never needs more than the whole), so any order of adding and merging gives
    the same result.
    """

    def __init__(self, max_bins: int = 1 << 20) -> None:
        self.max_bins = max_bins

    def create_accumulator(self) -> State:
        return 0, np.zeros(0, np.int64), np.zeros(0, np.int64)

    def add_input(self, state: State, values: np.ndarray) -> State:
        bins, counts = np.unique(values, return_counts=True)
        return self.merge_accumulators([state, (0, bins, counts.astype(np.int64))])

    def merge_accumulators(self, states: Iterable[State]) -> State:
        states = list(states)
        bits = max(state[0] for state in states)
        bins = np.concatenate([state[1] >> (bits - state[0]) for state in states])
        counts = np.concatenate([state[2] for state in states])
        bins, counts = _merge(bins, counts)
        while len(bins) > self.max_bins:
            bits += 1
            bins, counts = _merge(bins >> 1, counts)
        return bits, bins, counts

    def extract_output(self, state: State) -> State:
        return state


def quantiles(state: State, shares: Sequence[float]) -> list[int]:
    """For each share the least bin edge `v` such that at least that share of values is below `v`.

    With one bin a value: the first value that is not among the smallest `share` of them, all
    equal ones kept together above the cut.
    """
    bits, bins, counts = state
    below = np.cumsum(counts)
    edges = []
    for share in shares:
        # The bin that holds the value of this rank; it and all after it lie behind the cut.
        place = int(np.searchsorted(below, share * below[-1], side="right"))
        edges.append(int(bins[min(place, len(bins) - 1)]) << bits)
    return edges


def _merge(bins: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distinct, place = np.unique(bins, return_inverse=True)
    total = np.zeros(len(distinct), np.int64)
    np.add.at(total, place.reshape(-1), counts)
    return distinct, total


def ordered_bits(values: np.ndarray) -> np.ndarray:
    """Floats as int64 that sort alike."""
    return _flip((values.astype(np.float64) + 0.0).view(np.int64))  # + 0.0: no negative zero


def from_ordered_bits(bits: np.ndarray) -> np.ndarray:
    """The floats again."""
    return _flip(bits.astype(np.int64)).view(np.float64)


def _flip(bits: np.ndarray) -> np.ndarray:
    """Negative floats have a sign bit and rise with their size: reversed, they fall with it."""
    return np.where(bits < 0, np.int64(-(2**63)) - bits - 1, bits)
