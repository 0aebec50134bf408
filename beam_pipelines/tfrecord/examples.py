"""Encodes rows as `tf.train.Example` records, a batch at a time.

A protobuf object per row would cost more than the rest of `prepare`. But within one dataset all
Examples have the same bytes except for their values, if ids are varints of a fixed width (padded
varints are valid protobuf). So rows are copies of a template, filled in column by column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import google_crc32c
import numpy as np
import pyarrow as pa

from tfctr.data.records import CHECKSUM, FRAME, masked

INT64_WIDTH = 10  # bytes of a varint that holds any int64
LENGTH_WIDTH = 5  # bytes of a varint that holds a length, which varies with texts
FEATURES_HEADER = 1 + LENGTH_WIDTH  # tag and length, before an Example's entries
CHUNK = 4096  # rows filled in at a time: few enough for the processor's cache


@dataclass(frozen=True)
class Field:
    """A feature of the Examples: `values` numbers per row, or a text if `values` is 0.

    `width`: bytes of a varint for integers; 0 for floats.
    """

    name: str
    values: int = 1
    width: int = 0

    @classmethod
    def ids(cls, name: str, num_ids: int, values: int = 1) -> "Field":
        """Integers in `[0, num_ids)`."""
        width = 1
        while num_ids > 1 << (7 * width):
            width += 1
        return cls(name, values, width)

    @property
    def is_text(self) -> bool:
        return self.values == 0


def encode(
    fields: Sequence[Field], columns: Mapping[str, np.ndarray | pa.Array]
) -> list[memoryview]:
    """TFRecords of Examples, framed and with checksums, one per row, in order.

    Args:
        fields: of an Example.
        columns: by field name; integers and float32 `[N]` or `[N, values]`, texts Arrow strings
            (null is written as empty).
    """
    numbers = [field for field in fields if not field.is_text]
    texts = [field for field in fields if field.is_text]
    arrays = [_little_endian(field, np.asarray(columns[field.name])) for field in numbers]
    strings = [columns[field.name] for field in texts]
    num_rows = len(columns[fields[0].name])
    return [
        _encode_chunk(
            numbers,
            [array[start : start + CHUNK] for array in arrays],
            texts,
            [string[start : start + CHUNK] for string in strings],
        )
        for start in range(0, num_rows, CHUNK)
    ]


def layout(fields: Sequence[Field]) -> dict[str, object]:
    """The bytes of the numbers in every Example, for `tfctr.data.packed.Packed`."""
    numbers = [field for field in fields if not field.is_text]
    head, offsets = _head(numbers)
    places = {
        field.name: {"offset": offset, "values": field.values, "width": field.width}
        for field, offset in zip(numbers, offsets, strict=True)
    }
    return {"head": head.hex(), "fields": places}


def _encode_chunk(
    numbers: Sequence[Field],
    arrays: Sequence[np.ndarray],
    texts: Sequence[Field],
    strings: Sequence[pa.Array],
) -> memoryview:
    num_rows = len(arrays[0]) if arrays else len(strings[0])
    bodies = [_text_bytes(string) for string in strings]
    text_headers = [
        _text_header(field, lengths) for field, (_, lengths) in zip(texts, bodies, strict=True)
    ]
    template, offsets = _head(numbers)
    head = np.tile(np.frombuffer(bytes(FRAME) + template, np.uint8), (num_rows, 1))
    for field, array, offset in zip(numbers, arrays, offsets, strict=True):
        start = FRAME + offset
        _fill(head[:, start : start + _payload(field)], field, array)
    size = np.full(num_rows, len(template) - FEATURES_HEADER)
    for header, (_, lengths) in zip(text_headers, bodies, strict=True):
        size += header.shape[1] + lengths
    _fill_varint(head[:, FRAME + 1 : FRAME + FEATURES_HEADER], size)
    size += FEATURES_HEADER
    head[:, :8] = size.astype("<u8").view(np.uint8).reshape(num_rows, 8)
    head[:, 8:FRAME] = _length_checksums(size)
    return _assemble(head, text_headers, bodies, size)


def _assemble(
    head: np.ndarray,
    text_headers: list[np.ndarray],
    bodies: list[tuple[np.ndarray, np.ndarray]],
    size: np.ndarray,
) -> memoryview:
    """Assembles rows: head, then each text's header and bytes, then the checksum."""
    starts = np.concatenate([[0], np.cumsum(size + FRAME + CHECKSUM)])
    out = np.empty(starts[-1], np.uint8)
    if not bodies:  # all rows have the same length
        out.reshape(len(size), -1)[:, : head.shape[1]] = head
    else:
        place = starts[:-1].copy()
        out[place[:, None] + np.arange(head.shape[1])] = head
        place += head.shape[1]
        for header, (body, lengths) in zip(text_headers, bodies, strict=True):
            out[place[:, None] + np.arange(header.shape[1])] = header
            place += header.shape[1]
            shift = np.repeat(place - (np.cumsum(lengths) - lengths), lengths)
            out[shift + np.arange(len(body))] = body
            place += lengths
    content = out.tobytes()  # the checksum needs bytes
    checksum = google_crc32c.value
    edges = starts.tolist()
    crcs = [checksum(content[a + FRAME : b - CHECKSUM]) for a, b in pairwise(edges)]
    checksums = masked(np.array(crcs, dtype=np.uint32)).view(np.uint8).reshape(-1, CHECKSUM)
    out[starts[1:, None] - CHECKSUM + np.arange(CHECKSUM)] = checksums
    return out.data


def _head(numbers: Sequence[Field]) -> tuple[bytes, list[int]]:
    """An Example before its texts, with zeros for length and values, and the offsets of values."""
    head, offsets = b"\x0a" + bytes(LENGTH_WIDTH), []  # Example { features, a message: entries }
    for field in numbers:
        entry, offset = _number_entry(field)
        offsets.append(len(head) + offset)
        head += entry
    return head, offsets


def _payload(field: Field) -> int:
    """Number of bytes of a row's values."""
    return field.values * (field.width or 4)


def _number_entry(field: Field) -> tuple[bytes, int]:
    """Features.feature { key: name, value: ... } with zeros for values, and their offset."""
    payload = _payload(field)
    packed = _tag(1, payload)  # Int64List.value or FloatList.value, packed
    kind = _tag(3 if field.width else 2, len(packed) + payload)  # Feature.int64_list, .float_list
    key = field.name.encode()
    value = _tag(2, len(kind) + len(packed) + payload) + kind + packed
    inside = _tag(1, len(key)) + key + value
    header = _tag(1, len(inside) + payload) + inside
    return header + bytes(payload), len(header)


def _text_header(field: Field, lengths: np.ndarray) -> np.ndarray:
    """The header of each row's text: uint8 `[N, bytes]`, with lengths as padded varints."""
    key = _tag(1, len(field.name.encode())) + field.name.encode()
    step = 1 + LENGTH_WIDTH  # a tag and a length
    blank = bytes(LENGTH_WIDTH)
    # Features.feature { key, value: Feature { bytes_list { value: text } } }
    template = b"\x0a" + blank + key + b"\x12" + blank + b"\x0a" + blank + b"\x0a" + blank
    header = np.tile(np.frombuffer(template, np.uint8), (len(lengths), 1))
    _fill_varint(header[:, 1:step], lengths + len(key) + 3 * step)
    for behind in (2, 1, 0):
        end = header.shape[1] - behind * step
        _fill_varint(header[:, end - LENGTH_WIDTH : end], lengths + behind * step)
    return header


def _text_bytes(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """All bytes one after another, and the length of each row's."""
    flat = texts.fill_null("").cast(pa.large_binary())
    offsets = np.frombuffer(flat.buffers()[1], np.int64)[flat.offset : flat.offset + len(flat) + 1]
    content = np.frombuffer(flat.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    return content, np.diff(offsets)


def _little_endian(field: Field, values: np.ndarray) -> np.ndarray:
    """`[N, values]` as the type that is written."""
    values = values.reshape(len(values), field.values)
    if not field.width:
        return np.ascontiguousarray(values, "<f4")
    # 64-bit shifts cost twice as much as 32-bit ones, and nearly all ids fit 32 bits.
    if field.width < 5:
        return values.astype(np.uint32, copy=False)
    return values.astype(np.int64).view(np.uint64)


def _fill(columns: np.ndarray, field: Field, values: np.ndarray) -> None:
    """Writes values `[N, values]` into their columns `[N, bytes]`."""
    if not field.width:
        columns[:] = values.view(np.uint8)
        return
    _fill_varint(columns.reshape(*values.shape, field.width), values)  # a view


def _fill_varint(columns: np.ndarray, values: np.ndarray) -> None:
    """Writes padded varints `[..., bytes]`: all bytes but the last have the continuation bit."""
    width = columns.shape[-1]
    kind = values.dtype.type
    for i in range(width):
        digit = (values >> kind(7 * i)) & kind(127)
        columns[..., i] = digit if i == width - 1 else digit | kind(128)


def _tag(number: int, size: int) -> bytes:
    """Tag and length of a field of bytes."""
    length = b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size])


def _length_checksums(sizes: np.ndarray) -> np.ndarray:
    distinct, inverse = np.unique(sizes, return_inverse=True)
    packed = distinct.astype("<u8")
    crcs = np.array([google_crc32c.value(size.tobytes()) for size in packed], dtype=np.uint32)
    return masked(crcs).view(np.uint8).reshape(-1, CHECKSUM)[inverse]
