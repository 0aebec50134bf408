"""Fits the factor model of items to groups of users, a step at a time, and finds similar items."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from beam_pipelines.transforms.broadcast import Gather
from beam_pipelines.transforms.graded_events import read_users
from tfctr.data import files
from tfctr.data.arrived import check_arrived
from tfctr.frameworks.statistics import factor_model, neighbours
from tfctr.frameworks.statistics.config import ALL_USERS, POPULATIONS
from tfctr.frameworks.statistics.factor_model import Factors, Sums

BLOCK = 1 << 12  # items whose parameters are computed together
HELD = 1 << 27  # bytes of sums that a worker holds before it writes them
Key = tuple[int, int]  # population, block of items
NEAREST = ("items", "neighbours", "similarities")  # arrays of a block, of each population


class Fit(beam.PTransform):
    """Nothing -> one dict: the paths of blocks of items' neighbours, if they are asked for.

    A step of expectation maximisation reads every group of users; it waits for the file with the
    parameters of the step before. All steps are one pipeline, as workers take seconds to start.

    Args:
        groups: paths of groups of users.
        events: int. Events in them.
        grades: float `[G]`. The value of each grade's id.
        states: paths of the parameters, of the first ones and of those after each step.
        similar: what follows the last step, if anything does.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[str]],
        events: int,
        grades: np.ndarray,
        states: Sequence[str],
        similar: "Similar | None",
    ) -> None:
        super().__init__()
        self.groups = groups
        self.events = events
        self.grades = grades
        self.states = states
        self.similar = similar

    def expand(self, pipeline: Any) -> beam.PCollection:
        groups = pipeline | "Groups" >> beam.Create([*enumerate(self.groups)])
        numbers = range(len(self.groups))
        ready = pipeline | "First" >> beam.Create([(number, self.states[0]) for number in numbers])
        for before, after in pairwise(self.states):
            step = Step(before, after, self.grades, self.events, len(self.groups))
            ready = (groups, ready) | PurePath(after).stem.capitalize() >> step
        found = ready | beam.Values() if self.similar is None else (groups, ready) | self.similar
        return {"paths": found} | "Gather" >> Gather()


class Step(beam.PTransform):
    """`(groups, ready)` by number -> `ready` for the next step: the path of its parameters.

    Args:
        before, after: paths of the parameters of the step before, and of those that it writes.
        grades: float `[G]`.
        events: int. Events of all groups.
        number: int. Groups.
    """

    def __init__(
        self, before: str, after: str, grades: np.ndarray, events: int, number: int
    ) -> None:
        super().__init__()
        self.before = before
        self.after = after
        self.grades = grades
        self.events = events
        self.number = number

    def expand(self, inputs: Any) -> beam.PCollection:
        return (
            inputs
            | "Meet" >> beam.Flatten()
            | "Wait" >> beam.GroupByKey()
            | "Expect" >> beam.ParDo(_WriteSums(_expect, self.before, self.grades))
            | "Add" >> beam.GroupByKey()
            | "Maximise" >> beam.FlatMap(_maximise, self.before)
            | "Gather" >> beam.GroupByKey()
            | "Write" >> beam.FlatMap(_write, self.before, self.after, self.events, self.number)
        )


class Similar(beam.PTransform):
    """`(groups, ready)` by number -> the paths of blocks of items' neighbours.

    The pairs of all users are those of both halves, each with the means of its own.

    Args:
        state: path of the parameters of the last step.
        grades: float `[G]`.
        num_items: int. Ids of items.
        number: int. Neighbours of an item.
        folder: of the job.
    """

    def __init__(
        self, state: str, grades: np.ndarray, num_items: int, number: int, folder: str
    ) -> None:
        super().__init__()
        self.state = state
        self.grades = grades
        self.num_items = num_items
        self.number = number
        self.folder = folder

    def expand(self, inputs: Any) -> beam.PCollection:
        return (
            inputs
            | "Meet" >> beam.Flatten()
            | "Wait" >> beam.GroupByKey()
            | "Pair" >> beam.ParDo(_WriteSums(_pairs, self.state, self.grades))
            | "Gather" >> beam.GroupByKey()
            | "Write" >> beam.Map(_write_nearest, self.num_items, self.number, self.folder)
        )


class _WriteSums(beam.DoFn):
    """Groups of users -> `(block of items, (population, path))`: the file has the sums of several
    groups. Sums are hundreds of megabytes, which files carry faster than elements.

    Args:
        compute: a group's paths, models, grades -> `(population, block), Sums`.
        state: path of the models' parameters; the files are written to a folder beside it.
        grades: float `[G]`.
    """

    def __init__(
        self, compute: Callable[..., Iterator[tuple[Key, Sums]]], state: str, grades: np.ndarray
    ) -> None:
        self.compute = compute
        self.state = state
        self.grades = grades

    def start_bundle(self) -> None:
        self.found: dict[Key, Sums] = {}

    def process(self, group: tuple[int, Iterable[Any]]) -> Iterator[tuple[int, Any]]:
        paths = _paths(group)  # before the parameters: it sees whether they are there
        models = read_state(self.state)
        for key, sums in self.compute(paths, models, self.grades):
            self.found[key] = added([self.found[key], sums]) if key in self.found else sums
            if sum(held.sums.nbytes for held in self.found.values()) > HELD:
                yield from self._write()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for found in self._write():
            yield WindowedValue(found, MIN_TIMESTAMP, (GlobalWindow(),))

    def _write(self) -> Iterator[tuple[int, tuple[int, str]]]:
        if not self.found:
            return
        path = f"{sums_folder(self.state)}/{uuid.uuid4().hex}.npz"
        arrays: dict[str, np.ndarray] = {}
        for key, sums in self.found.items():
            arrays |= dict(zip(_names(*key), (sums.items, sums.sums), strict=True))
        files.write_arrays(path, arrays)
        for population, block in self.found:
            yield block, (population, path)
        self.found = {}


def sums_folder(state: str) -> str:
    """The folder of sums that were made with the parameters at `state`."""
    return state.removesuffix(".npz") + "-sums"


def _names(population: int, block: int) -> list[str]:
    return [f"{name}_{population}_{block}" for name in ("items", "sums")]


def _read_sums(block: int, parts: Iterable[tuple[int, str]]) -> dict[int, Sums]:
    """The sums of a block of items, by population."""
    found: dict[int, list[Sums]] = {}
    for population, path in sorted(parts):
        arrays = files.read_arrays(path, _names(population, block))
        found.setdefault(population, []).append(Sums(*arrays.values()))
    return {population: added(of_files) for population, of_files in found.items()}


def _expect(
    paths: Sequence[str], models: Sequence[Factors], grades: np.ndarray
) -> Iterator[tuple[Key, Sums]]:
    """A group of users -> its sums, by population and block of items."""
    users, half, items, ids = read_users(paths)
    for population, model in enumerate(models):
        chosen = slice(None) if population == ALL_USERS else half == population
        if not len(users[chosen]):
            continue
        sums = factor_model.expected(users[chosen], items[chosen], grades[ids[chosen]], model)
        edges = np.searchsorted(sums.items, np.arange(0, len(model.weights) + BLOCK, BLOCK))
        for block, (start, stop) in enumerate(pairwise(edges)):
            if start < stop:
                part = slice(start, stop)
                yield (population, block), Sums(sums.items[part], sums.sums[part])


def _pairs(
    paths: Sequence[str], models: Sequence[Factors], grades: np.ndarray
) -> Iterator[tuple[Key, Sums]]:
    """A group of users -> sums of pairs of items, by half of the users and block of items."""
    users, half, items, ids = read_users(paths)
    for population in range(ALL_USERS):
        chosen = half == population
        means = models[population].weights[:, 0]
        deviations = grades[ids[chosen]] - means[items[chosen]]
        found = neighbours.pair_sums(users[chosen], items[chosen], deviations, len(means))
        for block, sums in found:
            yield (population, block), sums


def _paths(group: tuple[int, Iterable[Any]]) -> list[str]:
    """The files of a group; the path of the parameters, which it has waited for, came with them."""
    number, parts = group
    found = list(parts)
    check_arrived(f"group {number} and the parameters", len(found), 2)
    paths: list[str] = next(part for part in found if not isinstance(part, str))
    return paths


def added(parts: Iterable[Sums]) -> Sums:
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    items = np.concatenate([part.items for part in parts])
    present, places = np.unique(items, return_inverse=True)
    sums = np.zeros((len(present), parts[0].sums.shape[1]))
    start = 0
    for part in parts:  # an item is once in a part
        stop = start + len(part.items)
        sums[places[start:stop]] += part.sums
        start = stop
    return Sums(present, sums)


def _maximise(
    block: tuple[int, Iterable[tuple[int, str]]], state: str
) -> Iterator[tuple[int, Any]]:
    """A block of items -> its new parameters, by population."""
    for population, sums in _read_sums(*block).items():
        center = f"center_{population}"
        weights, errors = factor_model.maximised(sums, files.read_arrays(state, [center])[center])
        yield 0, (population, sums.items, weights, sums.sums[:, 0], errors)


def _write(
    found: tuple[int, Iterable[Any]], before: str, after: str, events: int, groups: int
) -> Iterator[tuple[int, str]]:
    """Writes the parameters after a step -> their path, for each group."""
    _, blocks = found
    blocks = sorted(blocks, key=lambda block: (block[0], block[1][0]))
    models: list[Factors] = []
    arrays: dict[str, Any] = {}
    for population, model in enumerate(read_state(before)):
        own = [block for block in blocks if block[0] == population]
        counts = np.zeros(len(model.weights))
        if own:
            items, weights, of_items = (np.concatenate([b[i] for b in own]) for i in (1, 2, 3))
            counts[items] = of_items
            errors, mean = sum(block[4] for block in own), model.center[0]
            model = factor_model.combined(len(counts), items, weights, of_items, errors, mean)
        models.append(model)
        arrays[f"counts_{population}"] = counts
    check_arrived("events of the items", int(counts.sum()), events)  # all users' are the last
    write_state(after, models, **arrays)
    files.delete_folder(sums_folder(before))
    for number in range(groups):
        yield number, after


def _write_nearest(
    block: tuple[int, Iterable[tuple[int, str]]], num_items: int, number: int, folder: str
) -> str:
    """Writes items, neighbours and similarities of each population -> the path."""
    halves = _read_sums(*block)
    populations = halves | {ALL_USERS: added([halves[half] for half in sorted(halves)])}
    arrays = {}
    for population, sums in populations.items():
        found = neighbours.nearest(sums, num_items, number)
        for name, values in zip(NEAREST, found, strict=True):
            arrays[f"{name}_{population}"] = values
    path = f"{folder}/blocks/nearest-{block[0]:05d}.npz"
    files.write_arrays(path, arrays)
    return path


def read_state(path: str) -> list[Factors]:
    """The parameters of each population."""
    found = files.read_arrays(path)
    return [
        Factors(found[f"weights_{p}"], float(found[f"noise_{p}"]), found[f"center_{p}"])
        for p in range(POPULATIONS)
    ]


def read_noise(path: str) -> list[float]:
    """The variance of the noise of each population."""
    names = [f"noise_{p}" for p in range(POPULATIONS)]
    return [float(noise) for noise in files.read_arrays(path, names).values()]


def write_state(path: str, models: Sequence[Factors], **more: Any) -> None:
    """Writes what `read_state` reads, and further arrays."""
    arrays: dict[str, Any] = dict(more)
    for population, model in enumerate(models):
        arrays[f"weights_{population}"] = model.weights
        arrays[f"noise_{population}"] = np.float64(model.noise)
        arrays[f"center_{population}"] = model.center
    files.write_arrays(path, arrays)
