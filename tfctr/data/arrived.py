"""Whether all that was sent has arrived."""

from tfctr.data.manifest import DataError


def check_arrived(what: str, came: int, sent: int) -> None:
    """Does nothing where all came, and came once, that was sent from one step to another.

    Beam's own runner was seen to lose elements without an error, and Dask's to repeat them. The
    causes are known and turned off (`flush_timer`, `dask_bundles`); a count is cheap, and runners
    are many.

    Raises:
        DataError: some did not come, or came more than once.
    """
    if came != sent:
        fault = "lost the others" if came < sent else "repeated some"
        raise DataError(
            f"{what}: {came:,} of {sent:,} came; the runner {fault}. Run it again, or on another "
            "runner"
        )
