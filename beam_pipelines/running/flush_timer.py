"""Beam's own runner without the timer that makes it lose elements.

The runner sends what it has for a worker in another process through a buffer (Beam 2.77,
`TimeBasedBufferingClosableOutputStream`), and a thread empties it every second: it takes the
content, sends it, and clears the buffer. Writing takes no lock, so what is written between the two
is cleared unsent, without an error. Without the timer a buffer is sent when it is full and at the
end of a bundle, by the thread that writes (docs/upstream/beam-data-plane.md).
"""

from collections.abc import Sequence

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import worker_handlers

from tfctr.config import ConfigError

LIMIT = "DATA_BUFFER_TIME_LIMIT_MS"  # of `worker_handlers`; 0: no timer
OPTION = "data_buffer_time_limit_ms"  # of workers, an experiment of Beam's


def turn_off_flush_timer(beam_args: Sequence[str] = ()) -> None:
    """Makes runners that this process starts send by size alone, an embedded job server's too.

    Workers have no timer unless they are asked to.

    Args:
        beam_args: Beam's pipeline options.

    Raises:
        ConfigError: the options ask workers for the timer; this Beam keeps the limit elsewhere.
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
