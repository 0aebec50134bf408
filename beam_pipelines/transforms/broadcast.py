"""Passes values to every element of a collection, without side inputs.

On Dask (Beam 2.77) each access to a side input computes its whole input again, and within one
process its second and later values have elements twice (`docs/upstream/beam-dask-side-inputs.md`).
Beam's own `CombineGlobally`, `Count.Globally` and `ToList` use side inputs, so no job uses them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam

from tfctr.data.arrived import check_arrived


class Broadcast(beam.PTransform):
    """`(elements, {name: values})` -> `(element, {name: list of all its values})`.

    Elements are `(index, element)`, one for each index of `range(number)`. Each value is copied to
    each index, so values must be small; pass the path of a large one. Lists have no order.

    Args:
        what: the name of an element in errors.
        number: int. Number of elements.
        sizes: name -> its number of values, if known.

    Raises:
        DataError: elements or values are missing.
    """

    def __init__(self, what: str, number: int, **sizes: int) -> None:
        super().__init__()
        self.what = what
        self.number = number
        self.sizes = sizes

    def expand(self, inputs: Any) -> beam.PCollection:
        elements, values = inputs
        named = [
            elements | "Name" >> beam.Map(_named),
            *(
                found | f"Copy {name}" >> beam.FlatMap(_copies, name, self.number)
                for name, found in values.items()
            ),
        ]
        return (
            named
            | "Meet" >> beam.Flatten()
            | "Group" >> beam.GroupByKey()  # one: `CoGroupByKey` would add two steps an input
            | "Check" >> beam.Map(_check, self.what, [*values], self.sizes)
        )


ELEMENT = ""  # the elements' own name


class ToPieces(beam.PTransform):
    """`(pieces, {name: values})` -> `(piece, {name: list of all its values})`: a `Broadcast`.

    Args:
        number: int. Number of pieces.
        sizes: as for `Broadcast`.
    """

    def __init__(self, number: int, **sizes: int) -> None:
        super().__init__()
        self.number = number
        self.sizes = sizes

    def expand(self, inputs: Any) -> beam.PCollection:
        pieces, values = inputs
        indexed = pieces | "Index" >> beam.Map(by_index)
        return (indexed, values) | "Broadcast" >> Broadcast("piece", self.number, **self.sizes)


def by_index(piece: Any) -> tuple[int, Any]:
    """A piece with its index, for a join."""
    return piece.index, piece


def _named(indexed: tuple[int, Any]) -> tuple[int, tuple[str, Any]]:
    index, element = indexed
    return index, (ELEMENT, element)


def _copies(value: Any, name: str, number: int) -> Iterator[tuple[int, tuple[str, Any]]]:
    for index in range(number):
        yield index, (name, value)


def _check(
    group: tuple[int, Iterable[tuple[str, Any]]],
    what: str,
    names: Sequence[str],
    sizes: Mapping[str, int],
) -> tuple[Any, dict[str, list[Any]]]:
    index, found = group
    values: dict[str, list[Any]] = {name: [] for name in (ELEMENT, *names)}
    for name, value in found:
        values[name].append(value)
    check_arrived(f"{what} {index}", len(values[ELEMENT]), 1)
    (element,) = values.pop(ELEMENT)
    return element, _all_came(values, sizes, f"{what} {index}: ")


def _all_came(
    values: dict[str, list[Any]], sizes: Mapping[str, int], of: str = ""
) -> dict[str, list[Any]]:
    for name, size in sizes.items():
        check_arrived(f"{of}{name}", len(values[name]), size)
    return values


class Gather(beam.PTransform):
    """`{name: values}` -> one dict: name -> a list of all its values, in no order.

    It returns the dict even without values.

    Args:
        sizes: as for `Broadcast`.
    """

    def __init__(self, **sizes: int) -> None:
        super().__init__()
        self.sizes = sizes

    def expand(self, values: Any) -> beam.PCollection:
        pipeline = next(iter(values.values())).pipeline
        once = pipeline | "Once" >> beam.Create([(0, None)])
        return (
            (once, values)
            | "Broadcast" >> Broadcast("the only element", 1)
            | "Values" >> beam.Values()
            | "Check" >> beam.Map(_all_came, self.sizes)
        )
