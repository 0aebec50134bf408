"""Requests to a server, over gRPC and REST."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from tests.serving.raw_rows import ROWS, raw_tensors
from tfctr.serving import Server

MAX_REQUEST_BYTES = 256 * 1024
Code = grpc.StatusCode


def predict_request(tensors: dict[str, tf.Tensor] | None = None, signature: str = "") -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = signature
    for name, values in (raw_tensors(ROWS) if tensors is None else tensors).items():
        proto = tf.make_tensor_proto(values.numpy(), values.dtype, values.shape)
        request.inputs[name].CopyFrom(proto)
    return request


def with_examples(request: Any, signature: str, serialized: list[bytes]) -> Any:
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = signature
    for text in serialized:
        request.input.example_list.examples.add().MergeFromString(text)
    return request


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def rest(
    server: Server, method: str, path: str, body: Any = None, expect: int = 200
) -> dict[str, Any]:
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    url = f"http://127.0.0.1:{server.rest_port}{path}"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data, method=method), timeout=20
        ) as response:
            status, text = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    answer: dict[str, Any] = json.loads(text)
    assert status == expect, answer
    if status != 200:
        assert set(answer) == {"error"}
    return answer


def json_columns(rows: dict[str, list[Any]] = ROWS) -> dict[str, list[Any]]:
    return {
        name: [
            [v.decode() if isinstance(v, bytes) else v for v in row]
            if isinstance(row, list)
            else (row.decode() if isinstance(row, bytes) else row)
            for row in values.numpy().tolist()
        ]
        for name, values in raw_tensors(rows).items()
    }


def versions_of(server: Server, name: str = "tiny") -> dict[str, str]:
    statuses = rest(server, "GET", f"/v1/models/{name}")["model_version_status"]
    return {status["version"]: status["state"] for status in statuses}


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.02)
