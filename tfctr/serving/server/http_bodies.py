"""Reads the body of an HTTP request: of a known length or in chunks, plain or compressed by gzip.

What is accepted is what TF Serving accepts, by its source and that of libevent, its HTTP library.
`http.server` reads neither chunks nor gzip.
"""

import logging
import re
import zlib
from email.message import Message
from io import BufferedIOBase

logger = logging.getLogger(__name__)

_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})( .*)?")
_MAX_LINE = 65_536  # bytes of a chunk's size, or of a trailer
_MAX_DROPPED = 4  # times the limit: bytes that are read of a body that is too long


class BodyError(ValueError):
    """A body that can't be read. The connection must be closed, as some of it may be unread.

    Args:
        status: int, of the HTTP answer.
        why: the message of the answer.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def read_body(stream: BufferedIOBase, headers: Message, limit: int) -> bytes:
    """The body of a POST, uncompressed; empty if its gzip data are damaged, as in the real server.

    Args:
        stream: what follows the headers.
        headers: `Transfer-Encoding`, `Content-Length` and `Content-Encoding` are used.
        limit: int. Most bytes of a body, as it is sent and after uncompressing.

    Raises:
        BodyError: 413, it is too long, or the size of a chunk is no number; 400, its length is no
            number, or missing on a connection that is to be kept.
        ConnectionError: the client went away.
    """
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        body = _read_chunks(stream, limit)
    else:
        length = _length(headers)
        if length > limit:
            _drop(stream, min(length, _MAX_DROPPED * limit))
            raise _too_long(length, limit)
        body = stream.read(length)
    if "gzip" in headers.get("Content-Encoding", ""):
        return _uncompressed(body, limit)
    return body


def _length(headers: Message) -> int:
    """The length that a request gives; without one there is no body."""
    found = headers.get("Content-Length")
    if found is None:
        if headers.get("Connection", "close").lower() == "close":
            return 0
        raise BodyError(400, "Content-Length must be given")
    if not (found.isascii() and found.isdigit()):
        raise BodyError(400, f"Content-Length: found {found[:50]!r}; a number is needed")
    return int(found[:18])


def _read_chunks(stream: BufferedIOBase, limit: int) -> bytes:
    chunks, total = [], 0
    while size := _chunk_size(stream):
        total += size
        if total > _MAX_DROPPED * limit:
            raise _too_long(total, limit)
        if total <= limit:
            chunks.append(stream.read(size))
        else:  # a client that is still sending would not read the answer
            _drop(stream, size)
    while _line(stream):  # trailers
        continue
    if total > limit:
        raise _too_long(total, limit)
    return b"".join(chunks)


def _chunk_size(stream: BufferedIOBase) -> int:
    line = _line(stream) or _line(stream)  # after a chunk comes the end of its line
    found = _CHUNK_SIZE.fullmatch(line)
    if found is None:
        raise BodyError(413, f"a chunk's size: found {line[:50]!r}; a hexadecimal number is needed")
    return int(found[1], 16)


def _line(stream: BufferedIOBase) -> bytes:
    line = stream.readline(_MAX_LINE)
    if not line.endswith(b"\n"):
        raise ConnectionError("the body ended within a line")
    return line.rstrip(b"\r\n")


def _drop(stream: BufferedIOBase, size: int) -> None:
    """Reads `size` bytes and forgets them."""
    while size > 0 and (read := stream.read(min(size, 65_536))):
        size -= len(read)


def _uncompressed(body: bytes, limit: int) -> bytes:
    reader = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # gzip, with its checksum
    try:
        found = reader.decompress(body, limit + 1)
    except zlib.error as error:
        logger.error("Failed to uncompress the gzipped body: %s", error)
        return b""
    if len(found) > limit:
        raise BodyError(
            413, f"found more than {limit} bytes uncompressed; at most {limit} are allowed"
        )
    if not reader.eof or reader.unused_data:
        logger.error("Failed to uncompress the gzipped body: it is not one whole gzip file")
        return b""
    return found


def _too_long(found: int, limit: int) -> BodyError:
    return BodyError(413, f"found {found} bytes; at most {limit} are allowed")
