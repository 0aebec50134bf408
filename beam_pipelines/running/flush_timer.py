"""Turns off the timer that makes Beam's own runner lose elements.

The runner sends elements to a worker in another process through a buffer (Beam 2.77,
`TimeBasedBufferingClosableOutputStream`), and a thread empties the buffer every second: it takes
the content, sends it, and clears the buffer. Writing takes no lock, so elements that are written in
between are cleared unsent, without an error. Without the timer the writing thread sends the buffer
when it is full and at the end of a bundle (docs/upstream/beam-data-plane.md).
"""

from collections.abc import Sequence

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import worker_handlers

from tfctr.config import ConfigError

LIMIT = "DATA_BUFFER_TIME_LIMIT_MS"  # of `worker_handlers`; 0: no timer
OPTION = "data_buffer_time_limit_ms"  # of workers, an experiment of Beam's


def turn_off_flush_timer(beam_args: Sequence[str] = ()) -> None:
    """Makes runners in this process send by size only, also an embedded job server's.

    Workers have no timer unless an option asks for it.

    Args:
        beam_args: Beam's pipeline options.

    Raises:
        ConfigError: the options ask for the workers' timer; this Beam has the limit elsewhere.
    """
    for arg in beam_args:
        name, _, value = arg.rpartition("=")
        if name.endswith(OPTION) and value != "0":
            raise ConfigError(
                f"found Beam's option {arg!r}: with it workers lose elements; leave it out"
            )
    if not hasattr(worker_handlers, LIMIT):
        raise ConfigError(
            f"apache-beam {beam.__version__} has no worker_handlers.{LIMIT}, so its runner can't "
            "be kept from losing elements; install 2.77"
        )
    setattr(worker_handlers, LIMIT, 0)
