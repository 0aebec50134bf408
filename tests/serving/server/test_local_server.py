"""A server that can't start, and one that is stopped."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    prediction_service_pb2_grpc,
)
from typer.testing import CliRunner

from tests.conftest import few_quick
from tests.serving.raw_rows import ROWS, model_scores
from tests.serving.requests import Code, json_columns, predict_request, refused, wait_until
from tfctr.cli import app
from tfctr.serving import Client, Server


def test_a_server_without_a_version_or_a_free_port_does_not_start(
    server: Server, directory: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"model 'm': .*nowhere holds no version that loads"):
        Server({"m": tmp_path / "nowhere"}, grpc_port=0, rest_port=0).start()
    with pytest.raises(OSError, match=f"grpc_port: 127.0.0.1:{server.grpc_port}"):
        Server({"m": directory}, grpc_port=server.grpc_port, rest_port=0).start()
    with pytest.raises(OSError, match=f"rest_port: 127.0.0.1:{server.rest_port}"):
        Server({"m": directory}, grpc_port=0, rest_port=server.rest_port).start()


@pytest.mark.parametrize(
    ("ports", "message"),
    [
        ((99_999, 0), "grpc_port: found 99999; a port is 1 to 65535, or 0 for any"),
        ((0, -1), "rest_port: found -1; a port is 1 to 65535, or 0 for any"),
        ((8500, 8500), "grpc_port and rest_port are both 8500; give two ports"),
    ],
)
def test_ports_that_cannot_be(ports: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Server({}, grpc_port=ports[0], rest_port=ports[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port=99999"], "65535"),  # in Typer's words, which change with its version
        (["--rest-port=-1"], "Invalid value for '--rest-port'"),
        (["--port=http"], "integer"),
        (["--port=8501"], "grpc_port and rest_port are both 8501; give two ports"),
        ([], "found v0.1; a version is a folder whose name is a whole number, such as m/1"),
    ],
)
def test_the_command_names_the_rule(tmp_path: Path, options: list[str], message: str) -> None:
    (tmp_path / "m" / "v0.1").mkdir(parents=True)
    found = CliRunner().invoke(app, ["serve", str(tmp_path / "m"), *options])
    assert found.exit_code in (1, 2)
    assert message in " ".join(found.output.replace("│", " ").split())


SLOW = """
import sys
from tfctr.cli import app
from tfctr.serving.server.loaded_version import LoadedVersion
run = LoadedVersion.run
def wait_then_run(self, *args):
    print("running", flush=True)
    sys.stdin.readline()
    return run(self, *args)
import tfctr.serving
start = tfctr.serving.Server.start
def start_then_slow(self):
    start(self)
    LoadedVersion.run = wait_then_run  # now that the warm-up requests are answered
    return self
tfctr.serving.Server.start = start_then_slow
app(["serve", sys.argv[1], "--port=0", "--rest-port=0"])
"""


def post(connection: http.client.HTTPConnection, body: bytes = b"") -> http.client.HTTPResponse:
    """The answer to a request with the rows, or with this body."""
    text = body or json.dumps({"inputs": json_columns()}).encode()
    connection.request("POST", "/v1/models/tiny:predict", text)
    return connection.getresponse()


@pytest.mark.parametrize("number", few_quick([signal.SIGTERM, signal.SIGINT], signal.SIGTERM))
@pytest.mark.parametrize("over", few_quick(["grpc", "rest"], "grpc"))
def test_a_stopped_server_finishes_what_is_in_flight(
    directory: Path, model: Any, number: int, over: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        ports = re.findall(r":(\d+)", process.stdout.readline())
        grpc_port, rest_port = map(int, ports)

        def ask() -> np.ndarray:
            if over == "rest":
                answer = post(http.client.HTTPConnection("127.0.0.1", rest_port, timeout=60))
                assert answer.will_close
                return np.array(json.load(answer)["outputs"])
            with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                answer = stub.Predict(predict_request(), timeout=60)
                return tf.make_ndarray(answer.outputs["scores"])

        def refuses(port: int) -> bool:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=20).close()
            except ConnectionError:
                return True
            return False

        kept = http.client.HTTPConnection("127.0.0.1", rest_port, timeout=20)
        with (
            futures.ThreadPoolExecutor(1) as pool,
            Client(f"127.0.0.1:{grpc_port}", "tiny") as client,
        ):
            kept.request("GET", "/v1/models/tiny")
            assert kept.getresponse().read()
            assert client.served_version() == 1
            answer = pool.submit(ask)
            assert process.stdout.readline() == "running\n"
            process.send_signal(number)
            wait_until(lambda: refuses(grpc_port) and refuses(rest_port))
            # On connections from before, new requests are refused, and not run.
            refusal = post(kept, b" " * 10**7)  # more than a socket holds, if nobody reads it
            assert (refusal.status, refusal.will_close) == (503, True)
            assert json.load(refusal) == {"error": "the server is stopping"}
            assert refused(lambda: client._stub.Predict(predict_request()))[0] == Code.UNAVAILABLE
            assert not answer.done()
            process.send_signal(number)  # again: it goes on all the same
            process.stdin.write("\n")
            process.stdin.flush()
            np.testing.assert_allclose(answer.result(), model_scores(model, ROWS), atol=1e-6)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.communicate()
