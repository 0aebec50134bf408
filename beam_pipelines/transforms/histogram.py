"""Quantiles of any number of int64 values; the result does not depend on their order."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import apache_beam as beam
import numpy as np

State: TypeAlias = tuple[int, np.ndarray, np.ndarray]  # bits dropped, bins ascending, counts


class Histogram(beam.CombineFn):
    """Counts of `value >> bits`, with the least `bits` that leaves at most `max_bins` bins.

    It is exact for up to `max_bins` distinct values. `bits` depends only on the values (a part of
    them never needs more than the whole), so any order of adding and merging gives the same result.
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


def num_values(state: State) -> int:
    return int(state[2].sum())


def quantiles(state: State, shares: Sequence[float]) -> list[int]:
    """For each share the least bin edge `v` such that at least that share of values is below `v`.

    With one bin per value, this is the first value that is not among the smallest `share` of them;
    equal values are kept together above the cut. A share of 1 is cut above all values; without
    values, every edge is 0.
    """
    bits, bins, counts = state
    below = np.cumsum(counts)
    edges = []
    for share in shares:
        # The bin of the value of this rank; it and all later bins are above the cut.
        rank = round(share * int(below[-1]), 6) if len(bins) else 0  # 0.29 * 100 is below 29
        place = int(np.searchsorted(below, rank, side="right"))
        edge = int(bins[place]) if place < len(bins) else int(bins[-1]) + 1 if len(bins) else 0
        edges.append(edge << bits)
    return edges


def _merge(bins: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(bins):
        return bins, counts
    order = np.argsort(bins, kind="stable")
    bins, counts = bins[order], counts[order]
    first = np.flatnonzero(np.r_[True, bins[1:] != bins[:-1]])
    return bins[first], np.add.reduceat(counts, first)


def ordered_bits(values: np.ndarray) -> np.ndarray:
    """float32 as int64 with the same order."""
    # + 0: no negative zero
    return _flip((values.astype(np.float32) + np.float32(0)).view(np.int32)).astype(np.int64)


def from_ordered_bits(bits: np.ndarray) -> np.ndarray:
    """The inverse of `ordered_bits`."""
    return _flip(bits.astype(np.int32)).view(np.float32)


def _flip(bits: np.ndarray) -> np.ndarray:
    """Reverses the order of negative floats, whose bits ascend with their magnitude."""
    return np.where(bits < 0, np.int32(-(2**31)) - bits - np.int32(1), bits)
