"""Beam's Dask runner repeats elements; our jobs on it do not."""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from tfctr.config import ConfigError
from tfctr.data.arrived import check_arrived
from tfctr.data.manifest import DataError


def test_what_comes_twice_is_said_to_be_repeated() -> None:
    with pytest.raises(DataError, match="rows: 1,024 of 512 came; the runner repeated some"):
        check_arrived("rows", 1024, 512)


def test_bundles_on_dask_that_share_a_receiver_repeat_elements() -> None:
    """Beam's fault. Where this is skipped, `beam_pipelines.running.dask_bundles` can go."""
    found = outputs_of_two_bundles("_apply")
    if found == [[1], [2]]:
        pytest.skip(f"Beam {beam.__version__} repeats nothing")
    assert found == [[1], [1, 2]]


def test_bundles_of_our_jobs_on_dask_share_none() -> None:
    assert outputs_of_two_bundles("apply_to_bundle") == [[1], [2]]


class Sum(beam.DoFn):
    """The sum of a bundle, when it ends."""

    def start_bundle(self) -> None:
        self.sum = 0

    def process(self, element: int) -> None:
        self.sum += element

    def finish_bundle(self) -> Iterator[WindowedValue]:
        yield WindowedValue(self.sum, MIN_TIMESTAMP, (GlobalWindow(),))


def test_what_a_bundle_gives_at_its_end_is_not_lost() -> None:
    assert outputs_of_two_bundles("apply_to_bundle", beam.ParDo(Sum())) == [[1], [2]]


def outputs_of_two_bundles(function: str, step: Any = None) -> list[list[int]]:
    """Of 1 and 2, by a function of `dask_bundles`, as a worker calls it that gets both bundles at
    once. The step's outputs are its inputs by default."""
    pytest.importorskip("distributed")
    import dask.bag
    from apache_beam.runners.dask import transform_evaluator

    from beam_pipelines.running import dask_bundles

    pipeline = beam.Pipeline()
    step = step or beam.Map(lambda element: element)
    _ = pipeline | beam.Create([1, 2]) | step
    steps = pipeline.transforms_stack[0].parts
    (applied,) = (part for part in steps if part.transform is step)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            transform_evaluator, "apply_dofn_to_bundle", getattr(dask_bundles, function)
        )
        bag = dask.bag.from_sequence([1, 2], npartitions=2)
        outputs = transform_evaluator.ParDo(applied).apply(bag)
    return [part.compute(scheduler="synchronous") for part in outputs.to_delayed()]


def test_a_dask_runner_of_another_beam_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    from beam_pipelines.running import dask_bundles

    monkeypatch.setattr(dask_bundles, "_apply", lambda bundle: bundle)
    with pytest.raises(ConfigError, match=r"apache-beam [\d.]+ has another .*transform_evaluator"):
        dask_bundles.install()
