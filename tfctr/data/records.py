"""Reads the numbers of a shard as NumPy columns, without TensorFlow, for batch jobs.

All Examples of a dataset have one layout, which the manifest holds
(`beam_pipelines.tfrecord.examples`): a field's values are at the same bytes in each.
"""

import struct
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import google_crc32c
import numpy as np

from tfctr.data import files
from tfctr.data.manifest import DataError

FRAME = 12  # bytes before a record: its length, and a checksum of the length
CHECKSUM = 4  # bytes after a record
CHUNK = 4096  # rows decoded at a time: few enough for the processor's cache
PREPARE = "run `tfctr prepare` again"


def read_columns(
    path: str, layout: Mapping[str, Any], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Columns of all records of a shard, in order: int64 or float32 `[N, values]` by field name.

    Args:
        path: of a TFRecord file, also with gzip (`.gz`).
        layout: of the manifest.
        names: the fields to read.

    Raises:
        DataError: the file is cut off or damaged, or its records have another layout.
    """
    content = files.read(path)
    starts = _starts(content, path)
    head = np.frombuffer(bytes.fromhex(layout["head"]), np.uint8)
    constant = constant_places(layout)
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    windows = None
    if len(content) >= len(head):
        windows = np.lib.stride_tricks.sliding_window_view(
            np.frombuffer(content, np.uint8), len(head)
        )
    for first in range(0, len(starts), CHUNK):
        chosen = starts[first : first + CHUNK]
        if windows is None or chosen[-1] >= len(windows):
            raise DataError(f"{path}: records are shorter than the manifest says; {PREPARE}")
        rows = windows[chosen]
        if not (rows[:, constant] == head[constant]).all():
            raise DataError(
                f"{path}: a record has another layout than the manifest says; {PREPARE}"
            )
        for name in names:
            found[name].append(_values(rows, layout["fields"][name]))
    return {
        name: np.concatenate(parts) if parts else _values(head[None, :][:0], layout["fields"][name])
        for name, parts in found.items()
    }


def read_texts(path: str, layout: Mapping[str, Any], names: Sequence[str]) -> dict[str, list[str]]:
    """The texts of all records of a shard, in order: `[N]` by field name.

    Args:
        path: as for `read_columns`; the errors are the same.
        layout: of the manifest.
        names: all text fields of a record, in order.
    """
    content = files.read(path)
    found: dict[str, list[str]] = {name: [] for name in names}
    for start in _starts(content, path):
        place = start + len(layout["head"]) // 2
        for name in names:
            # Four tags with a length of 5 bytes each; the name is in the second of five parts.
            place += 4 * 6 + 2 + len(name.encode())
            size = 0
            for i, digit in enumerate(content[place - 5 : place]):
                size |= (digit & 127) << (7 * i)
            found[name].append(content[place : place + size].decode())
            place += size
    return found


def constant_places(layout: Mapping[str, Any]) -> list[int]:
    """The bytes of an Example's head that are equal in all Examples: no lengths, no values."""
    constant = [True] * (len(layout["head"]) // 2)
    for field in layout["fields"].values():
        size = field["values"] * (field["width"] or 4)
        constant[field["offset"] : field["offset"] + size] = [False] * size
    constant[1:6] = [False] * 5  # the length, which varies with texts
    return [i for i, is_constant in enumerate(constant) if is_constant]


def masked(checksums: np.ndarray) -> np.ndarray:
    """TFRecord's masking of a checksum (CRC-32C, uint32)."""
    return (((checksums >> 15) | (checksums << 17)) + np.uint32(0xA282EAD8)).astype("<u4")


def _starts(content: bytes, path: str) -> np.ndarray:
    """The starts of the records; verifies their checksums."""
    edges, place = [0], 0
    while place + FRAME <= len(content):
        place += FRAME + struct.unpack_from("<Q", content, place)[0] + CHECKSUM
        edges.append(place)
    if place != len(content):
        last = len(edges) - 1 - (place > len(content))
        raise DataError(f"{path}: cut off or damaged at record {last:,}; {PREPARE}")
    starts = np.array(edges[:-1], np.int64) + FRAME
    checksum = google_crc32c.value
    computed = [checksum(content[a + FRAME : b - CHECKSUM]) for a, b in pairwise(edges)]
    stored = [content[b - CHECKSUM : b] for b in edges[1:]]
    differ = masked(np.array(computed, np.uint32)) != np.frombuffer(b"".join(stored), "<u4")
    if differ.any():
        first = int(np.flatnonzero(differ)[0])
        raise DataError(f"{path}: record {first:,} is damaged: its checksum differs; {PREPARE}")
    return starts


def _values(rows: np.ndarray, field: Mapping[str, int]) -> np.ndarray:
    """`[N, values]` of Examples' heads uint8 `[N, bytes]`."""
    values, width = field["values"], field["width"]
    part = rows[:, field["offset"] : field["offset"] + values * (width or 4)]
    if not width:
        return np.ascontiguousarray(part).view("<f4")
    digits = part.reshape(len(rows), values, width)
    kind: Any = np.uint32 if width < 5 else np.uint64
    found = np.zeros((len(rows), values), kind)
    for i in range(width):
        found |= (digits[:, :, i] & 127).astype(kind) << kind(7 * i)
    return found.astype(np.int64) if width < 5 else found.view(np.int64)
