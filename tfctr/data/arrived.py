"""Checks that all elements sent between two steps have arrived."""

from tfctr.data.manifest import DataError


def check_arrived(what: str, came: int, sent: int) -> None:
    """Checks that all elements sent from one step to another arrived exactly once.

    Beam's own runner has lost elements without an error, and Dask's has repeated them. Their causes
    are known and worked around (`flush_timer`, `dask_bundles`), but a count is cheap, and there are
    other runners.

    Raises:
        DataError: some are missing, or came more than once.
    """
    if came != sent:
        fault = "lost the others" if came < sent else "repeated some"
        raise DataError(
            f"{what}: {came:,} of {sent:,} came; the runner {fault}. Run it again, or on another "
            "runner"
        )
