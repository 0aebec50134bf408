"""Beam's runner loses what is written while its timer empties a buffer; our jobs have no timer."""

import gc
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.worker import data_plane

from beam_pipelines.running import job
from beam_pipelines.running.flush_timer import LIMIT, turn_off_flush_timer
from tfctr.config import ConfigError

PROCESSES = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
LOOPBACK = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]


def test_what_is_written_while_the_timer_empties_a_buffer_is_lost() -> None:
    """The race itself, in Beam alone, in the order in which it is lost.

    Where this fails, Beam has mended it, and `flush_timer` can go.
    """
    sent: list[bytes] = []

    def send(content: bytes) -> None:
        sent.append(content)
        if len(sent) == 1:
            stream.write(b"during")  # as the other thread does, which takes no lock

    stream: Any = data_plane.ClosableOutputStream.create(sent.append, send, 3_600_000)
    assert isinstance(stream, data_plane.TimeBasedBufferingClosableOutputStream)
    stream.write(b"before")
    stream.flush()  # what the timer's thread calls
    stream.write(b"after")
    stream.close()
    assert b"".join(sent) == b"beforeafter"


class Streams(beam.PTransform):
    """How many buffers with a timer, and how many without, there are where elements are read."""

    def expand(self, pipeline: Any) -> beam.PCollection:
        return (
            pipeline
            | beam.Create(range(20))
            | beam.Map(lambda i: (i % 5, i))
            | beam.GroupByKey()
            | beam.Map(_count_streams)
            | beam.combiners.ToList()
            | beam.Map(lambda counts: {"counts": counts})
        )


def _count_streams(_: Any) -> list[int]:
    kinds = (
        data_plane.TimeBasedBufferingClosableOutputStream,
        data_plane.SizeBasedBufferingClosableOutputStream,
    )
    return [sum(type(found) is kind for found in gc.get_objects()) for kind in kinds]


@pytest.mark.parametrize("beam_args", [PROCESSES, LOOPBACK], ids=["processes", "job server"])
def test_no_job_has_the_timer(
    beam_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_handlers, LIMIT, 1)  # as bad as can be, if nobody turned it off
    limits, create = [], data_plane.ClosableOutputStream.create

    def watched(close: Any, flush: Any, limit: int) -> Any:
        limits.append(limit)
        return create(close, flush, limit)

    monkeypatch.setattr(data_plane.ClosableOutputStream, "create", staticmethod(watched))
    found = job.run(Streams(), "streams", "test", str(tmp_path), beam_args)["counts"]
    assert len(found) == 5
    assert limits  # the runner's own, in this process
    assert set(limits) == {0}
    assert all(with_timer == 0 and without > 0 for with_timer, without in found)


def test_the_timer_is_refused_for_workers(tmp_path: Path) -> None:
    option = "--experiments=data_buffer_time_limit_ms=1000"
    with pytest.raises(ConfigError, match=r"data_buffer_time_limit_ms=1000': .* leave it out"):
        job.run(Streams(), "streams", "test", str(tmp_path), [option])


def test_a_beam_that_keeps_the_limit_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(worker_handlers, LIMIT)
    with pytest.raises(ConfigError, match=f"apache-beam {beam.__version__} has no .*{LIMIT}"):
        turn_off_flush_timer()
