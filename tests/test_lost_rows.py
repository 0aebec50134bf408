"""A runner that loses elements between two steps, without an error, is found out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beam_pipelines import clean, fit, histories, join, retrieve, shards, split
from beam_pipelines.prepare import prepare
from tests import test_retrieve
from tests.test_join import in_row_groups
from tests.test_prepare import WORLD, config
from tfctr.data.manifest import DataError


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
        patched.setattr(clean, "LARGE_TABLE", -1)
        return of_histories(folder)


def of_user_times(folder: Path) -> Any:
    return prepare(config(folder, **WORLD), str(folder / "data"))


def of_searches(folder: Path) -> Any:
    prepare(test_retrieve.small_world(), str(folder / "data"))
    return retrieve.retrieve(test_retrieve.config(), str(folder / "data"), str(folder / "similar"))


def of_searches_in_parts(folder: Path) -> Any:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(retrieve, "INDEX_ROWS", 500)
        return of_searches(folder)


def any_element(_: Any) -> bool:
    return True


def of_a_key(element: Any) -> bool:
    return bool(element[0] != join.TABLE)


@pytest.mark.parametrize(
    ("run", "module", "step", "is_lost", "says"),
    [
        (of_joins, join, "_rows_by_bucket", of_a_key, r"source\.users: its rows"),
        (of_joins, join, "_keys_by_bucket", any_element, "rows for piece 0 of the events"),
        (of_joins, join, "_find_rows", of_a_key, r"rows for piece \d of the events"),
        (of_histories, histories, "_by_user_bucket", any_element, "examples with their past"),
        (of_histories, fit, "_count_tokens", any_element, "vocabulary user_id: counts of pieces"),
        (of_histories, fit, "_numbers", any_element, "feature age: moments of pieces"),
        (of_histories, shards, "_write_piece", any_element, "good rows"),
        (of_user_times, split, "_by_user_bucket", any_element, "rows with their split"),
        (of_searches, retrieve, "_search", any_element, "similar: shards"),
        (of_searches_in_parts, retrieve, "_search", any_element, "parts of the pool"),
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


def test_a_piece_of_a_table_that_is_lost_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = join._rows_by_bucket

    def losing(piece: Any, *more: Any) -> Iterator[Any]:
        if piece.index != 1:
            yield from whole(piece, *more)

    monkeypatch.setattr(join, "_rows_by_bucket", losing)
    with pytest.raises(DataError, match=r"source\.users: its pieces: 7 of 8 came"):
        of_joins(tmp_path)
