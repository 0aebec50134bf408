"""Public data sets: found in the data folder or downloaded into it, and verified.

MovieLens is free for research but must not be redistributed without permission; its licence is the
README inside each archive.
"""

import hashlib
import logging
import os
import pathlib
import zipfile
import zlib
from typing import NamedTuple

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30
LICENCE = "MovieLens is for research; its licence forbids redistribution (see the README inside)."


class DownloadError(RuntimeError):
    """A data set that cannot be found or downloaded; the message names a way out."""


class Archive(NamedTuple):
    file: str
    url: str
    members: dict[str, str]  # path inside the zip: sha256 of its bytes


# Checksums are of the files inside, so that a re-packed archive passes too; pooch, which fetches,
# could compare the archive's alone.
ARCHIVES = {
    "movielens-1m": Archive(
        "ml-1m.zip",
        "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
        {
            "ml-1m/README": "2d5ddce86ccbd247207456165827b4b9ddf27282bca93807d4c763e28414f133",
            "ml-1m/movies.dat": "0140fc2356357c1a851d0f52e893a1e4d3696df632c4141cea8d5bc3d621f0b9",
            "ml-1m/ratings.dat": "506d64ca44484487c11dc2d9a28de5c54948213e6b96285e298afe28d6ea4e0f",
            "ml-1m/users.dat": "1dc3a95300cb19f7c10e027daf29b8cdf1d908dab65b5edfb45950aa389a10a3",
        },
    ),
    "movielens-100k": Archive(
        "ml-100k.zip",
        "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
        {
            "ml-100k/README": "4883b8cf340ed0059971b33f56ad3adc88a40792108ebca3d24aafc4c82e8b52",
            "ml-100k/u.data": "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
            "ml-100k/u.genre": "9757e0d3e6b298159a80dd48eaf938114690e911e39af97a76949ef1663610bb",
            "ml-100k/u.info": "5b0a40b2e47a729ee6203063f6dcf8790c2e63f5a18663e6ee318a72c5f3c27b",
            "ml-100k/u.item": "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
            "ml-100k/u.occupation": (
                "cd5fbec9afe345d993a62fc7817df1a4a9079c4feb267b3118763b8fd942137d"
            ),
            "ml-100k/u.user": "f120e114da2e8cf314fd28f99417c94ae9ddf1cb6db8ce0e4b5995d40e90e62c",
        },
    ),
}


def download(name: str, directory: pathlib.Path | None = None) -> pathlib.Path:
    """The verified zip archive of a public data set.

    An archive that is already in the folder is used; else it is downloaded, under a temporary name
    until it is verified. MovieLens forbids redistribution: keep the archive to yourself.

    Args:
        name: "movielens-1m" or "movielens-100k".
        directory: the folder to look in and to keep the archive in. Defaults to `data_home()`.

    Returns:
        The path of the archive.

    Raises:
        ValueError: an unknown name.
        DownloadError: the archive cannot be downloaded, or is not the published one.
    """
    if name not in ARCHIVES:
        raise ValueError(f"No data set of that name; known: {sorted(ARCHIVES)}. Received: {name!r}")
    from tfctr.config import data_home  # here: the command's help reads this file's names

    archive = ARCHIVES[name]
    directory = data_home() if directory is None else pathlib.Path(directory)
    path = directory / archive.file
    if path.exists():
        _verify(path, archive, f"Delete {path} to have it fetched again.")
    else:
        _fetch(archive, path)
    logger.info("%s: %s", path, LICENCE)
    return path


def _fetch(archive: Archive, path: pathlib.Path) -> None:
    import pooch  # here: the client image has the command, but not pooch

    from tfctr.config import HOME_VARIABLE

    remedy = (
        f"Put the archive at {path}, or set {HOME_VARIABLE} to a folder that holds {archive.file}."
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            fetch = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT_SECONDS)
            fetch(archive.url, str(partial), None)
            _verify(partial, archive, f"It came from {archive.url}. {remedy}")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise DownloadError(
            f"Could not fetch {archive.url} to {path}: {error}. {remedy}"
        ) from error


def _verify(path: pathlib.Path, archive: Archive, remedy: str) -> None:
    """Checks that every known member has its published checksum."""
    try:
        with zipfile.ZipFile(path) as opened:
            names = set(opened.namelist())
            for member, expected in archive.members.items():
                if member not in names:
                    raise DownloadError(f"{path}: no file {member} inside. {remedy}")
                found = hashlib.sha256(opened.read(member)).hexdigest()
                if found != expected:
                    raise DownloadError(
                        f"{path}: {member} is not the published file. "
                        f"Expected sha256 {expected}, found {found}. {remedy}"
                    )
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DownloadError(f"{path}: not a readable zip archive ({error}). {remedy}") from error
