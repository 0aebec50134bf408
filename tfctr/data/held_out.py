"""Tokens without training rows, to measure a model on tokens that it has never seen."""

import glob

import numpy as np
import pyarrow as pa

from tfctr.config import HoldOut
from tfctr.data import files
from tfctr.data.fingerprint import chances, row_keys
from tfctr.data.typed_rows import ROW

FOLDER = "held_out"  # of a dataset directory: the rows left out, a file for each piece of the log


def is_held_out(tokens: pa.Array, hold_out: HoldOut) -> np.ndarray:
    """bool `[N]`: which tokens are held out.

    A hash of the token and the seed decides, so the choice does not depend on other rows. A missing
    value is never held out.

    Args:
        tokens: string (or dictionary codes of strings) or int64 `[N]`.
        hold_out: the share and the seed.
    """
    chance = chances(row_keys(tokens), hold_out.seed)
    return (chance < hold_out.share) & tokens.is_valid().to_numpy(zero_copy_only=False)


def write_left_out(folder: str, piece: int, rows: np.ndarray) -> None:
    """Writes the ids int64 `[N]` of the rows of a piece that are left out, for `left_out_rows`."""
    files.write_arrays(f"{folder}/{FOLDER}/part-{piece:05d}.npz", {ROW: rows})


def left_out_rows(folder: str) -> np.ndarray:
    """The ids int64 `[N]` of all rows of held-out tokens that a dataset left out."""
    paths = files.matching(f"{glob.escape(folder)}/{FOLDER}/*.npz")
    parts = [files.read_arrays(path)[ROW] for path in paths]
    return np.concatenate([np.zeros(0, np.int64), *parts])
