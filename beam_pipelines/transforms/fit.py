"""Fits vocabularies and statistics of numbers on the training rows."""

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines.transforms.histogram import (
    Histogram,
    from_ordered_bits,
    num_values,
    ordered_bits,
    quantiles,
)
from beam_pipelines.transforms.split import DROPPED, KNOWN, SplitPiece
from tfctr.data import files
from tfctr.data.arrived import check_arrived
from tfctr.data.hashed import to_buckets
from tfctr.data.listed_tokens import ListedTokens
from tfctr.data.typed_rows import ROW
from tfctr.data.vocabulary import Vocabulary
from tfctr.schema import (
    FAR_SCALED,
    QUARTILES_APART,
    TOKEN_KINDS,
    History,
    Numeric,
    Schema,
)

Counts: TypeAlias = pa.Table  # columns token, count; a null token: the number of pieces
Ends: TypeAlias = list[tuple[float, int]]  # the lowest and the highest number, with their rows


class CountTokens(beam.CombineFn):
    """Merges counts of tokens; the result does not depend on the order."""

    MERGE_ROWS = 1 << 20

    def create_accumulator(self) -> list[Counts]:
        return []

    def add_input(self, parts: list[Counts], counts: Counts) -> list[Counts]:
        return self.merge_accumulators([parts, [counts]])

    def merge_accumulators(self, accumulators: Iterable[list[Counts]]) -> list[Counts]:
        parts = [part for accumulator in accumulators for part in accumulator]
        # Small tables are gathered first: a merge costs as much as the larger table.
        if len(parts) > 1 and sum(part.num_rows for part in parts[1:]) > max(
            self.MERGE_ROWS, parts[0].num_rows
        ):
            return [merge_counts(parts)]
        return parts

    def extract_output(self, parts: list[Counts]) -> Counts:
        return merge_counts(parts)


def merge_counts(parts: list[Counts]) -> Counts:
    """One count per token."""
    total = pa.concat_tables(parts).group_by("token").aggregate([("count", "sum")])
    return total.rename_columns({"count_sum": "count"})


class FitVocabularies(beam.PTransform):
    """`SplitPiece` -> `(name, {tokens, vocabulary_size})` for each vocabulary; writes its file.

    A vocabulary belongs to the feature of its name; features that share it add no tokens. Order:
    most frequent first, equal counts by token, so ids are the same on every run. `tokens` is
    the number of distinct tokens, rare ones included. Tokens come from training rows; those of a
    history's own vocabulary also from dropped rows of that period.

    Listed tokens that are not among these follow, sorted; `from_files` is their number.

    Args:
        schema: of the features.
        folder: to write to.
        num_pieces: int. Number of pieces.
        listed: by vocabulary. Defaults to none.
    """

    def __init__(
        self,
        schema: Schema,
        folder: str,
        num_pieces: int,
        listed: Mapping[str, ListedTokens] | None = None,
    ) -> None:
        super().__init__()
        self.listed = listed or {}
        self.owners = own_vocabularies(schema)
        self.histories = tuple(n for n, f in self.owners.items() if isinstance(f, History))
        self.folder = folder
        self.num_pieces = num_pieces

    def expand(self, pieces: beam.PCollection) -> beam.PCollection:
        return (
            pieces
            | "CountTokens" >> beam.FlatMap(_count_tokens, self.owners, self.histories)
            | "MergeCounts" >> beam.CombinePerKey(CountTokens())
            | "WriteVocabulary"
            >> beam.Map(_write_vocabulary, self.owners, self.listed, self.folder, self.num_pieces)
        )


def own_vocabularies(schema: Iterable[Any]) -> dict[str, Any]:
    """The features that own a vocabulary, by its name."""
    return {f.name: f for f in schema if getattr(f, "vocabulary", None) == f.name}


def _count_tokens(
    piece: SplitPiece, owners: Mapping[str, Any], histories: tuple[str, ...] = ()
) -> Iterator[tuple[str, Counts]]:
    codes = piece.split()
    table = piece.columns(list(owners))
    examples = pa.array(np.isin(codes, KNOWN))
    events = pa.array(np.isin(codes % DROPPED, KNOWN))
    for name, owner in owners.items():
        column = table[name].filter(events if name in histories else examples)
        yield name, with_pieces(count_values(column.combine_chunks(), owner.hash_buckets), 1)


def with_pieces(counts: Counts, pieces: int) -> Counts:
    """Adds the number of pieces to counts, so that merged counts have the sum."""
    nothing = [pa.nulls(1, counts["token"].type), pa.array([pieces], counts["count"].type)]
    return pa.concat_tables([counts, pa.table(nothing, counts.column_names)])


def without_pieces(counts: Counts) -> tuple[Counts, int]:
    """Splits counts into those of tokens and the number of pieces."""
    pieces = counts.filter(pc.is_null(counts["token"]))["count"].to_pylist()
    return counts.filter(pc.is_valid(counts["token"])), sum(pieces)


def count_values(column: pa.Array, hash_buckets: int | None = None) -> Counts:
    """Counts of a column of tokens or of lists; null is not counted. With `hash_buckets`, counts of
    the tokens' buckets, maybe several of one."""
    if pa.types.is_list(column.type):
        column = column.flatten()
    tokens, counts = pc.value_counts(column.drop_null()).flatten()
    if pa.types.is_dictionary(tokens.type):
        tokens = tokens.dictionary_decode()
    if hash_buckets:
        tokens = to_buckets(tokens, hash_buckets)
    return pa.table({"token": tokens, "count": counts})


def _write_vocabulary(
    counted: tuple[str, Counts],
    owners: dict[str, Any],
    listed: Mapping[str, ListedTokens],
    folder: str,
    pieces: int,
) -> tuple[str, dict[str, int]]:
    name, counts = counted
    counts, came = without_pieces(counts)
    check_arrived(f"vocabulary {name}: counts of pieces", came, pieces)
    kept = counts.filter(pc.greater_equal(counts["count"], owners[name].min_count))
    kept = kept.sort_by([("count", "descending"), ("token", "ascending")])
    tokens = kept["token"].combine_chunks()
    from_files = {}
    if name in listed:
        more = listed[name].read()
        more = more.filter(pc.invert(pc.is_in(more, value_set=tokens)))
        tokens = pa.concat_arrays([tokens, more])
        from_files["from_files"] = len(more)
    vocabulary = Vocabulary(tokens)
    files.write(f"{folder}/vocabularies/{name}.txt", vocabulary.to_bytes())
    sizes = {"tokens": counts.num_rows, "vocabulary_size": vocabulary.size}
    return name, sizes | from_files


def read_vocabularies(features: Iterable[Any], folder: str) -> dict[str, Vocabulary]:
    """The vocabularies of the features, by name."""
    of_name = {f.vocabulary: f for f in features if isinstance(f, TOKEN_KINDS)}
    return {
        name: Vocabulary.parse(
            files.read(f"{folder}/vocabularies/{name}.txt"), f.dtype, f.hash_buckets
        )
        for name, f in of_name.items()
    }


class FitNumbers(beam.PTransform):
    """`SplitPiece` -> `(name, {missing, mean, std, min, max, ...})` per numeric feature.

    Statistics of the training rows' float32 values; `missing` is a share. If all values are
    missing, there is only this share. With `transform: log`, mean and deviation are of the
    logarithms. There are `boundaries` of buckets, `median` and `iqr` of what is standardised or
    robust, `flattened` (`rows`, `central`) if outliers flatten the feature, and the `farthest`
    number of any split (`value`, `row`, `scaled`) if it is far from the others.

    Args:
        schema: of the features.
        num_pieces: int. Number of pieces.
    """

    def __init__(self, schema: Schema, num_pieces: int) -> None:
        super().__init__()
        self.features = {f.name: f for f in schema if isinstance(f, Numeric)}
        self.num_pieces = num_pieces

    def expand(self, pieces: beam.PCollection) -> beam.PCollection:
        if not self.features:
            return pieces.pipeline | "NoNumbers" >> beam.Create([])
        ordered = {name for name, feature in self.features.items() if _needs_quantiles(feature)}
        logs = {name for name, feature in self.features.items() if feature.transform == "log"}
        columns = pieces | "Numbers" >> beam.FlatMap(_numbers, tuple(self.features))
        moments = (
            columns
            | "Moments" >> beam.MapTuple(_moments, logs)
            | "GatherMoments" >> beam.GroupByKey()
        )
        bins = (
            columns
            | "WithQuantiles" >> beam.Filter(lambda column: column[0] in ordered)
            | "Bits" >> beam.MapTuple(_present_bits)
            | "CountBins" >> beam.CombinePerKey(Histogram(max_bins=1 << 16))
        )
        return (
            {"moments": moments, "bins": bins}
            | "Join" >> beam.CoGroupByKey()
            | "Summarise" >> beam.Map(_summarise, self.features, self.num_pieces)
        )


def _numbers(piece: SplitPiece, names: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """A name, the piece's index, float32 values of the rows to fit, and the ends of all rows."""
    table, known = piece.columns([ROW, *names]), np.isin(piece.split(), KNOWN)
    table, known = table.filter(pa.array(piece.is_example())), known[piece.is_example()]
    for name in names:
        values = table[name].to_numpy().astype(np.float32)
        yield name, piece.index, values[known], _ends(values, table[ROW].to_numpy())


def _ends(values: np.ndarray, rows: np.ndarray) -> Ends:
    """The lowest and the highest number, each with its row; none if there is no number."""
    places = np.flatnonzero(np.isfinite(values))
    if not len(places):
        return []
    order = places[np.argmin(values[places])], places[np.argmax(values[places])]
    return [(float(values[i]), int(rows[i])) for i in order]


def _present_bits(name: str, _: int, values: np.ndarray, __: Ends) -> tuple[str, np.ndarray]:
    return name, ordered_bits(values[np.isfinite(values)])


def _needs_boundaries(feature: Numeric) -> bool:
    return feature.transform == "bucketize" and feature.boundaries is None


def _needs_quantiles(feature: Numeric) -> bool:
    return feature.transform in ("standardize", "robust") or _needs_boundaries(feature)


def _moments(
    name: str, index: int, values: np.ndarray, ends: Ends, logs: Container[str] = ()
) -> tuple[str, tuple[Any, ...]]:
    present = values[np.isfinite(values)].astype(np.float64)
    if not len(present):
        return name, (index, len(values), 0, 0.0, 0.0, np.inf, -np.inf, ends)
    low, high = present.min(), present.max()
    if name in logs:
        present = np.sign(present) * np.log1p(np.abs(present))
    mean = float(present.mean())
    squares = float(np.square(present - mean).sum())
    return name, (index, len(values), len(present), mean, squares, low, high, ends)


def _summarise(
    joined: tuple[str, dict[str, list[Any]]], features: dict[str, Numeric], pieces: int
) -> tuple[str, dict[str, Any]]:
    name, found = joined
    moments = sorted(moments for parts in found["moments"] for moments in parts)
    ends = [end for part in moments for end in part[-1]]
    check_arrived(f"feature {name}: moments of pieces", len(moments), pieces)
    rows, count, mean, squares, low, high = 0, 0, 0.0, 0.0, np.inf, -np.inf
    # In the order of the pieces: sums of floats depend on it.
    for _, part_rows, n, part_mean, part_squares, part_low, part_high, _ in moments:
        rows += part_rows
        low, high = min(low, part_low), max(high, part_high)
        if n:  # Chan et al., 1979
            delta = part_mean - mean
            squares += part_squares + delta**2 * count * n / (count + n)
            count += n
            mean += delta * n / count
    summary: dict[str, Any] = {"missing": (rows - count) / max(rows, 1)}
    if not count:
        return name, summary
    summary |= {"mean": mean, "std": float(np.sqrt(squares / count))}
    summary |= {"min": float(low), "max": float(high)}
    feature = features[name]
    if _needs_quantiles(feature):
        (bins,) = found["bins"]
        check_arrived(f"feature {name}: values", num_values(bins), count)
        if feature.transform == "bucketize":
            summary["boundaries"] = _boundaries(bins, feature.num_buckets, float(low))
        else:
            summary |= _spread(bins, summary["std"])
    if feature.transform in FAR_SCALED:
        fitted = feature.model_copy(update=measured(feature, summary))
        scaled, value, row = max((abs(fitted.scaled(value)), value, row) for value, row in ends)
        if scaled > FAR_SCALED[feature.transform] or "flattened" in summary:
            summary["farthest"] = {"value": value, "row": row, "scaled": scaled}
    return name, summary


def measured(feature: Numeric, summary: dict[str, Any]) -> dict[str, Any]:
    """What the fitted schema takes of a feature's summary."""
    kept = ["mean", "std", "boundaries"]
    kept += ["median", "iqr"] if feature.transform == "robust" else []
    return {key: summary[key] for key in kept if key in summary}


CENTRAL_APART = 3.290  # deviations that the central 90% of a normal distribution span
FLAT = 0.1  # deviations; a feature whose central 90% lie closer together is flattened


def _spread(state: Any, std: float) -> dict[str, Any]:
    """The median and the interquartile range, and the outliers that flatten what is standardised.

    If the quartiles are equal, the range is that of a normal distribution with the same central
    90%, or else with the same deviation.
    """
    edges = np.array(quantiles(state, [0.05, 0.25, 0.5, 0.75, 0.95]))
    low, first, median, third, high = from_ordered_bits(edges).astype(np.float64).tolist()
    central = (high - low) / CENTRAL_APART
    summary: dict[str, Any] = {
        "median": median,
        "iqr": third - first or (central or std) * QUARTILES_APART,
    }
    if 0 < high - low < FLAT * std:
        bits, bins, counts = state
        values = from_ordered_bits(bins << bits).astype(np.float64)
        far = np.abs(values - median)
        summary["flattened"] = {
            "rows": int(counts[far >= min(std, far.max())].sum()),
            "central": [low, high],
        }
    return summary


def _boundaries(state: Any, num_buckets: int, low: float) -> list[float]:
    """Edges of buckets with equal counts; fewer if values repeat."""
    edges = quantiles(state, [i / num_buckets for i in range(1, num_buckets)])
    found = from_ordered_bits(np.array(edges)).tolist()
    return sorted({edge for edge in found if edge > low}) or [low]
