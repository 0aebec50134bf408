"""The most similar earlier rows by BM25, exactly (RIM, Qin et al., 2021, arXiv:2108.05252).

A row is a bag of tokens, one for each single-valued field. Term frequencies are 0 or 1, and all
rows have the same length; then BM25 is, up to a factor, the sum of the idf of the tokens that two
rows share.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tfctr.schema import FIRST_TOKEN_ID

UNIT = 1 << 20  # of scores, which are integers so that no rounding breaks a tie
PLACES = 31  # bits for a row's place in the pool, below its score
CHUNK = 1 << 14  # rows of a postings list scored at a time


def idf(counts: np.ndarray, num_rows: int) -> np.ndarray:
    """int64 `[V]`, in units of 1 / `UNIT`: `ln(1 + (N - n + 0.5) / (n + 0.5))`, above 0.

    Ids that are no tokens (missing, OOV) have 0, so that they match nothing.

    Args:
        counts: int `[V]`. Rows that hold each id.
        num_rows: int. `N`.
    """
    found = np.log1p((num_rows - counts + 0.5) / (counts + 0.5))
    found[:FIRST_TOKEN_ID] = 0
    return np.rint(found * UNIT).astype(np.int64)


class _Postings(NamedTuple):
    """The places of the rows with each token, ascending: `places[starts[i] : starts[i + 1]]`."""

    tokens: np.ndarray  # int64, ascending
    starts: np.ndarray
    places: np.ndarray  # int32

    def of(self, token: int) -> np.ndarray:
        i = int(np.searchsorted(self.tokens, token))
        if i == len(self.tokens) or self.tokens[i] != token:
            return self.places[:0]
        return self.places[self.starts[i] : self.starts[i + 1]]


class Bm25Index:
    """Searches a pool for the rows most similar to a target and earlier than it.

    Among equal scores the newer row is better: a later time, then a greater row id. A row that
    shares no token is never found. A search reads the postings lists of the target's tokens, the
    rarest token first, and ends as soon as no unseen row could be among the best (MaxScore: Turtle
    & Flood, 1995, doi:10.1016/0306-4573(95)00020-H).

    Args:
        columns: `{field: ids [P] or [P, values]}`, integers, of the pool's rows.
        times: int64 `[P]`.
        row_ids: int64 `[P]`, all different.
        weights: `{field: int64 [V]}` of `idf`.
    """

    def __init__(
        self,
        columns: Mapping[str, np.ndarray],
        times: np.ndarray,
        row_ids: np.ndarray,
        weights: Mapping[str, np.ndarray],
    ) -> None:
        self.order = np.lexsort((row_ids, times))  # a row's place is its age
        self.times = times[self.order]
        self.weights = dict(weights)
        parts = [_two_dimensional(columns[name])[self.order] for name in self.weights]
        widths = [part.shape[1] for part in parts]
        self.rows = np.concatenate(parts, axis=1).astype(np.int32)
        self.last = np.cumsum(widths)
        self.postings = [_postings(part) for part in parts]

    def search(
        self, columns: Mapping[str, np.ndarray], times: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best `k` rows earlier than each of `T` targets, the best first.

        Args:
            columns: `{field: ids [T] or [T, values]}` of the targets.
            times: int64 `[T]`. Rows of this time or a later one are not found.
            k: int.

        Returns:
            `(rows, scores)` int64 `[T, k]`: positions in the index's arrays, padded with -1, and
            scores in units of 1 / `UNIT`, padded with 0.
        """
        parts = [_two_dimensional(columns[name]) for name in self.weights]
        rows = np.full((len(times), k), -1, np.int64)
        scores = np.zeros((len(times), k), np.int64)
        earlier = np.searchsorted(self.times, times, side="left")
        for target, limit in enumerate(earlier):
            if limit:
                keys = self._best([part[target] for part in parts], int(limit), k)
                rows[target, : len(keys)] = self.order[keys & ((1 << PLACES) - 1)]
                scores[target, : len(keys)] = keys >> PLACES
        return rows, scores

    def _best(self, target: Sequence[np.ndarray], limit: int, k: int) -> np.ndarray:
        """Keys of the best rows in places below `limit`, descending: score, then place."""
        tokens = self._tokens(target)
        if not tokens:
            return np.zeros(0, np.int64)
        weights = np.array([weight for weight, _, _ in tokens], np.float64)
        columns: list[int] = []
        values: list[int] = []
        first = []  # of each token's columns
        for _, field, token in tokens:
            first.append(len(columns))
            width = range(self.last[field - 1] if field else 0, self.last[field])
            columns += width
            values += [token] * len(width)
        most = np.cumsum(weights[::-1])[::-1].astype(np.int64).tolist()  # of a row's score
        best = np.zeros(0, np.int64)
        for i, (_, field, token) in enumerate(tokens):
            # A row that is new here has none of the earlier tokens.
            if len(best) == k and best[-1] > most[i] << PLACES | limit - 1:
                break
            places = self.postings[field].of(token)
            places = places[: np.searchsorted(places, limit)]
            for stop in range(len(places), 0, -CHUNK):
                if len(best) == k and best[-1] > most[i] << PLACES | int(places[stop - 1]):
                    break
                chunk = places[max(stop - CHUNK, 0) : stop]
                shared = self.rows[chunk][:, columns] == values
                shared = np.logical_or.reduceat(shared, first, axis=1)
                if i:
                    new = ~shared[:, :i].any(axis=1)
                    chunk, shared = chunk[new], shared[new]
                keys = ((shared @ weights).astype(np.int64) << PLACES) | chunk
                best = np.concatenate([best, keys])
                if len(best) > k:
                    best = np.partition(best, len(best) - k)[-k:]
                best = np.sort(best)[::-1]
        return best

    def _tokens(self, target: Sequence[np.ndarray]) -> list[tuple[int, int, int]]:
        """`(weight, field, token)`, each once, the rarest first."""
        found = {
            (int(weights[token]), field, token)
            for field, (values, weights) in enumerate(
                zip(target, self.weights.values(), strict=True)
            )
            for token in values.tolist()
            if weights[token]
        }
        return sorted(found, reverse=True)


def _two_dimensional(ids: np.ndarray) -> np.ndarray:
    return ids[:, None] if ids.ndim == 1 else ids


def _postings(ids: np.ndarray) -> _Postings:
    """Of ids `[P, values]`, those without a token left out."""
    places, values = np.nonzero(ids >= FIRST_TOKEN_ID)
    tokens = ids[places, values]
    order = np.lexsort((places, tokens))
    tokens, places = tokens[order], places[order]
    new = np.r_[True, (tokens[1:] != tokens[:-1]) | (places[1:] != places[:-1])][: len(tokens)]
    tokens, places = tokens[new], places[new]  # a token that occurs twice in a row counts once
    distinct, starts = np.unique(tokens, return_index=True)
    return _Postings(distinct, np.append(starts, len(tokens)), places.astype(np.int32))
