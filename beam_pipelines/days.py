"""From a raw log to a log by day and domain, with vocabularies that only grow.

    python -m beam_pipelines.days --config configs/demo/ecdctr/days.yaml --output work/demo-days \\
        --through 2024-02-29

It writes the missing days, and takes Beam's options too. The days are the same whether they are
written one at a time or all at once.
"""

import argparse
import datetime
import json
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import feather, fs

from beam_pipelines.running import job
from beam_pipelines.tfrecord.examples import encode, layout
from beam_pipelines.transforms.broadcast import Gather, ToPieces
from beam_pipelines.transforms.carried_events import CarryEvents, carried_days
from beam_pipelines.transforms.clean_pieces import Clean
from beam_pipelines.transforms.fit import (
    Counts,
    CountTokens,
    FitNumbers,
    count_values,
    measured,
    merge_counts,
    own_vocabularies,
    with_pieces,
    without_pieces,
)
from beam_pipelines.transforms.histories import read_past
from beam_pipelines.transforms.shards import Encoder, example_fields
from beam_pipelines.transforms.split import DROPPED, TEST, TRAIN, SplitPiece
from tfctr.config import DataConfig, digest
from tfctr.data import files
from tfctr.data.arrived import check_arrived
from tfctr.data.clean import (
    LABEL,
    TIME,
    Staged,
    add_up,
    read_staged,
    refuse_too_many_bad,
    tally,
    write_dead_letters,
)
from tfctr.data.day_log import DOMAINS, LOG, DayLog
from tfctr.data.histories import history_features
from tfctr.data.manifest import FORMAT, DataError, read_manifest, write_manifest
from tfctr.data.one_value import token_of
from tfctr.data.readers import Piece
from tfctr.data.sources import matching_if_any
from tfctr.data.summary import warnings_of_days
from tfctr.data.times import SECONDS_PER_DAY, UNITS
from tfctr.data.typed_rows import ROW
from tfctr.data.vocabulary import Vocabulary
from tfctr.frameworks.ecdctr.config import ANY_DAY, DaysConfig, load_days
from tfctr.schema import FIRST_TOKEN_ID, OOV_ID, TOKEN_KINDS, Numeric

EPOCH = datetime.date(1970, 1, 1)
SENT = -1  # the key of counts of all days of a piece, in place of a day's index
MAX_IDS = 1 << 28  # in a vocabulary: records of all days have one layout


def write_days(
    config: DaysConfig, through: datetime.date, output: str, beam_args: list[str] | None = None
) -> DayLog:
    """Writes the missing days up to `through`, each whole or not at all.

    Days that are not in the source yet are left out.

    Args:
        config: of the log.
        through: the last day, which must be over.
        output: path or URI of the log's folder.
        beam_args: Beam's pipeline options. The default runner is Beam's own, in this process.

    Returns:
        The log with all days written so far.

    Raises:
        ConfigError: the config does not fit the source.
        DataError: too many bad rows; the folder holds a log of another config; the files of a
            written day have changed; the first time, a measured day is missing; another job has
            written the same days meanwhile.
    """
    output = output.rstrip("/")
    log = _open(config, output)
    wanted = config.days_through(through)
    paths = {day: _paths(config, day) for day in wanted if config.has_files_by_day}
    if log is not None:
        _check_unchanged(log, paths)
    written = log.days if log is not None else {}
    days = [d for d in wanted if d not in written and (paths.get(d) or not config.has_files_by_day)]
    if log is None and (len(wanted) < config.measured_days or not days):
        last = config.first + datetime.timedelta(days=config.measured_days - 1)
        raise DataError(
            f"{config.name}: the first {config.measured_days} days are written together, because "
            f"means and buckets of numbers are measured on them; found {len(days)} days through "
            f"{through}, need all through {last}"
        )
    if days:
        folder = f"{output}/.tmp-{uuid.uuid4().hex[:8]}"
        _clear_leftovers(output)
        try:
            _write(config, days, paths, log, folder, output, beam_args or [])
        finally:
            system, made = files.filesystem(folder)
            if system.get_file_info(made).type == fs.FileType.Directory:
                system.delete_dir(made)
    return DayLog.open(output)


def _write(
    config: DaysConfig,
    days: list[datetime.date],
    paths: Mapping[datetime.date, list[str]],
    log: DayLog | None,
    folder: str,
    output: str,
    beam_args: list[str],
) -> None:
    data = config.for_days(days)
    transform = WriteDays(config, data, days, paths, log, folder)
    summary = job.run(transform, "days", config.name, folder, beam_args)
    logs = {**transform.clean.set_aside_tables(), "events": summary["events"]}
    system, made = files.filesystem(folder)
    kept = f"{output}/dead_letters/{days[-1]}"
    if system.get_file_info(f"{made}/dead_letters").type == fs.FileType.Directory:
        inner = files.filesystem(kept)[1]
        if system.get_file_info(inner).type == fs.FileType.Directory:
            system.delete_dir(inner)
        system.create_dir(inner.rpartition("/")[0], recursive=True)
        system.move(f"{made}/dead_letters", inner)
    refuse_too_many_bad(config.name, logs, data.max_bad_share, kept)
    if log is None:
        _write_log(config, summary["numbers"], output)
    number = len(log.days) if log else 0
    for day, found in zip(days, summary["days"], strict=True):
        if not any(found["domains"].values()):
            continue  # no rows yet
        manifest = {
            "number": number,
            "day": str(day),
            **found,
            "inputs": _names_and_sizes(paths.get(day)),
        }
        write_manifest(manifest, f"{folder}/{day}/manifest.json")
        target = f"{files.filesystem(output)[1]}/{day}"
        try:
            system.move(f"{made}/{day}", target)
        except OSError:
            if system.get_file_info(f"{target}/manifest.json").type == fs.FileType.File:
                raise DataError(
                    f"{output}: another job has written {day} meanwhile; run one at a time"
                ) from None
            raise
        number += 1


class WriteDays(beam.PTransform):
    """A log -> one dict: summaries of the days, for their manifests; all else is in `folder`.

    Args:
        config: of the log of days.
        data: the data config whose source holds the days.
        days: to write, ascending.
        paths: the files of each day, if each day has its own.
        log: the existing log; None the first time.
        folder: to write to.
    """

    def __init__(
        self,
        config: DaysConfig,
        data: DataConfig,
        days: Sequence[datetime.date],
        paths: Mapping[datetime.date, list[str]],
        log: DayLog | None,
        folder: str,
    ) -> None:
        super().__init__()
        self.clean = Clean(data, folder)
        self.schema = data.feature_schema
        self.measures = log is None
        self.numbers = [(day - EPOCH).days for day in days]
        self.folder = folder
        self.place = _Place(config, self.numbers, paths, self.clean.pieces, folder)
        self.grow = _Grow(self.schema, [str(day) for day in days], log, folder)
        self.write = _WritePiece(config, self.schema, self.numbers, folder)
        self.carry = None
        if history_features(self.schema):
            carried = carried_days(log.days, days) if log is not None else []
            self.carry = CarryEvents(
                data,
                self.numbers,
                [str(day) for day in days],
                [f"{log.folder}/{day}" for day in carried] if log is not None else [],
                folder,
                len(self.clean.pieces),
            )

    def expand(self, pipeline: Any) -> beam.PCollection:
        number = len(self.clean.pieces)
        placed = pipeline | "Clean" >> self.clean | "Place" >> beam.ParDo(self.place)
        numbers = pipeline | "NoNumbers" >> beam.Create([])
        if self.measures:
            numbers = placed | "FitNumbers" >> FitNumbers(self.schema, number)
        counts = placed | "CountTokens" >> beam.FlatMap(
            _count_by_day,
            self.grow.owners,
            {feature.name for feature in history_features(self.schema)},
        )
        vocabularies = (
            # A vocabulary is written even if no day adds a token.
            (counts, pipeline | "Names" >> beam.Create(self.grow.no_counts()))
            | "WithNames" >> beam.Flatten()
            | "MergeCounts" >> beam.CombinePerKey(CountTokens())
            | "ByVocabulary" >> beam.MapTuple(lambda key, counts: (key[0], (key[1], counts)))
            | "GatherDays" >> beam.GroupByKey()
            | "Grow" >> beam.ParDo(self.grow)
        )
        pieces = placed
        if self.carry is not None:
            pieces = (placed, vocabularies) | "CarryEvents" >> self.carry
        shards = (
            (pieces, {"vocabularies": vocabularies})
            | "WithVocabularies" >> ToPieces(number, vocabularies=len(self.grow.owners))
            | "WritePiece" >> beam.ParDo(self.write)
        )
        found = {"placed": placed, "vocabularies": vocabularies, "numbers": numbers}
        return (
            {**found, "shards": shards}
            | "Gather" >> Gather(vocabularies=len(self.grow.owners))
            | "Summarise" >> beam.Map(_summarise, number, len(self.numbers))
        )


class PlacedPiece(SplitPiece):
    """A cleaned piece with the day and domain of each row; rows of measured days are its TRAIN."""

    def places(self) -> np.ndarray:
        """int32 `[rows]`: twice the day's index plus the domain's; -1 if the row is not written."""
        return np.frombuffer(files.read(f"{self.split_path}.place"), np.int32)

    def is_example(self) -> np.ndarray:
        return self.places() >= 0

    def event_days(self) -> np.ndarray:
        """int32 `[rows]`: the day's index, also of rows that `label.drop` leaves out; -1 if the row
        is bad or of another day."""
        return np.frombuffer(files.read(f"{self.split_path}.event"), np.int32)


class _Place(beam.DoFn):
    """`Staged` -> `PlacedPiece`; rows of no domain, or of another day than their file, are bad."""

    def __init__(
        self,
        config: DaysConfig,
        days: list[int],
        paths: Mapping[datetime.date, list[str]],
        pieces: Sequence[Piece],
        folder: str,
    ) -> None:
        self.domain = config.domain
        assert config.data.time is not None  # `DaysConfig` requires it
        self.unit = SECONDS_PER_DAY * UNITS[config.data.time.unit]
        self.days = np.array(days)
        self.measured_until = (config.first - EPOCH).days + config.measured_days
        by_path = {path: (day - EPOCH).days for day, found in paths.items() for path in found}
        self.day_of_piece = {piece.index: by_path[piece.path] for piece in pieces if by_path}
        self.folder = folder

    def process(self, piece: Staged) -> Iterator[PlacedPiece]:
        table = read_staged(piece.path)
        day = table[TIME].to_numpy() // self.unit
        names = table[self.domain.feature].combine_chunks().cast(pa.string())
        known = pa.array([token_of(self.domain.values[domain]) for domain in DOMAINS])
        domain = pc.index_in(names, value_set=known).fill_null(-1).to_numpy()
        bad = [(domain < 0, f"{self.domain.feature}: not a domain; those are: {_listed(known)}")]
        own = self.day_of_piece.get(piece.index)
        if own is not None:
            expected = EPOCH + datetime.timedelta(days=own)
            bad.append((day != own, f"time: of another day than its file, {expected}"))
        is_bad = np.zeros(len(day), bool)
        letters: list[tuple[int, str, str]] = []
        for wrong, why in bad:
            for i in np.flatnonzero(wrong & ~is_bad):
                text = json.dumps(table.slice(i, 1).to_pylist()[0], default=str)
                letters.append((table[ROW][int(i)].as_py(), why, text))
            is_bad |= wrong
        if letters:
            path = f"{self.folder}/dead_letters/day-{piece.index:05d}.jsonl"
            write_dead_letters(path, "log", sorted(letters))
        index = np.searchsorted(self.days, day)
        taken = np.isin(day, self.days) & ~is_bad
        dropped = table[LABEL].is_null().to_numpy()
        place = np.where(taken & ~dropped, 2 * index + domain, -1).astype(np.int32)
        split = np.where(taken & (day < self.measured_until), TRAIN, TEST)
        path = piece.path.removesuffix(".feather") + ".split"
        files.write(path, np.where(dropped, split + DROPPED, split).astype(np.uint8).tobytes())
        files.write(f"{path}.place", place.tobytes())
        files.write(f"{path}.event", np.where(taken, index, -1).astype(np.int32).tobytes())
        counts = piece.counts | {
            "bad": piece.counts["bad"] + len(letters),
            "taken": int((place >= 0).sum()),
        }
        reasons = dict(piece.reasons)
        for why, count in tally(letters).items():
            reasons[why] = reasons.get(why, 0) + count
        yield PlacedPiece(piece.index, piece.path, piece.rows, counts, reasons, split_path=path)


def _listed(names: pa.Array) -> str:
    return ", ".join(names.to_pylist())


def _count_by_day(piece: PlacedPiece, owners: dict[str, Any], histories: set[str]) -> Iterator[Any]:
    """`((vocabulary, index of the day), counts)`, over both domains. A history's own vocabulary
    also counts rows that are no examples. For the day `SENT`, the number of the piece's days."""
    of_examples, of_events = piece.places() >> 1, piece.event_days()  # -1 stays below 0
    table = piece.columns(list(owners))
    for name, owner in owners.items():
        day = of_events if name in histories else of_examples
        days = np.unique(day[day >= 0])
        for index in days:
            rows = table[name].filter(pa.array(day == index))
            counts = count_values(rows.combine_chunks(), owner.hash_buckets)
            yield (name, int(index)), with_pieces(counts, 1)
        yield (name, SENT), with_pieces(_no_counts(owner), len(days))


class _Grow(beam.DoFn):
    """A vocabulary's counts by day -> `(name, (sizes by day, checksums of each day's new tokens))`.

    A token enters on the day on which its total count reaches `min_count`. The new tokens of a day
    are sorted by count, then by token. Counts of rarer tokens are kept for the next days.
    """

    def __init__(self, schema: Any, days: list[str], log: DayLog | None, folder: str) -> None:
        self.owners = own_vocabularies(schema)
        self.days = days
        self.log = log
        self.folder = folder

    def no_counts(self) -> list[Any]:
        """Empty counts for each vocabulary."""
        return [((name, SENT), _no_counts(owner)) for name, owner in self.owners.items()]

    def process(
        self, counted: tuple[str, Iterable[tuple[int, Counts]]]
    ) -> Iterator[tuple[str, Any]]:
        name, by_day = counted[0], {day: without_pieces(counts) for day, counts in counted[1]}
        _, sent = by_day.pop(SENT, (None, 0))
        came = sum(pieces for _, pieces in by_day.values())
        check_arrived(f"vocabulary {name}: counts of pieces' days", came, sent)
        owner = self.owners[name]
        empty = _no_counts(owner)
        tokens = empty["token"].combine_chunks()
        kind, rare = tokens.type, empty
        if self.log is not None and self.log.days:
            tokens = self.log.vocabulary(name).tokens
            rare = self._waiting(name, empty)
        sizes, checksums = [], []
        for index, day in enumerate(self.days):
            if index in by_day:
                counts = merge_counts([rare, by_day[index][0].cast(empty.schema)])
                new = counts.filter(pc.invert(pc.is_in(counts["token"], value_set=tokens)))
                enough = pc.greater_equal(new["count"], owner.min_count)
                order = [("count", "descending"), ("token", "ascending")]
                brought = new.filter(enough).sort_by(order)["token"].combine_chunks()
                rare = new.filter(pc.invert(enough)).sort_by("token")
                tokens = pa.concat_arrays([tokens, brought.cast(kind)])
            else:
                brought = empty["token"].combine_chunks()
            content = Vocabulary(brought).to_bytes()
            files.write(f"{self.folder}/{day}/vocabularies/{name}.txt", content)
            if owner.min_count > 1:
                sink = pa.BufferOutputStream()
                feather.write_feather(rare, sink, compression="uncompressed")
                files.write(f"{self.folder}/{day}/waiting/{name}.feather", sink.getvalue())
            sizes.append(len(tokens) + FIRST_TOKEN_ID)
            checksums.append(google_crc32c.value(content))
        files.write(f"{self.folder}/vocabularies/{name}.txt", Vocabulary(tokens).to_bytes())
        yield name, (sizes, checksums)

    def _waiting(self, name: str, empty: Counts) -> Counts:
        if self.owners[name].min_count == 1:
            return empty
        assert self.log is not None
        day = next(reversed(self.log.days))  # the last that was written
        path = f"{self.log.folder}/{day}/waiting/{name}.feather"
        return feather.read_table(pa.BufferReader(files.read(path))).cast(empty.schema)


def _no_counts(owner: Any) -> Counts:
    kind = pa.int64() if owner.dtype == "int" else pa.string()
    return pa.table({"token": pa.array([], kind), "count": pa.array([], pa.int64())})


class _WritePiece(beam.DoFn):
    """`PlacedPiece` -> `(index of the day, domain, about)` of its shards.

    `about` is `{name, rows, positives, bytes, numbers}`; `numbers` has the least and the greatest
    number of each numeric feature.
    """

    def __init__(self, config: DaysConfig, schema: Any, days: list[int], folder: str) -> None:
        sizes = {f.vocabulary: MAX_IDS for f in schema if isinstance(f, TOKEN_KINDS)}
        self.encoder = Encoder(schema, config.data.user, folder)
        self.fields = example_fields(schema, sizes, has_user=True)
        self.days = [str(EPOCH + datetime.timedelta(days=day)) for day in days]
        self.is_packed = config.data.compression == "gzip"
        self.folder = folder

    def process(self, with_vocabularies: tuple[PlacedPiece, dict[str, list[Any]]]) -> Iterator[Any]:
        piece, found = with_vocabularies
        vocabularies = dict(found["vocabularies"])
        places = piece.places()
        table = piece.columns(piece_columns(self.encoder.schema))
        histories = history_features(self.encoder.schema)
        past = read_past(piece) if histories else None
        examples = np.cumsum(places >= 0) - 1  # each row's number among them
        for place in np.unique(places[places >= 0]):
            index, domain = int(place) >> 1, DOMAINS[int(place) & 1]
            columns = self.encoder.columns(table.filter(pa.array(places == place)))
            if past is not None:
                columns |= past.columns(histories, examples[places == place])
            for feature in self.encoder.schema:
                if isinstance(feature, TOKEN_KINDS):  # tokens that enter on later days
                    ids, size = columns[feature.name], vocabularies[feature.vocabulary][0][index]
                    columns[feature.name] = np.where(ids < size, ids, OOV_ID)
            content: Sequence[bytes | memoryview] = encode(self.fields, columns)
            if self.is_packed:
                content = [files.compress(content)]
            suffix = ".tfrecord.gz" if self.is_packed else ".tfrecord"
            name = f"{self.days[index]}/{domain}/part-{piece.index:05d}{suffix}"
            files.write(f"{self.folder}/{name}", *content)
            about = {
                "name": name,
                "rows": int((places == place).sum()),
                "positives": int(columns["label"].sum()),
                "bytes": sum(len(part) for part in content),
                "numbers": _ends(self.encoder.schema, columns),
            }
            yield index, domain, about


def _ends(schema: Any, columns: Mapping[str, Any]) -> dict[str, list[float]]:
    there = {f.name: columns[f.name] for f in schema if isinstance(f, Numeric)}
    there = {name: values[~np.isnan(values)] for name, values in there.items()}
    return {n: [float(v.min()), float(v.max())] for n, v in there.items() if len(v)}


def piece_columns(schema: Any) -> list[str]:
    """The columns of a cleaned piece that its Examples are made from."""
    histories = history_features(schema)
    return [ROW, TIME, LABEL, *(f.name for f in schema if f not in histories)]


def _summarise(found: dict[str, list[Any]], pieces: int, days: int) -> dict[str, Any]:
    shards = found["shards"]
    counts, reasons = add_up(found["placed"], pieces)
    rows = sum(about["rows"] for _, _, about in shards)
    check_arrived("rows of the days", rows, counts.get("taken", 0))
    grown = sorted(found["vocabularies"])
    by_day: list[dict[str, Any]] = []
    for index in range(days):
        domains = {
            domain: sorted(
                (about for i, of, about in shards if (i, of) == (index, domain)),
                key=lambda about: about["name"],
            )
            for domain in DOMAINS
        }
        by_day.append(
            {
                "domains": domains,
                "vocabularies": {name: sizes[index] for name, (sizes, _) in grown},
                "brought": {name: checksums[index] for name, (_, checksums) in grown},
            }
        )
    events = {
        "rows": counts.get("read", 0),
        "bad": counts.get("bad", 0),  # without pieces there are no counts
        "bad_reasons": reasons,
    }
    return {"events": events, "numbers": dict(found["numbers"]), "days": by_day}


def _open(config: DaysConfig, output: str) -> DayLog | None:
    if read_manifest(f"{output}/{LOG}") is None:
        return None
    log = DayLog.open(output)
    if log.log["config_digest"] != digest(config):
        raise DataError(
            f"{output}: written with another config; give this config another name, or delete "
            "the folder and write all days again"
        )
    return log


def _write_log(config: DaysConfig, numbers: dict[str, Any], output: str) -> None:
    fitted = {}
    for feature in config.data.feature_schema:
        if isinstance(feature, Numeric):
            found = numbers[feature.name]
            if "mean" not in found:
                raise DataError(
                    f"{config.name}: feature {feature.name!r} has no value on the first "
                    f"{config.measured_days} days; leave it out"
                )
            fitted[feature.name] = measured(feature, found)
    schema = config.data.feature_schema.fitted(fitted)
    sizes = {f.vocabulary: MAX_IDS for f in schema if isinstance(f, TOKEN_KINDS)}
    fields = example_fields(schema, sizes, has_user=True)
    log = {
        "format": FORMAT,
        "config": config.model_dump(mode="json"),
        "config_digest": digest(config),
        "schema": schema.model_dump(mode="json"),
        "layout": layout(fields),
        "numbers": {
            name: {key: found[key] for key in ("std", "flattened") if key in found}
            for name, found in sorted(numbers.items())
        },
    }
    write_manifest(log, f"{output}/{LOG}")


def _paths(config: DaysConfig, day: datetime.date) -> list[str]:
    """The files of a day, without empty ones; none until the day is complete."""
    patterns: Any = config.for_days([day]).source.events  # type: ignore[union-attr]
    ready = [config.ready.replace(ANY_DAY, str(day))] if config.ready is not None else []
    found = [matching_if_any(path, config.data.directory) for path in [*ready, *patterns]]
    if not all(found):
        return []
    return [path for paths in found[len(ready) :] for path in paths if files.size(path)]


def _names_and_sizes(paths: list[str] | None) -> list[list[Any]]:
    return [[path.rpartition("/")[2], files.size(path)] for path in paths or ()]


def _check_unchanged(log: DayLog, paths: Mapping[datetime.date, list[str]]) -> None:
    for day, found in paths.items():
        if day in log.days and found and _names_and_sizes(found) != log.days[day]["inputs"]:
            raise DataError(
                f"{log.folder}: the files of {day} have changed since that day was written, and "
                "models have learned from it; restore the old files, or delete "
                f"{log.folder} and write all days again"
            )


def _clear_leftovers(output: str) -> None:
    """Deletes what killed runs left behind."""
    system, target = files.filesystem(output)
    for info in system.get_file_info(fs.FileSelector(target, allow_not_found=True)):
        if info.base_name.startswith(".tmp-"):
            system.delete_dir(info.path)


class DaysOptions(job.JobOptions):
    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        job.add_output(parser, __doc__)
        parser.add_argument("--config", required=True, help="YAML file of a log by days")
        parser.add_argument(
            "--through",
            required=True,
            type=datetime.date.fromisoformat,
            help="the last day, e.g. 2024-01-31",
        )


def _write_through(options: DaysOptions) -> str:
    config = load_days(options.config)
    before = _open(config, options.output)
    log = write_days(config, options.through, options.output, options.beam_args)
    rows = {domain: sum(log.rows(day, domain) for day in log.days) for domain in DOMAINS}
    new = list(log.days)[len(before.days) if before is not None else 0 :]
    line = f"{len(log.days)} days through {max(log.days)}, rows: {rows}"
    return "; ".join([line, *warnings_of_days(log, new)])


def main(argv: list[str] | None = None) -> int:
    return job.command(DaysOptions, argv, _write_through)


if __name__ == "__main__":
    sys.exit(job.run_main(__spec__))
