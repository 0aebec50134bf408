"""Takes HTTP requests of the REST API, one thread a connection, and drains when it is stopped.

`http.server` and not starlette with uvicorn: 16 clients got 946 answers a second from this and 561
from that (100 rows a request, 2 cores, medians of three turns), where a wrong Content-Length is
answered 400 by the parser, never 411 or 413, and half a request holds its connection for ever.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tfctr.serving.server import rest
from tfctr.serving.server.model_versions import ModelVersions

logger = logging.getLogger(__name__)


class RestServer(ThreadingHTTPServer):
    """Answers for `models`; a thread a connection.

    Attributes:
        draining: whether no new requests are taken.

    Raises:
        OSError: the address is taken.
    """

    def __init__(
        self,
        address: tuple[str, int],
        models: Mapping[str, ModelVersions],
        max_request_bytes: int,
    ) -> None:
        super().__init__(address, _Handler)
        self.models = models
        self.max_request_bytes = max_request_bytes
        self._changed = threading.Condition()
        self._answering = 0
        self.draining = False

    def drain(self, seconds: float) -> None:
        """Takes no new requests, and waits for those in flight, `seconds` at most."""
        self.shutdown()
        self.socket.close()  # else who connects now would wait for an answer
        with self._changed:
            self.draining = True
            self._changed.wait_for(lambda: not self._answering, seconds)
        self.server_close()

    @contextmanager
    def in_flight(self) -> Iterator[bool]:
        """While a request is read and answered; whether it may be."""
        with self._changed:
            taken = not self.draining
            self._answering += taken
        try:
            yield taken
        finally:
            with self._changed:
                self._answering -= taken
                self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("%s went away", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: RestServer
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a connection may say nothing
    # Headers and body are two writes: else the second waits for the client's delayed
    # acknowledgement of the first, 40 ms a request.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._take(lambda: self._answer("GET", b""))

    def do_POST(self) -> None:
        self._take(self._post)

    def _take(self, answer: Callable[[], None]) -> None:
        with self.server.in_flight() as taken:
            if taken:
                answer()
            else:  # on a connection that was open before
                self._refuse(503, "the server is stopping")

    def _post(self) -> None:
        length, limit = self._content_length(), self.server.max_request_bytes
        if length is None:
            self._refuse(411, "Content-Length must be given")
        elif length > limit:
            self._refuse(413, f"the request has {length} bytes, at most {limit} are taken")
        else:
            self._answer("POST", self.rfile.read(length))

    def _content_length(self) -> int | None:
        length = self.headers.get("Content-Length", "")
        return int(length[:18]) if length.isascii() and length.isdigit() else None

    def _refuse(self, status: int, why: str) -> None:
        """Answers without what was sent, and closes the connection."""
        self.close_connection = True
        # A client that is still sending would not read the answer.
        left = min(self._content_length() or 0, 4 * self.server.max_request_bytes)
        while left > 0 and (chunk := self.rfile.read(min(left, 65_536))):
            left -= len(chunk)
        self._send(status, {"error": why})

    def _answer(self, method: str, body: bytes) -> None:
        if not self.path.lower().startswith("/v1/"):
            self.send_error(404)  # HTML, as the real server's
            return
        self._send(*rest.answer(self.server.models, method, self.path, body))

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        self.close_connection |= self.server.draining
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)
