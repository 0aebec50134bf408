"""Values for every element of a collection, without a side input."""

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from beam_pipelines.transforms.broadcast import Broadcast, Gather


def in_order(found):
    return {name: sorted(values) for name, values in found.items()}


def run(elements, transform):
    """What comes out of the elements, with one cut and two names."""
    with TestPipeline("FnApiRunner") as pipeline:
        cuts = pipeline | "Cuts" >> beam.Create([[7, 9]])
        names = pipeline | "Names" >> beam.Create(["b", "a"])
        elements = pipeline | "Elements" >> beam.Create(elements)
        found = (elements, {"cuts": cuts, "names": names}) | transform
        found = found | "Sort" >> beam.MapTuple(lambda element, values: (element, in_order(values)))
        values = {"cuts": [[7, 9]], "names": ["a", "b"]}
        assert_that(found, equal_to([("x", values), ("y", values), ("z", values)]))


def test_every_element_gets_all_values():
    run([(2, "z"), (0, "x"), (1, "y")], Broadcast("piece", 3, cuts=1))


@pytest.mark.parametrize(
    ("elements", "sizes", "says"),
    [
        ([(0, "x"), (2, "z")], {}, "piece 1: 0 of 1 came"),
        ([(0, "x"), (1, "y"), (2, "z"), (2, "z")], {}, "piece 2: 2 of 1 came"),
        ([(0, "x"), (1, "y"), (2, "z")], {"names": 3}, r"piece \d: names: 2 of 3 came"),
    ],
)
def test_what_does_not_come_is_an_error(elements, sizes, says):
    with pytest.raises(Exception, match=says):
        run(elements, Broadcast("piece", 3, **sizes))


def test_all_values_in_one_dict():
    with TestPipeline("FnApiRunner") as pipeline:
        some = pipeline | "Some" >> beam.Create([3, 1, 2])
        none = pipeline | "None" >> beam.Create([])
        found = {"some": some, "none": none} | Gather(some=3) | beam.Map(in_order)
        assert_that(found, equal_to([{"some": [1, 2, 3], "none": []}]))


def test_nothing_at_all_is_one_dict_too():
    with TestPipeline("FnApiRunner") as pipeline:
        found = {"none": pipeline | "None" >> beam.Create([])} | Gather()
        assert_that(found, equal_to([{"none": []}]))
