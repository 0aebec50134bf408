"""What a row may look like by each way to ask: the table of docs/serving.md."""

import base64
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, regression_pb2

from tests.serving.raw_rows import SCHEMA, raw_tensors
from tests.serving.requests import Code, json_columns, predict_request, refused, rest, with_examples
from tfctr.serving import Client, Server

# Missing values and lists of strings and ints that are shorter than `max_length`.
ROW: dict[str, Any] = {
    "user": 7,
    "item": "i1",
    "history": ["i2", "i1"],
    "genres": ["war"],
    "device": "tv",
    "price": None,
    "tags": [5],
    "age": 18.0,
    "hour": 3.0,
    "seen": [6],
    "rare": None,
}
PREDICT, REGRESS = "/v1/models/tiny:predict", "/v1/models/tiny:regress"


def _filled() -> dict[str, Any]:
    """The row with the values that mean "missing", and whole lists."""
    columns = json_columns({name: [value] for name, value in ROW.items()})
    return {name: value for name, (value,) in columns.items()}


def _present() -> dict[str, Any]:
    return {name: value for name, value in ROW.items() if value is not None}


@pytest.fixture(scope="module")
def expected(client: Client) -> float:
    return float(client.predict({name: [value] for name, value in ROW.items()})[0])


def test_the_client_takes_rows_as_they_are(client: Client, expected: float) -> None:
    for changed in (
        {"user": "7", "tags": "5", "seen": "6", "hour": "3", "genres": "war"},
        {"user": 7.0, "hour": 3, "tags": [5.0], "seen": [6, None]},
        {"price": float("nan"), "rare": ""},
    ):
        columns = {name: [value] for name, value in (ROW | changed).items()}
        np.testing.assert_allclose(client.predict(columns), [expected], atol=1e-6)
    present = {name: [value] for name, value in _present().items()}
    np.testing.assert_allclose(client.predict(present), [expected], atol=1e-6)


def test_rest_rows_and_columns_need_whole_lists_and_the_missing_value(
    server: Server, expected: float
) -> None:
    row = _filled()
    assert row["tags"] == [5, -(2**63)]
    for changed in ({}, {"hour": 3}, {"item": {"b64": base64.b64encode(b"i1").decode()}}):
        asked = {"instances": [row | changed]}
        found = rest(server, "POST", PREDICT, asked)["predictions"]
        np.testing.assert_allclose(found, [expected], atol=1e-6)
        asked = {"inputs": {name: [value] for name, value in (row | changed).items()}}
        found = rest(server, "POST", PREDICT, asked)["outputs"]
        np.testing.assert_allclose(found, [expected], atol=1e-6)
    for changed, text in (
        ({"rare": None}, "JSON Value: null Type: Null is not of expected type: string"),
        ({"price": None}, "JSON Value: null Type: Null is not of expected type: float"),
        ({"user": None}, "JSON Value: null Type: Null is not of expected type: int64"),
        ({"tags": [5, None]}, "JSON Value: null Type: Null is not of expected type: int64"),
        ({"tags": [5]}, "input 'tags': found shape [1, 1], expected [-1, 2]"),
        ({"user": 7.0}, "Type: Number is not of expected type: int64"),
        ({"user": "7"}, "Type: String is not of expected type: int64"),
        ({"item": 1}, "Type: Number is not of expected type: string"),
    ):
        for asked in (
            {"instances": [row | changed]},
            {"inputs": {name: [value] for name, value in (row | changed).items()}},
        ):
            assert text in rest(server, "POST", PREDICT, asked, expect=400)["error"]
    less = {name: value for name, value in row.items() if name != "rare"}
    assert (
        "must only have keys"
        in (rest(server, "POST", PREDICT, {"instances": [less]}, expect=400)["error"])
    )
    assert (
        "does not have named input: more"
        in (rest(server, "POST", PREDICT, {"instances": [row | {"more": 1}]}, expect=400)["error"])
    )


def test_rest_examples_take_short_lists_and_leave_missing_features_out(
    server: Server, expected: float
) -> None:
    for changed in ({}, {"price": [], "rare": []}, {"more": 1}, {"history": ["i9", "i2", "i1"]}):
        asked = {"signature_name": "regress", "examples": [_present() | changed]}
        (found,) = rest(server, "POST", REGRESS, asked)["results"]
        assert changed.get("history") or found == pytest.approx(expected, abs=1e-6)
    for changed, text in (
        ({"rare": None}, "Feature: rare has element with unexpected JSON type: Null"),
        ({"hour": 3}, "Key: hour"),  # a whole number is one of int64, and the feature a float
        ({"user": 7.0}, "Key: user"),
    ):
        asked = {"signature_name": "regress", "examples": [_present() | changed]}
        assert text in rest(server, "POST", REGRESS, asked, expect=400)["error"]


def test_grpc_takes_whole_lists_or_examples(stub: Any, client: Client, expected: float) -> None:
    tensors = raw_tensors({name: [value] for name, value in ROW.items()})
    found = stub.Predict(predict_request(tensors)).outputs["scores"].float_val
    np.testing.assert_allclose(found, [expected], atol=1e-6)
    short = tensors | {"tags": tf.constant([[5]], tf.int64)}
    code, text = refused(lambda: stub.Predict(predict_request(short)))
    assert (code, "input 'tags'" in text) == (Code.INVALID_ARGUMENT, True)

    example = tf.train.Example()
    for name, value in _present().items():
        values = value if isinstance(value, list) else [value]
        feature = example.features.feature[name]
        if SCHEMA[name].kind == "numeric":
            feature.float_list.value.extend(values)
        elif SCHEMA[name].dtype == "int":
            feature.int64_list.value.extend(values)
        else:
            feature.bytes_list.value.extend(value.encode() for value in values)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = "examples"
    request.inputs["examples"].CopyFrom(tf.make_tensor_proto([example.SerializeToString()]))
    found = client.ask(request).outputs["scores"].float_val
    np.testing.assert_allclose(found, [expected], atol=1e-6)
    request = with_examples(
        regression_pb2.RegressionRequest(), "regress", [example.SerializeToString()]
    )
    (found,) = stub.Regress(request).result.regressions
    assert found.value == pytest.approx(expected, abs=1e-6)
