"""A worker process of Beam's own runner, which prints nothing of its own.

What it logs goes to the process that runs the job, and from a warning on it is shown there. Beam's
worker prints it as well, down to INFO: a warning at its import gives the root logger a handler.
"""

import logging
import sys

from tfctr.quiet import quieten

if __name__ == "__main__":
    logging.getLogger().addHandler(logging.NullHandler())  # before Beam is imported
    quieten()
    from apache_beam.runners.worker import sdk_worker_main

    # It warns that there is no folder of a container's.
    logging.getLogger(sdk_worker_main.__name__).setLevel(logging.ERROR)
    sdk_worker_main.main(sys.argv)
