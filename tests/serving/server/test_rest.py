"""The local server answers over REST as TF Serving does."""

import base64
import gzip
import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serving.raw_rows import (
    NUM_ROWS,
    ROWS,
    SCHEMA,
    model_scores,
    rank_inputs,
    serialized_examples,
)
from tests.serving.requests import (
    MAX_REQUEST_BYTES,
    json_columns,
    rest,
)
from tfctr.serving import Client, Server


def test_rest_rows_and_columns(server: Server, model: Any) -> None:
    expected = model_scores(model, ROWS)
    columns = json_columns()
    answer = rest(server, "POST", "/v1/models/tiny:predict", {"inputs": columns})
    np.testing.assert_allclose(answer["outputs"], expected, atol=1e-6)
    rows = [{name: column[row] for name, column in columns.items()} for row in range(NUM_ROWS)]
    path = "/v1/models/tiny/versions/1:predict"
    answer = rest(server, "POST", path, {"signature_name": "serving_default", "instances": rows})
    np.testing.assert_allclose(answer["predictions"], expected, atol=1e-6)


def test_rest_binary_values_and_several_outputs(server: Server, model: Any) -> None:
    expected = model_scores(model, ROWS)
    encoded = [{"b64": base64.b64encode(e).decode()} for e in serialized_examples(ROWS)]
    path = "/v1/models/tiny:predict"
    answer = rest(server, "POST", path, {"signature_name": "examples", "instances": encoded})
    np.testing.assert_allclose(answer["predictions"], expected, atol=1e-6)
    named = [{"examples": text} for text in encoded]
    assert rest(server, "POST", path, {"signature_name": "examples", "instances": named}) == answer
    answer = rest(server, "POST", path, {"signature_name": "classify", "instances": encoded})
    assert answer["predictions"][0]["classes"] == ["0", "1"]
    answer = rest(server, "POST", path, {"signature_name": "classify", "inputs": encoded})
    np.testing.assert_allclose(np.array(answer["outputs"]["scores"])[:, 1], expected, atol=1e-6)


def test_rest_rank(server: Server, model: Any) -> None:
    inputs, rows = rank_inputs(SCHEMA, 1, 4)
    text = json.dumps(
        {
            "signature_name": "rank",
            "inputs": {name: values.numpy().tolist() for name, values in inputs.items()},
        },
        default=bytes.decode,
    )
    answer = rest(server, "POST", "/v1/models/tiny:predict", text.encode())
    np.testing.assert_allclose(answer["outputs"], [model_scores(model, rows)], atol=1e-6)


def test_rest_status_and_metadata(server: Server) -> None:
    statuses = rest(server, "GET", "/v1/models/tiny")["model_version_status"]
    assert statuses == [
        {
            "version": "1",
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
    ]
    assert rest(server, "GET", "/v1/models/tiny/versions/1")["model_version_status"] == statuses
    metadata = rest(server, "GET", "/v1/models/tiny/metadata")
    assert metadata["model_spec"]["name"] == "tiny"
    assert metadata["model_spec"]["version"] == "1"
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"]["inputs"]["user"]["dtype"] == "DT_INT64"


def test_rest_mistakes(server: Server) -> None:
    columns = json_columns()
    path = "/v1/models/tiny:predict"
    rows = [{name: column[row] for name, column in columns.items()} for row in range(NUM_ROWS)]
    deep = b'{"inputs": ' + b"[" * 100_000
    for body, text in (
        (b"", "JSON Parse error"),
        (b"{", "JSON Parse error"),
        (b"\xff\xfe{}", "JSON Parse error"),
        (deep, "JSON Parse error"),
        ([], "Is not object"),
        ({}, "Missing 'inputs' or 'instances' key"),
        ({"inputs": columns, "instances": rows}, "only one of"),
        ({"instances": []}, "No values"),
        ({"instances": {"item": 1}}, "list/array"),
        ({"instances": ["i1"]}, "list of objects"),
        ({"instances": [rows[0], 3]}, "Expecting object but got list at item 1"),
        ({"instances": [rows[0], rows[1] | {"x": 1}]}, "does not have named input: x"),
        ({"instances": [rows[0], {"item": "a"}]}, "must only have keys: age,device"),
        ({"instances": [rows[0], rows[1] | {"tags": [1]}]}, "Expecting tensor size: 2 but got: 1"),
        (
            {"instances": [rows[0] | {"user": "a"}]},
            "Failed to process element: 0 key: user of 'instances' list. Error: INVALID_ARGUMENT: "
            'JSON Value: "a" Type: String is not of expected type: int64',
        ),
        ({"inputs": "i1"}, "expecting an object"),
        ({"inputs": columns, "signature_name": 3}, "must be a string"),
        ({"inputs": columns, "signature_name": "x"}, '"x" not found in signature def'),
        (
            {"inputs": columns | {"user": [1.5] * 5}},
            "JSON Value: 1.5 Type: Number is not of expected type: int64",
        ),
        (
            {"inputs": columns | {"user": [True] * 5}},
            "JSON Value: true Type: True is not of expected type: int64",
        ),
        (
            {"inputs": columns | {"user": [2**70] * 5}},
            "Type: Number is not of expected type: int64",
        ),
        ({"inputs": columns | {"price": ["x"] * 5}}, "not of expected type: float"),
        ({"inputs": columns | {"price": [2**24] * 5}}, "16777216 to float without loss"),
        ({"inputs": columns | {"price": [1e39] * 5}}, "1e+39 to float without loss"),
        ({"inputs": columns | {"item": [{"b64": "*"}] * 5}}, "Unable to base64 decode"),
        ({"inputs": columns | {"item": [{"b": "*"}] * 5}}, "correctly for base64 data"),
        ({"inputs": columns | {"item": [None] * 5}}, "not of expected type: string"),
        (
            {"inputs": columns | {"history": [["a"], ["a", "b"], [], [], []]}},
            "Encountered list at unexpected size: 2 at level: 1 expected size: 1",
        ),
        (
            {"inputs": columns | {"item": ["a", ["b"], "c", "d", "e"]}},
            "at unexpected level: 1 expected < 1",
        ),
        (
            {"inputs": columns | {"history": [["a"], "b", "c", "d", "e"]}},
            "at incorrect level: 2 in",
        ),
        ({"inputs": columns | {"item": [[[[[[[[[["a"]]]]]]]]]]}}, "nested"),
        ({"inputs": columns | {"item": ["a"]}}, "number of rows"),
        ({"inputs": {"item": ["a"]}}, "Missing named input: "),
        ({"inputs": 3, "signature_name": "examples"}, "not of expected type: string"),
        ({"inputs": "x", "signature_name": "examples"}, "Could not parse example input"),
    ):
        assert text in rest(server, "POST", path, body, expect=400)["error"]
    assert (
        "Latest(other)"
        in rest(server, "POST", "/v1/models/other:predict", {"inputs": columns}, expect=404)[
            "error"
        ]
    )
    rest(server, "POST", "/v1/models/tiny/versions/7:predict", {"inputs": columns}, expect=404)
    rest(server, "GET", "/v1/models/other", expect=404)
    rest(server, "GET", "/v1/models/other/metadata", expect=404)
    rest(server, "GET", f"/v1/models/tiny/versions/{10**18 * 9 + 10**18}", expect=400)


def test_rest_paths(server: Server, directory: Path) -> None:
    for method, path, text in (
        ("GET", "/v1/models/tiny:predict", ""),
        ("GET", "/v1/models/tiny/", ""),
        ("GET", "/v1/models/tiny/versions/%31", ""),
        ("GET", "/v1/models/tiny/versions/1/labels/stable", ""),
        ("GET", "/v1/foo", ""),
        ("POST", "/v1/models/tiny", ""),
        ("POST", "/v1/models/tiny/metadata", ""),
        ("POST", "/v1/models/tiny:rank", ""),
        ("POST", "/v1/models/tiny:PREDICT", ""),
        ("POST", "/v1/models/tiny:predict?verbose=1", ""),
        ("POST", "/v1/models/tiny/label/stable:predict", ""),
        ("GET", "/v1/models", "Missing model name in request."),
        ("GET", "/v1/models/labels/stable/metadata", "Missing model name in request."),
    ):
        found = rest(server, method, path, b"{}" if method == "POST" else None, expect=400)
        assert found["error"] == (text or f"Malformed request: {method} {path}")
    for path in ("/", "/x", "/v1"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{server.rest_port}{path}", timeout=20)
        assert (caught.value.code, caught.value.headers["Content-Type"]) == (
            404,
            "text/html;charset=utf-8",
        )
    for path, name in (("ti%2Fny", "ti/ny"), ("tiny?verbose=1", "tiny?verbose=1")):
        found = rest(server, "GET", f"/v1/models/{path}", expect=404)
        assert found["error"] == f"Could not find any versions of model {name}"
    for path in ("/v1/models/%74iny", "/V1/Models/tiny", "/v1/models/tiny/versions/1"):
        assert rest(server, "GET", path) == rest(server, "GET", "/v1/models/tiny")
    with Server({"a model": directory}, grpc_port=0, rest_port=0) as other:
        body = {"inputs": json_columns()}
        answer = rest(other, "POST", "/v1/models/a%20model:predict", body)
        assert answer == rest(server, "POST", "/v1/models/tiny:predict", body)


def test_rest_ignores_columns_that_the_signature_does_not_take(server: Server) -> None:
    path, columns = "/v1/models/tiny:predict", json_columns()
    expected = rest(server, "POST", path, {"inputs": columns})
    more = columns | {"colour": [{"a": None}]}
    assert rest(server, "POST", path, {"inputs": more}) == expected


def test_rest_classify_and_regress(server: Server, client: Client) -> None:
    rows = [
        {"user": 7, "item": "i1", "price": 1.5, "history": ["i1", "i2"]},
        {"user": [-3], "item": [{"b64": base64.b64encode(b"i2").decode()}], "history": []},
    ]
    expected = client.predict(
        {
            "user": [7, -3],
            "item": ["i1", "i2"],
            "price": [1.5, None],
            "history": [["i1", "i2"], []],
            "device": ["tv", "tv"],
        }
    )
    body = {"context": {"device": "tv"}, "examples": rows}
    found = rest(server, "POST", "/v1/models/tiny:regress", body | {"signature_name": "regress"})
    np.testing.assert_allclose(found["results"], expected, atol=1e-6)
    path = "/v1/models/tiny/versions/1:classify"
    found = rest(server, "POST", path, body | {"signature_name": "classify"})
    assert [[label for label, _ in row] for row in found["results"]] == [["0", "1"]] * 2
    np.testing.assert_allclose([row[1][1] for row in found["results"]], expected, atol=1e-6)


def test_rest_mistakes_in_examples(server: Server) -> None:
    for body, text in (
        ({}, "key 'examples' is expected and was not found"),
        ({"examples": {}}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [3]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [{}], "context": []}, "Example must be JSON object but got JSON Array"),
        (
            {"examples": [{"item": None}]},
            "Feature: item has element with unexpected JSON type: Null",
        ),
        ({"examples": [{"item": [[]]}]}, "unexpected JSON type: Array"),
        ({"examples": [{"item": ["a", 1]}]}, "feature: item expecting type: bytes"),
        ({"examples": [{"user": 2**63}]}, "Feature: user has uint64 element"),
        ({"examples": [{"user": 1.5}]}, "Key: user"),
        ({"examples": [{}], "signature_name": "classify"}, "Expected one output Tensor."),
    ):
        asked = {"signature_name": "regress"} | body
        path = "/v1/models/tiny:regress"
        assert text in rest(server, "POST", path, asked, expect=400)["error"]


def test_rest_answers_on_a_kept_connection_without_delay(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=20)
    seconds = []
    for _ in range(40):
        start = time.monotonic()
        connection.request("GET", "/v1/models/tiny")
        assert connection.getresponse().read()
        seconds.append(time.monotonic() - start)
    connection.close()
    # A delayed acknowledgement takes 40 ms; the first on a connection are not delayed.
    assert np.median(seconds[20:]) < 0.03


def test_rest_reads_bodies_in_chunks_and_compressed(server: Server, model: Any) -> None:
    body = json.dumps({"inputs": json_columns()}).encode()
    zipped = gzip.compress(body)
    for headers, sent in (
        ({}, [body[:7], body[7:]]),  # an iterable is sent in chunks
        ({"Content-Encoding": "gzip"}, zipped),
        ({"Content-Encoding": "gzip"}, [zipped[:7], zipped[7:]]),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=20)
        for _ in range(2):  # the connection is kept
            connection.request("POST", "/v1/models/tiny:predict", sent, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
            assert response.status == 200, answer
            np.testing.assert_allclose(answer["outputs"], model_scores(model, ROWS), atol=1e-6)
        connection.close()


def test_rest_takes_a_damaged_gzip_body_for_an_empty_one(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=20)
    for headers, body in (({}, b""), ({"Content-Encoding": "gzip"}, b"not gzip")):
        connection.request("POST", "/v1/models/tiny:predict", body, headers)
        response = connection.getresponse()
        assert response.status == 400
        assert json.loads(response.read()) == {"error": "JSON Parse error: The document is empty"}
    connection.close()


def test_rest_refuses_what_is_too_large_or_of_a_wrong_length(server: Server) -> None:
    path = "/v1/models/tiny:predict"
    answer = rest(server, "POST", path, b" " * (MAX_REQUEST_BYTES + 1), expect=413)
    assert str(MAX_REQUEST_BYTES) in answer["error"]
    for header, status in (
        (b"Content-Length: 99999999999999999999999\r\n", b" 413 "),
        (b"Content-Length: -1\r\n", b" 400 "),
        (b"Connection: keep-alive\r\n", b" 400 "),
        (b"Transfer-Encoding: chunked\r\n\r\nx", b" 413 "),
    ):
        with socket.create_connection(("127.0.0.1", server.rest_port), timeout=20) as connection:
            connection.sendall(b"POST " + path.encode() + b" HTTP/1.1\r\nHost: x\r\n" + header)
            connection.sendall(b"\r\n")
            connection.shutdown(socket.SHUT_WR)
            assert status in connection.recv(65_536).split(b"\r\n")[0]
    assert rest(server, "GET", "/v1/models/tiny")["model_version_status"]
