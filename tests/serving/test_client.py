"""The client takes plain lists, and says what is wrong."""

import math
import socket
import warnings
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.data.test_conform import BAD, INTEGERS, NUMBERS, outcome
from tests.serving.raw_rows import ROWS, model_scores, that_fit
from tests.serving.requests import Code
from tfctr.data.conform import to_double, to_int
from tfctr.schema import MISSING_INT
from tfctr.serving import Client, Server, ServingError
from tfctr.serving.client import _value
from tfctr.serving.tensors import FLOAT, INT64, STRING


def test_the_client_takes_plain_lists_and_fills_what_is_missing(client: Client, model: Any) -> None:
    scores = client.predict(that_fit(ROWS))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, model_scores(model, ROWS), atol=1e-6)
    only = {name: [None] * 2 for name in ROWS} | {"user": [7, None], "history": [["i1"], None]}
    np.testing.assert_allclose(
        client.predict({"user": [7, None], "history": [["i1"], None]}),
        model_scores(model, only),
        atol=1e-6,
    )
    arrays = {
        "user": np.array([7, MISSING_INT]),
        "item": np.array(["i1", "i9"]),
        "price": np.array([1.0, np.nan]),
        "tags": np.array([[5, 0], [6, 5]]),
    }
    plain = {"user": [7, None], "item": ["i1", "i9"], "price": [1, None], "tags": [[5, 0], [6, 5]]}
    np.testing.assert_array_equal(client.predict(arrays), client.predict(plain))
    assert client.predict({"user": []}).shape == (0,)


def test_the_client_takes_dataframes(client: Client) -> None:
    columns = that_fit(ROWS)
    with pytest.warns(UserWarning, match="has no feature 'shown': ignored"):
        found = client.predict(pa.table(columns | {"shown": [1] * len(columns["user"])}))
    np.testing.assert_array_equal(found, client.predict(columns))
    candidates = {"item": ["i1", "i2"], "genres": [["war"], None]}
    found = client.rank({"user": 7}, pa.table(candidates))
    np.testing.assert_array_equal(found, client.rank({"user": 7}, candidates))


def test_the_client_ranks_candidates(client: Client, model: Any) -> None:
    user = {"user": 7, "history": ["i1", "i2"], "device": "tv", "hour": 3.0}
    candidates = {"item": ["i1", "i2", "nope"], "genres": [["war"], [], ["drama", "war"]]}
    rows = {name: [None] * 3 for name in ROWS} | candidates
    rows |= {name: [value] * 3 for name, value in user.items()}
    scores = client.rank(user, candidates)
    assert scores.shape == (3,)
    np.testing.assert_allclose(scores, model_scores(model, rows), atol=1e-6)
    assert client.rank(user, {"item": []}).shape == (0,)


def test_the_client_cuts_the_scores_of_requests_merged_with_longer_ones() -> None:
    class Batching(prediction_service_pb2_grpc.PredictionServiceServicer):
        """Answers as a server that merged the request with one of five candidates."""

        def GetModelMetadata(self, request: Any, context: Any) -> Any:
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, rank in (("serving_default", 1), ("rank", 2)):
                info = signatures.signature_def[name].inputs["item"]
                info.dtype = tf.string.as_datatype_enum
                for _ in range(rank):
                    info.tensor_shape.dim.add(size=-1)
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.metadata["signature_def"].Pack(signatures)
            return response

        def Predict(self, request: Any, context: Any) -> Any:
            response = predict_pb2.PredictResponse()
            scores = np.arange(5, dtype=np.float32)[np.newaxis]
            response.outputs["scores"].CopyFrom(tf.make_tensor_proto(scores))
            return response

    server = grpc.server(futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Batching(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}", "m") as client:
            np.testing.assert_array_equal(client.rank({}, {"item": ["a", "b"]}), [0, 1])
    finally:
        server.stop(None)


def test_numbers_and_bools_are_sent_as_the_tokens_that_prepare_reads() -> None:
    for value, token in (
        (True, b"1"),
        (4.0, b"4"),
        (np.int64(4), b"4"),
        (3.5, b"3.5"),
        ("a", b"a"),
    ):
        assert _value("item", value, STRING) == token
    for value, number in ((True, 1), (np.float32(4), 4), (np.bool_(False), 0)):
        assert _value("user", value, INT64) == number
    assert _value("price", True, FLOAT) == 1
    assert _value("price", -(10**400), FLOAT) == -np.inf  # as what prepare reads
    with pytest.raises(TypeError, match="takes int64, found 9223372036854775808"):
        _value("user", 2**63, INT64)


def sent(value: Any, dtype: tf.DType) -> Any:
    """What a value is sent as; None if as missing, BAD if it is refused."""
    try:
        found = _value("x", value, dtype)
    except TypeError:
        return BAD
    return None if found == MISSING_INT or found != found else found


@pytest.mark.parametrize(
    ("dtype", "texts", "to"), [(INT64, INTEGERS, to_int), (FLOAT, NUMBERS, to_double)]
)
def test_a_value_is_the_same_in_a_request_and_in_a_log(dtype: Any, texts: Any, to: Any) -> None:
    for text, expected in texts.items():
        assert sent(text, dtype) == expected, text
    for value in (3, 3.0, True, 2.5, -(2.0**53), 2.0**53 - 1, 1e300, -math.inf, math.nan, None):
        (expected,) = outcome(to(pa.array([value])))
        assert sent(value, dtype) == expected, value


def test_rows_as_they_are_logged_are_scored_as_prepare_reads_them(client: Client) -> None:
    plain = {"user": [7, None], "item": ["i1", "i2"], "price": [1.5, None], "hour": [3.0, None]}
    plain |= {"genres": [["war", "drama"], []], "tags": [[5, 6], [5]], "history": [["i1"], []]}
    logged = {"user": ["7", ""], "item": ["i1", "i2"], "price": ["1.5", ""], "hour": ["3", ""]}
    logged |= {"genres": ["war|drama", ""], "tags": ["5|6", "5.0"], "history": ["i1", ""]}
    expected = client.predict(plain)
    np.testing.assert_array_equal(client.predict(logged), expected)
    one = {"tags": [5, np.float64(5), [5]], "history": [["i1"], np.nan, None]}
    several = {"tags": [[5], [5], [5]], "history": [["i1"], [], []]}
    np.testing.assert_array_equal(client.predict(one), client.predict(several))
    with pytest.warns(UserWarning, match="has no feature 'colour', 'click': ignored"):
        scores = client.predict(logged | {"colour": ["red", "blue"], "click": [1, 0]})
    np.testing.assert_array_equal(scores, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # they are named once
        client.predict(logged | {"colour": ["red", "blue"]})


def test_the_client_s_errors_say_what_is_wrong(client: Client, server: Server) -> None:
    for features, kind, text in (
        ({"colour": ["red"]}, ValueError, "no feature 'colour' in the model; there are: age, "),
        ({"user": [1], "item": []}, ValueError, "columns differ in length: user 1, item 0"),
        ({}, ValueError, "no features given"),
        ({"user": ["seven"]}, TypeError, "feature 'user' takes int64, found 'seven'"),
        ({"user": [1.5]}, TypeError, "feature 'user' takes int64"),
        ({"user": [float("inf")]}, TypeError, "feature 'user' takes int64"),
        ({"item": [["i1"]]}, TypeError, "feature 'item' takes strings, found \\['i1'\\]"),
        ({"price": ["x"]}, TypeError, "feature 'price' takes float32"),
        ({"genres": [b"a"]}, TypeError, "feature 'genres' takes a list per row, found b'a'"),
        ({"tags": [[1, 2, 3]]}, ValueError, "feature 'tags' takes 2 values per row, found 3"),
    ):
        with pytest.raises(kind, match=text):
            client.predict(features)
    with pytest.raises(ValueError, match="no user or context feature 'item'"):
        client.rank({"item": "i1"}, {"item": ["i1"]})
    with pytest.raises(ValueError, match="no item feature 'user'"):
        client.rank({"user": 1}, {"user": [1]})
    address = f"127.0.0.1:{server.grpc_port}"
    with Client(address, "other") as other, pytest.raises(ServingError) as caught:
        other.predict({"user": [1]})
    assert caught.value.code == Code.NOT_FOUND
    assert caught.value.message == "Servable not found for request: Latest(other)"


def test_the_client_says_when_no_server_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with (
            Client(f"127.0.0.1:{port}", "m", timeout=0.3) as client,
            pytest.raises((TimeoutError, ConnectionError), match=f"127.0.0.1:{port}"),
        ):
            client.predict({"item": ["a"]})
    with (
        Client(f"127.0.0.1:{port}", "m") as client,
        pytest.raises(ConnectionError, match=f"no server answers at 127.0.0.1:{port}"),
    ):
        client.predict({"item": ["a"]})
