"""A runner that loses elements between two steps, without an error, is found out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from beam_pipelines import days, retrieve, sequences, snapshots
from beam_pipelines.days import write_days
from beam_pipelines.prepare import prepare
from beam_pipelines.running import job
from beam_pipelines.sequences import write_sequences
from beam_pipelines.snapshots import join_snapshots
from beam_pipelines.transforms import (
    clean_pieces,
    fit,
    histories,
    join,
    shards,
    split,
)
from beam_pipelines.transforms.histogram import Histogram, State
from beam_pipelines.transforms.side_outputs import EachShard
from tests.beam_pipelines import test_days
from tests.beam_pipelines.test_join import in_row_groups
from tests.beam_pipelines.test_prepare import WORLD, config
from tests.frameworks.srp4ctr import test_sequences
from tests.retrieval import test_retrieve
from tfctr.data import clean, joined_tables
from tfctr.data.manifest import DataError

NUMBERS = [{"name": "n", "kind": "numeric", "side": "context", "transform": "bucketize"}]


def lossy(
    monkeypatch: pytest.MonkeyPatch, module: Any, step: str, is_lost: Callable[[Any], bool]
) -> None:
    """Of what a step gives, the first element that is meant does not arrive."""
    whole = getattr(module, step)
    lost = []

    def losing(*arguments: Any) -> Iterator[Any]:
        for element in whole(*arguments):
            if lost or not is_lost(element):
                yield element
            else:
                lost.append(element)

    monkeypatch.setattr(module, step, losing)


def of_histories(folder: Path) -> Any:
    return prepare(in_row_groups(folder), str(folder / "data"))


def of_joins(folder: Path) -> Any:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(joined_tables, "LARGE_TABLE", -1)
        return of_histories(folder)


def of_times(folder: Path) -> Any:
    (folder / "log.csv").write_text("click,time,n\n" + "".join(f"1,{i},{i}\n" for i in range(90)))
    source = {"format": "csv", "events": "log.csv"}
    made = config(folder, source=source, features=NUMBERS, split={"by": "global_time"})
    return prepare(made, str(folder / "data"))


def of_user_times(folder: Path) -> Any:
    return prepare(config(folder, **WORLD), str(folder / "data"))


def of_user_windows(folder: Path) -> Any:
    test_sequences.write_logs(folder)
    config = test_sequences.of_four_events(folder)
    prepare(config.data, str(folder / "data"))
    return write_sequences(config, str(folder / "data"), str(folder / "windows"))


def of_days(folder: Path) -> Any:
    test_days.write_by_day(folder)
    return write_days(test_days.config(folder, "log-{day}.csv"), test_days.D4, str(folder / "days"))


def of_snapshots(folder: Path) -> Any:
    log = of_days(folder)
    return join_snapshots(log, {test_days.D1: []}, folder / "snapshots", 1, 2, folder / "joined")


def of_searches(folder: Path, **changes: Any) -> Any:
    prepare(test_retrieve.small_world(), str(folder / "data"))
    found = test_retrieve.config(**changes)
    return retrieve.retrieve(found, str(folder / "data"), str(folder / "similar"))


def of_searches_in_a_pool(folder: Path) -> Any:
    return of_searches(folder, pool=0.5)


def of_searches_in_parts(folder: Path) -> Any:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(retrieve, "INDEX_ROWS", 500)
        return of_searches(folder)


def any_element(_: Any) -> bool:
    return True


def of_no_user(element: Any) -> bool:
    return bool(element[0] == sequences.COUNTS)


def of_users(element: Any) -> bool:
    return not of_no_user(element)


def of_a_key(element: Any) -> bool:
    return bool(element[0] != join.TABLE)


def slow(*values: Any) -> Any:
    """Another loss of a job of which a quick test knows one."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("run", "module", "step", "is_lost", "says"),
    [
        (of_joins, join, "_rows_by_bucket", of_a_key, r"source\.users: its rows"),
        slow(of_histories, join, "_first_rows", any_element, r"piece \d: first row"),
        slow(of_joins, join, "_keys_by_bucket", any_element, "rows for piece 0 of the events"),
        slow(of_joins, join, "_find_rows", of_a_key, r"rows for piece \d of the events"),
        (of_histories, histories, "_by_user_bucket", any_element, "piece 0: rows of users"),
        slow(of_histories, fit, "_count_tokens", any_element, "user_id: counts of pieces"),
        slow(of_histories, fit, "_numbers", any_element, "feature age: moments of pieces"),
        slow(of_histories, shards, "_write_piece", any_element, "good rows"),
        slow(of_histories, clean_pieces._CleanPiece, "process", any_element, "pieces?( 0)?"),
        slow(of_times, clean_pieces._CleanPiece, "process", any_element, "test: pieces"),
        slow(of_days, clean_pieces._CleanPiece, "process", any_element, "moments of pieces"),
        (of_days, days, "_count_by_day", any_element, "vocabulary user: counts of pieces' days"),
        slow(of_days, days._WritePiece, "process", any_element, "rows of the days"),
        (of_snapshots, snapshots._Join, "process", any_element, "joined: rows"),
        slow(of_user_windows, sequences, "_by_user_bucket", of_no_user, "events: its pieces"),
        (of_user_windows, sequences, "_by_user_bucket", of_users, "events: its rows"),
        (of_user_times, split, "_by_user_bucket", any_element, "rows with their split"),
        (of_searches, retrieve, "_search", any_element, "similar: shards"),
        slow(of_searches_in_parts, retrieve, "_search", any_element, "parts of the pool"),
    ],
)
def test_what_a_runner_loses_is_missed(
    run: Any,
    module: Any,
    step: str,
    is_lost: Any,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lossy(monkeypatch, module, step, is_lost)
    with pytest.raises(DataError, match=rf"{says}: [\d,]+ of [\d,]+ came; the runner lost"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("run", "module", "says"),
    [
        (of_times, split, "times of examples"),
        slow(of_times, fit, "feature n: values"),
        (of_searches_in_a_pool, retrieve, "rows whose times are counted"),
    ],
)
def test_values_that_no_quantile_knows_of(
    run: Any, module: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Losing(Histogram):
        def extract_output(self, state: State) -> State:
            bits, bins, counts = state
            return bits, bins[1:], counts[1:]

    monkeypatch.setattr(module, "Histogram", Losing)
    with pytest.raises(DataError, match=rf"{says}: [\d,]+ of [\d,]+ came; the runner lost"):
        run(tmp_path)


def test_tokens_of_a_shard_that_no_weight_knows_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weigh = retrieve._weigh
    monkeypatch.setattr(
        retrieve, "_weigh", lambda found, rows: weigh((found[0] - 7, found[1]), rows)
    )
    with pytest.raises(DataError, match=r"rows whose tokens are counted: [\d,]+ of [\d,]+ came"):
        of_searches(tmp_path)


class _NoTest(beam.DoFn):
    def process(self, name: str) -> Iterator[str]:
        if not name.startswith("test"):
            yield name


def test_a_shard_that_has_nothing_beside_it(tmp_path: Path) -> None:
    prepare(test_retrieve.small_world(), str(tmp_path / "data"))
    beside = EachShard(str(tmp_path / "data"), _NoTest(), dict)
    with pytest.raises(DataError, match=r"texts: shards: \d of \d came"):
        job.run(beside, "textify", "texts", str(tmp_path), [])


def test_a_piece_that_only_the_summary_misses() -> None:
    with pytest.raises(DataError, match="pieces of the log: 1 of 2 came"):
        clean.add_up([clean.Staged(0, "", 0, {}, {})], 2)


def test_a_piece_of_a_table_that_is_lost_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = join._rows_by_bucket

    def losing(with_first_row: Any, *more: Any) -> Iterator[Any]:
        if with_first_row[0].index != 1:
            yield from whole(with_first_row, *more)

    monkeypatch.setattr(join, "_rows_by_bucket", losing)
    with pytest.raises(DataError, match=r"source\.users: its pieces: 7 of 8 came"):
        of_joins(tmp_path)
