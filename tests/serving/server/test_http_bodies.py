"""Bodies of requests: by length, in chunks, compressed."""

import gzip
import io
from email.message import Message

import pytest

from tfctr.serving.server.http_bodies import BodyError, read_body

LIMIT = 100


def _read(sent: bytes, **headers: str) -> bytes:
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return read_body(io.BytesIO(sent), message, LIMIT)


def test_a_body_of_a_known_length_is_read() -> None:
    assert _read(b"abcde", Content_Length="3") == b"abc"
    assert _read(b"abcde") == b""  # none is given, so there is no body
    assert _read(b"abcde", Connection="close") == b""
    for headers, status in (
        ({"Content_Length": "x"}, 400),
        ({"Content_Length": "-1"}, 400),
        ({"Content_Length": ""}, 400),
        ({"Connection": "keep-alive"}, 400),
        ({"Content_Length": "101"}, 413),
    ):
        with pytest.raises(BodyError) as caught:
            _read(b"a" * 500, **headers)
        assert caught.value.status == status


def test_chunks_are_joined() -> None:
    sent = b"3\r\nabc\r\nA ;extension\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nthe next request"
    stream = io.BytesIO(sent)
    message = Message()
    message["Transfer-Encoding"] = "Chunked"
    assert read_body(stream, message, LIMIT) == b"abc0123456789"
    assert stream.read() == b"the next request"
    # As in libevent, which reads only this coding, and then no length is given.
    assert _read(sent, Transfer_Encoding="gzip, chunked") == b""


def test_wrong_and_too_long_chunks_are_refused() -> None:
    for sent in (
        b"x\r\n",
        b"-1\r\n",
        b"3;a=b\r\nabc\r\n0\r\n\r\n",
        b"65\r\n" + b"a" * 101 + b"\r\n0\r\n\r\n",
    ):
        with pytest.raises(BodyError) as caught:
            _read(sent, Transfer_Encoding="chunked")
        assert caught.value.status == 413
    # A body that is too long is read to its end, but not for ever.
    endless = b"64\r\n" + b"a" * 100 + b"\r\n"
    stream = io.BytesIO(endless * 50)
    message = Message()
    message["Transfer-Encoding"] = "chunked"
    with pytest.raises(BodyError, match="found 500 bytes; at most 100 are allowed"):
        read_body(stream, message, LIMIT)
    for sent in (b"", b"5\r\nabc", b"3\r\nabc\r\n0\r\n"):
        with pytest.raises(ConnectionError):
            _read(sent, Transfer_Encoding="chunked")


def test_gzip_is_uncompressed_and_its_damage_is_an_empty_body() -> None:
    whole = gzip.compress(b"abc" * 20)
    length = {"Content_Length": str(len(whole))}
    assert _read(whole, **length, Content_Encoding="gzip") == b"abc" * 20
    assert _read(whole, **length, Content_Encoding="x-gzip") == b"abc" * 20
    assert _read(whole, **length, Content_Encoding="GZIP") == whole  # as in the real server
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(whole), whole)
    found = _read(chunks, Transfer_Encoding="chunked", Content_Encoding="gzip")
    assert found == b"abc" * 20
    wrong = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]  # of the checksum
    for sent in (b"", b"abc", whole[:-1], wrong, whole + whole, whole + b"x"):
        headers = {"Content_Length": str(len(sent)), "Content_Encoding": "gzip"}
        assert _read(sent, **headers) == b""
    bomb = gzip.compress(b"a" * (LIMIT + 1))
    with pytest.raises(BodyError, match="more than 100 bytes uncompressed") as caught:
        _read(bomb, Content_Length=str(len(bomb)), Content_Encoding="gzip")
    assert caught.value.status == 413
