"""The local server answers as TF Serving does, whatever it is sent; the client reads it."""

import base64
import http.client
import json
import random
import re
import shutil
import signal
import socket
import string
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from tests.serving.test_export import (
    NUM_ROWS,
    ROWS,
    SCHEMA,
    TOKENS,
    fake_dataset,
    model_scores,
    rank_inputs,
    raw_tensors,
    serialized_examples,
    spread_weights,
    that_fit,
)
from tfctr.backbones import LR
from tfctr.schema import MISSING_INT
from tfctr.serving import Client, Server, ServingError, answers, export
from tfctr.serving.served_model import ServedModel

MAX_REQUEST_BYTES = 256 * 1024
Code = grpc.StatusCode
State = get_model_status_pb2.ModelVersionStatus


@pytest.fixture(scope="module")
def directory(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("server")
    return export(model, fake_dataset(folder / "v"), folder / "tiny").parent


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[Server]:
    with Server(
        {"tiny": directory}, grpc_port=0, rest_port=0, max_request_bytes=MAX_REQUEST_BYTES
    ) as server:
        yield server


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> Any:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def status_stub(channel: grpc.Channel) -> Any:
    return model_service_pb2_grpc.ModelServiceStub(channel)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(f"127.0.0.1:{server.grpc_port}", model="tiny") as client:
        yield client


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


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    (found,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    return int(found) / 1024


# What the server answers when all is well.


def test_predict_answers_the_model_s_scores_and_says_who_answered(model: Any, stub: Any) -> None:
    response = stub.Predict(predict_request())
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("tiny", 1, "serving_default")
    assert len(response.outputs["scores"].float_val) == NUM_ROWS  # as the real server packs it
    scores = tf.make_ndarray(response.outputs["scores"])
    np.testing.assert_allclose(scores, model_scores(model, ROWS), atol=1e-6)
    examples = {"examples": tf.constant(serialized_examples(ROWS))}
    response = stub.Predict(predict_request(examples, "examples"))
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["scores"]), scores, atol=1e-6)
    inputs, rows = rank_inputs(SCHEMA, 2, 3)
    response = stub.Predict(predict_request(inputs, "rank"))
    np.testing.assert_allclose(
        tf.make_ndarray(response.outputs["scores"]),
        model_scores(model, rows).reshape(2, 3),
        atol=1e-6,
    )


def test_classify_and_regress_answer_an_example_each(model: Any, stub: Any) -> None:
    expected = model_scores(model, ROWS)
    serialized = serialized_examples(ROWS)
    request = with_examples(classification_pb2.ClassificationRequest(), "classify", serialized)
    result = stub.Classify(request).result
    assert [[c.label for c in row.classes] for row in result.classifications] == [
        ["0", "1"]
    ] * NUM_ROWS
    found = [row.classes[1].score for row in result.classifications]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    request = with_examples(regression_pb2.RegressionRequest(), "regress", serialized)
    response = stub.Regress(request)
    assert response.model_spec.signature_name == "regress"
    found = [regression.value for regression in response.result.regressions]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_examples_take_from_the_context_what_they_leave_out(stub: Any, client: Client) -> None:
    request = regression_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = "tiny", "regress"
    together = request.input.example_list_with_context
    together.context.features.feature["user"].int64_list.value.append(7)
    together.context.features.feature["device"].bytes_list.value.append(b"tv")
    for device in (None, b"phone"):
        features = together.examples.add().features
        features.feature["item"].bytes_list.value.append(b"i2")
        if device:
            features.feature["device"].bytes_list.value.append(device)
    found = [regression.value for regression in stub.Regress(request).result.regressions]
    rows = {"user": [7, 7], "item": ["i2", "i2"], "device": ["tv", "phone"]}
    np.testing.assert_allclose(found, client.predict(rows), atol=1e-6)


def test_metadata_holds_the_signatures(stub: Any) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tiny"
    response = stub.GetModelMetadata(request)
    assert response.model_spec.version.value == 1
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "examples", "classify", "regress", "rank"} <= set(
        signatures.signature_def
    )


def test_status_of_the_served_version(status_stub: Any) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "tiny"
    statuses = status_stub.GetModelStatus(request).model_version_status
    assert [(s.version, s.state) for s in statuses] == [(1, State.AVAILABLE)]
    request.model_spec.version.value = 1
    assert len(status_stub.GetModelStatus(request).model_version_status) == 1
    request.model_spec.version.value = 9
    assert refused(lambda: status_stub.GetModelStatus(request)) == (
        Code.NOT_FOUND,
        "Could not find version 9 of model tiny",
    )
    request.model_spec.name = "other"
    request.model_spec.ClearField("version")
    assert refused(lambda: status_stub.GetModelStatus(request)) == (
        Code.NOT_FOUND,
        "Could not find any versions of model other",
    )


def test_output_filter(stub: Any) -> None:
    request = predict_request()
    request.output_filter.append("scores")
    assert set(stub.Predict(request).outputs) == {"scores"}
    examples = {"inputs": tf.constant(serialized_examples(ROWS))}
    request = predict_request(examples, "classify")
    assert set(stub.Predict(request).outputs) == {"classes", "scores"}
    request.output_filter.append("classes")
    assert set(stub.Predict(request).outputs) == {"classes"}
    request.output_filter.append("odds")
    assert refused(lambda: stub.Predict(request)) == (
        Code.INVALID_ARGUMENT,
        "output tensor alias not found in signature: odds Outputs expected to be in the set "
        "{classes,scores}.",
    )


# What it answers to mistakes: the table of the real server's answers.


def test_unknown_model_version_and_signature(stub: Any) -> None:
    request = predict_request()
    request.model_spec.name = "other"
    assert refused(lambda: stub.Predict(request)) == (
        Code.NOT_FOUND,
        "Servable not found for request: Latest(other)",
    )
    request = predict_request()
    request.model_spec.version.value = 3
    assert refused(lambda: stub.Predict(request)) == (
        Code.NOT_FOUND,
        "Servable not found for request: Specific(tiny, 3)",
    )
    request = predict_request(signature="scoring")
    assert refused(lambda: stub.Predict(request)) == (
        Code.FAILED_PRECONDITION,
        'Serving signature key "scoring" not found.',
    )
    request = predict_request()
    request.model_spec.version_label = "stable"
    assert refused(lambda: stub.Predict(request))[0] == Code.INVALID_ARGUMENT
    assert refused(lambda: stub.Predict(predict_pb2.PredictRequest())) == (
        Code.INVALID_ARGUMENT,
        "Missing ModelSpec",
    )


def test_missing_and_extra_inputs_are_named(stub: Any) -> None:
    request = predict_request({"item": tf.constant(["i1"]), "colour": tf.constant(["red"])})
    code, text = refused(lambda: stub.Predict(request))
    assert code == Code.INVALID_ARGUMENT
    assert text.startswith("input size does not match signature: 2!=11 len({colour,item})")
    assert "Sent extra: {colour}. Missing but required: {age,device," in text
    tensors = raw_tensors(ROWS)
    tensors["colour"] = tensors.pop("item")
    code, text = refused(lambda: stub.Predict(predict_request(tensors)))
    assert code == Code.INVALID_ARGUMENT
    assert text.startswith(
        "Signature input alias: item(feed name: serving_default_item:0) not found in request and "
        "no default value provided. Inputs expected to be in the request {age,colour,"
    )


def test_wrong_dtypes_shapes_and_row_counts(stub: Any) -> None:
    good = raw_tensors(ROWS)
    request = predict_request(good | {"user": tf.zeros([NUM_ROWS])})
    position = sorted(good).index("user")
    assert refused(lambda: stub.Predict(request)) == (
        Code.INVALID_ARGUMENT,
        f"Expects arg[{position}] to be int64 but float is provided",
    )
    for name, values, wanted in (
        ("user", tf.zeros([NUM_ROWS, 1], tf.int64), "found shape [5, 1], expected [-1]"),
        ("price", tf.zeros([1, 1]), "found shape [1, 1], expected [-1]"),
        ("seen", tf.zeros([NUM_ROWS, 3], tf.int64), "found shape [5, 3], expected [-1, 2]"),
        ("user", tf.zeros([4], tf.int64), "differ in their number of rows"),
    ):
        code, text = refused(lambda v=good | {name: values}: stub.Predict(predict_request(v)))
        assert code == Code.INVALID_ARGUMENT
        assert wanted in text
    ragged, _ = rank_inputs(SCHEMA, 2, 3)
    ragged["user"] = ragged["user"][:1]
    code, text = refused(lambda: stub.Predict(predict_request(ragged, "rank")))
    assert code == Code.INVALID_ARGUMENT
    assert "number of rows" in text
    uneven, _ = rank_inputs(SCHEMA, 2, 3)
    uneven["price"] = uneven["price"][:, :2]
    code, text = refused(lambda: stub.Predict(predict_request(uneven, "rank")))
    assert code == Code.INVALID_ARGUMENT
    assert "candidates differ" in text


def test_malformed_examples_name_the_feature(stub: Any) -> None:
    broken = tf.train.Example()
    broken.features.feature["user"].float_list.value.append(1.0)
    request = with_examples(
        regression_pb2.RegressionRequest(), "regress", [broken.SerializeToString()]
    )
    code, text = refused(lambda: stub.Regress(request))
    assert code == Code.INVALID_ARGUMENT
    assert "Key: user" in text
    assert "int64" in text
    request = predict_request({"examples": tf.constant([b"\xff\xff not a proto"])}, "examples")
    code, text = refused(lambda: stub.Predict(request))
    assert code == Code.INVALID_ARGUMENT
    assert "parse" in text


def test_classify_and_regress_want_signatures_made_for_them(stub: Any) -> None:
    serialized = serialized_examples(ROWS)
    for signature, code, text in (
        ("nothing", Code.INVALID_ARGUMENT, "No signature was found with the name: nothing"),
        ("", Code.INVALID_ARGUMENT, "Expected one input Tensor."),
        ("examples", Code.INVALID_ARGUMENT, "No classification inputs found in SignatureDef"),
        ("regress", Code.INVALID_ARGUMENT, "Expected classification signature outputs"),
    ):
        request = with_examples(classification_pb2.ClassificationRequest(), signature, serialized)
        found = refused(lambda r=request: stub.Classify(r))
        assert found[0] == code
        assert found[1].startswith(text)
    for signature, text in (
        ("classify", "Expected one output Tensor."),
        ("rank", "Expected one input Tensor."),
        ("examples", "No regression inputs found in SignatureDef"),
    ):
        request = with_examples(regression_pb2.RegressionRequest(), signature, serialized)
        code, found = refused(lambda r=request: stub.Regress(r))
        assert code == Code.INVALID_ARGUMENT
        assert found.startswith(text)
    request = with_examples(regression_pb2.RegressionRequest(), "regress", [])
    assert refused(lambda: stub.Regress(request)) == (Code.INVALID_ARGUMENT, "Input is empty.")


def test_metadata_fields_are_checked(stub: Any) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "tiny"
    assert refused(lambda: stub.GetModelMetadata(request))[0] == Code.INVALID_ARGUMENT
    request.metadata_field.append("weights")
    request.model_spec.name = "other"  # is looked for later
    assert refused(lambda: stub.GetModelMetadata(request)) == (
        Code.INVALID_ARGUMENT,
        "Metadata field %s is not supportedweights",
    )


def test_what_is_not_implemented_says_so(stub: Any, status_stub: Any) -> None:
    call = stub.MultiInference
    assert refused(lambda: call(inference_pb2.MultiInferenceRequest()))[0] == Code.UNIMPLEMENTED
    reload = status_stub.HandleReloadConfigRequest
    code, _ = refused(lambda: reload(model_management_pb2.ReloadConfigRequest()))
    assert code == Code.UNIMPLEMENTED


def broken_tensors() -> dict[str, tensor_pb2.TensorProto]:
    """Tensors for the int64 feature `user` of shape `[5]` that cannot be read."""

    def tensor(*sizes: int, **fields: Any) -> tensor_pb2.TensorProto:
        proto = tensor_pb2.TensorProto(dtype=tf.int64.as_datatype_enum, **fields)
        for size in sizes:
            proto.tensor_shape.dim.add(size=size)
        return proto

    twice = tensor(NUM_ROWS, int64_val=[1])
    more = tensor_pb2.TensorProto()
    more.tensor_shape.dim.add(size=2**40)
    appended = twice.SerializeToString() + more.SerializeToString()
    return {
        "content too short": tensor(NUM_ROWS, tensor_content=b"\0" * 39),
        "content too long": tensor(NUM_ROWS, tensor_content=b"\0" * 48),
        "negative size": tensor(-1, int64_val=[1]),
        "two negative sizes": tensor(-5, -1, int64_val=[1]),
        "enormous": tensor(2**40, int64_val=[1]),
        "overflowing": tensor(2**32, 2**32, 2**32, int64_val=[1]),
        "zero and enormous": tensor(0, 2**62, 2**62, int64_val=[]),
        "many dimensions": tensor(*[1] * 300, int64_val=[1]),
        "a shape in two parts": tensor_pb2.TensorProto.FromString(appended),
    }


@pytest.mark.parametrize("case", broken_tensors())
def test_tensors_that_cannot_be_read(stub: Any, case: str) -> None:
    request = predict_request()
    request.inputs["user"].CopyFrom(broken_tensors()[case])
    assert refused(lambda: stub.Predict(request)) == (
        Code.INVALID_ARGUMENT,
        "tensor parsing error: user",
    )


def test_strings_that_cannot_be_read_or_would_be_filled_without_end(stub: Any) -> None:
    for sizes, fields in (
        ([NUM_ROWS], {"tensor_content": bytes([1, 1, 1, 1, 2]) + b"abcde"}),  # too short
        ([NUM_ROWS], {"tensor_content": bytes([1, 1, 1, 1, 1]) + b"abcdef"}),  # too long
        ([NUM_ROWS], {"tensor_content": b"\xff" * 4}),
        ([2**17], {"tensor_content": bytes(100)}),
        ([2**17], {"string_val": [b"a"] * 100}),
        ([2**16], {"string_val": [b"a" * 100_000]}),  # 6 GB
    ):
        request = predict_request()
        proto = request.inputs["item"]
        proto.Clear()
        proto.MergeFrom(tensor_pb2.TensorProto(dtype=tf.string.as_datatype_enum, **fields))
        for size in sizes:
            proto.tensor_shape.dim.add(size=size)
        assert refused(lambda r=request: stub.Predict(r)) == (
            Code.INVALID_ARGUMENT,
            "tensor parsing error: item",
        )


def test_tensors_are_read_as_tensorflow_reads_them(stub: Any, client: Client) -> None:
    plain = that_fit(ROWS)

    def scores(name: str, change: Callable[[tensor_pb2.TensorProto], None]) -> np.ndarray:
        request = predict_request()
        change(request.inputs[name])
        return tf.make_ndarray(stub.Predict(request).outputs["scores"])

    def as_content(proto: tensor_pb2.TensorProto) -> None:  # TensorFlow's: lengths, then bytes
        values = list(proto.string_val)
        proto.ClearField("string_val")
        proto.tensor_content = bytes(map(len, values)) + b"".join(values)

    def as_values(*values: int) -> Callable[[tensor_pb2.TensorProto], None]:
        def change(proto: tensor_pb2.TensorProto) -> None:
            proto.ClearField("tensor_content")
            proto.int64_val.extend(values)

        return change

    expected = client.predict(plain)
    for name in ("item", "history"):
        np.testing.assert_array_equal(scores(name, as_content), expected)
    no_rank = scores("item", lambda p: setattr(p.tensor_shape, "unknown_rank", True))
    np.testing.assert_array_equal(no_rank, expected)
    users = client.predict(plain | {"user": [7, -3, 7, 0, 7]})
    np.testing.assert_array_equal(scores("user", as_values(7, -3, 7, 0, 7, -3, -3)), users)
    zeros = client.predict(plain | {"user": [0] * NUM_ROWS})
    np.testing.assert_array_equal(scores("user", as_values()), zeros)


def test_a_tensor_without_a_shape_is_a_scalar(tmp_path: Path) -> None:
    class Twice(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def twice(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x + x}

    module = Twice()
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": module.twice})
    model = ServedModel("m", 1, tmp_path / "1")
    request = predict_pb2.PredictRequest()
    request.inputs["x"].CopyFrom(tensor_pb2.TensorProto(dtype=1, float_val=[3.0, 4.0]))
    answer = tf.make_ndarray(answers.predict(model, request).outputs["y"])
    assert (answer.shape, answer.item()) == ((), 6.0)


def test_what_a_scalar_is_good_for_the_graph_says(stub: Any) -> None:
    request = predict_request()
    user = tensor_pb2.TensorProto(dtype=tf.int64.as_datatype_enum, int64_val=[7] * NUM_ROWS)
    request.inputs["user"].CopyFrom(user)
    code, text = refused(lambda: stub.Predict(request))
    assert code == Code.INVALID_ARGUMENT
    assert "0 dimensions" in text


def test_the_last_value_fills_a_tensor_as_the_protocol_says(stub: Any, client: Client) -> None:
    request = predict_request()
    request.inputs["user"].CopyFrom(tf.make_tensor_proto(7, tf.int64, [NUM_ROWS]))
    assert len(request.inputs["user"].int64_val) == 1
    filled = tf.make_ndarray(stub.Predict(request).outputs["scores"])
    np.testing.assert_allclose(
        filled, client.predict(that_fit(ROWS) | {"user": [7] * NUM_ROWS}), atol=1e-6
    )


def test_bytes_that_are_not_utf8_are_an_unknown_token(stub: Any) -> None:
    tensors = raw_tensors(ROWS)
    unknown = stub.Predict(predict_request(tensors | {"item": tf.constant(["?"] * NUM_ROWS)}))
    broken = tensors | {"item": tf.constant([b"\xff\xfe\x00"] * NUM_ROWS)}
    assert stub.Predict(predict_request(broken)).outputs == unknown.outputs


def test_a_request_that_is_too_large_is_refused(stub: Any) -> None:
    request = predict_request({"item": tf.constant(["x" * MAX_REQUEST_BYTES])})
    assert refused(lambda: stub.Predict(request))[0] == Code.RESOURCE_EXHAUSTED


def test_requests_that_cannot_be_read_leave_no_memory_behind(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")

    def send(count: int) -> None:
        for _ in range(count):
            code, message = refused(lambda: call(b"\xff" * 100))
            assert code == Code.INTERNAL
            assert "can't be read as a PredictRequest" in message

    send(200)
    before = resident_mb()
    send(1000)
    assert resident_mb() - before < 8  # grpcio, reading them itself, keeps 16 KB of each


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mangled_requests_and_the_server_still_answers_right(
    count: int,
    server: Server,
    channel: grpc.Channel,
    stub: Any,
    model: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    generator = random.Random(0)
    good = predict_request().SerializeToString()
    raw_call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    classify = channel.unary_unary("/tensorflow.serving.PredictionService/Classify")
    answered = set()
    for number in range(3 * count // 5):
        if number % 3 == 0:  # noise
            body = generator.randbytes(generator.randrange(200))
        elif number % 3 == 1:  # a good request with bytes changed
            mangled = bytearray(good)
            for _ in range(generator.randrange(1, 6)):
                mangled[generator.randrange(len(mangled))] = generator.randrange(256)
            body = bytes(mangled)
        else:  # cut off
            body = good[: generator.randrange(len(good))]
        try:
            (classify if number % 7 == 0 else raw_call)(body)
        except grpc.RpcError as error:
            answered.add(error.code())
    for _ in range(2 * count // 5):  # well-formed protos that make no sense
        request = predict_request(signature=generator.choice(["", "", "rank", "examples"]))
        for _ in range(generator.randrange(1, 4)):
            proto = request.inputs[generator.choice([*ROWS, "examples", "x" * 5000])]
            proto.dtype = generator.choice([0, 1, 3, 7, 9, 19, 23, 101, 9999])
            del proto.tensor_shape.dim[:]
            for _ in range(generator.randrange(4)):
                proto.tensor_shape.dim.add(size=generator.choice([-2, 0, 1, 5, 2**31, 2**62]))
            if generator.random() < 0.5:
                proto.tensor_content = generator.randbytes(generator.randrange(50))
            if generator.random() < 0.5:
                proto.string_val.append(generator.randbytes(5))
        try:
            stub.Predict(request)
        except grpc.RpcError as error:
            answered.add(error.code())
    assert Code.INVALID_ARGUMENT in answered
    assert answered <= {
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,  # the model's name was mangled
        Code.FAILED_PRECONDITION,  # the signature's
        Code.INTERNAL,  # what gRPC itself says to bytes that are no proto
    }
    assert "a request failed" not in caplog.text  # the server foresaw all that reached it
    for _ in range(50):
        rest(server, "POST", "/v1/models/tiny:predict", generator.randbytes(100), expect=400)
    scores = tf.make_ndarray(stub.Predict(predict_request()).outputs["scores"])
    np.testing.assert_allclose(scores, model_scores(model, ROWS), atol=1e-6)


# REST.


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


def json_columns() -> dict[str, list[Any]]:
    return {
        name: [
            [v.decode() if isinstance(v, bytes) else v for v in row]
            if isinstance(row, list)
            else (row.decode() if isinstance(row, bytes) else row)
            for row in values.numpy().tolist()
        ]
        for name, values in raw_tensors(ROWS).items()
    }


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


def test_rest_refuses_what_is_too_large_or_of_unknown_length(server: Server) -> None:
    path = "/v1/models/tiny:predict"
    answer = rest(server, "POST", path, b" " * (MAX_REQUEST_BYTES + 1), expect=413)
    assert str(MAX_REQUEST_BYTES) in answer["error"]
    for header, status in (
        (b"Content-Length: 99999999999999999999999\r\n", b" 413 "),
        (b"Content-Length: -1\r\n", b" 411 "),
        (b"Transfer-Encoding: chunked\r\n", b" 411 "),
    ):
        with socket.create_connection(("127.0.0.1", server.rest_port), timeout=20) as connection:
            connection.sendall(b"POST " + path.encode() + b" HTTP/1.1\r\nHost: x\r\n" + header)
            connection.sendall(b"\r\n")
            connection.shutdown(socket.SHUT_WR)
            assert status in connection.recv(65_536).split(b"\r\n")[0]
    assert rest(server, "GET", "/v1/models/tiny")["model_version_status"]


# Versions.


def versions_of(server: Server, name: str = "tiny") -> dict[str, str]:
    statuses = rest(server, "GET", f"/v1/models/{name}")["model_version_status"]
    return {status["version"]: status["state"] for status in statuses}


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.02)


def small_version(folder: Path, seed: int, items: list[str]) -> Any:
    """Exports a model of one feature into `folder/m`."""
    model = spread_weights(LR(SCHEMA.select(["item"])), seed)
    # The same path each time: a table must not be mistaken for that of the version before.
    export(model, fake_dataset(folder / "v", TOKENS | {"item": items}), folder / "m")
    return model


def test_a_new_version_takes_over_without_a_failed_request(tmp_path: Path) -> None:
    tokens = ["a", "b", "c", "d"]
    small_version(tmp_path, 1, tokens)
    with (
        Server({"m": tmp_path / "m"}, grpc_port=0, rest_port=0, poll_seconds=0.05) as server,
        Client(f"127.0.0.1:{server.grpc_port}", "m") as client,
    ):
        old = client.predict({"item": tokens})
        answers: list[np.ndarray] = []
        failures: list[Exception] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                try:
                    answers.append(client.predict({"item": tokens}))
                except Exception as error:
                    failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        model = small_version(tmp_path, 2, tokens[::-1])
        wait_until(lambda: versions_of(server, "m") == {"1": "END", "2": "AVAILABLE"})
        count = len(answers)
        wait_until(lambda: len(answers) > count + 5)
        stop.set()
        for thread in threads:
            thread.join()
        new = client.predict({"item": tokens})
        ids = np.array([6, 5, 4, 3])
        np.testing.assert_allclose(new, tf.sigmoid(model({"item": ids}, training=False)), atol=1e-6)
        assert not failures
        assert not np.allclose(old, new)
        assert all(np.array_equal(a, old) or np.array_equal(a, new) for a in answers)
        with (
            Client(f"127.0.0.1:{server.grpc_port}", "m", version=1) as first,
            pytest.raises(
                ServingError, match=r"NOT_FOUND: Servable not found for request: Specific\(m, 1\)"
            ),
        ):
            first.predict({"item": tokens})
        shutil.rmtree(tmp_path / "m" / "2")  # back to the one before
        wait_until(lambda: versions_of(server, "m") == {"1": "AVAILABLE", "2": "END"})
        np.testing.assert_array_equal(client.predict({"item": tokens}), old)


def test_a_broken_version_is_reported_and_never_served(tmp_path: Path) -> None:
    tokens = ["a", "b", "c", "d"]
    small_version(tmp_path, 1, tokens)
    with (
        Server({"m": tmp_path / "m"}, grpc_port=0, rest_port=0, poll_seconds=0.05) as server,
        Client(f"127.0.0.1:{server.grpc_port}", "m") as client,
    ):
        scores = client.predict({"item": tokens})
        broken = tmp_path / "m" / "2"
        shutil.copytree(tmp_path / "m" / "1", tmp_path / "copy")
        (tmp_path / "copy" / "variables" / "variables.index").write_bytes(b"no")
        (tmp_path / "copy").rename(broken)
        wait_until(lambda: versions_of(server, "m") == {"1": "AVAILABLE", "2": "END"})
        statuses = rest(server, "GET", "/v1/models/m/versions/2")["model_version_status"]
        assert statuses[0]["status"]["error_code"] != "OK"
        assert statuses[0]["status"]["error_message"]
        np.testing.assert_array_equal(client.predict({"item": tokens}), scores)
        # Repaired in place, it is tried again.
        good = tmp_path / "m" / "1" / "variables" / "variables.index"
        shutil.copyfile(good, broken / "variables" / "variables.index")
        wait_until(lambda: versions_of(server, "m") == {"1": "END", "2": "AVAILABLE"})


def test_warm_up_requests_that_fail_keep_a_version_out(tmp_path: Path) -> None:
    small_version(tmp_path, 1, ["a", "b", "c", "d"])
    request = predict_request({"colour": tf.constant(["red"])})
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    extra = tmp_path / "m" / "1" / "assets.extra"
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())
    with pytest.raises(ValueError, match=r"version 1: .*warm-up request failed.*colour"):
        Server({"m": tmp_path / "m"}, grpc_port=0, rest_port=0).start()


def test_a_server_without_a_version_or_a_free_port_does_not_start(
    server: Server, directory: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"model 'm': .*nowhere holds no version that loads"):
        Server({"m": tmp_path / "nowhere"}, grpc_port=0, rest_port=0).start()
    with pytest.raises(OSError, match=f"grpc_port: 127.0.0.1:{server.grpc_port}"):
        Server({"m": directory}, grpc_port=server.grpc_port, rest_port=0).start()
    with pytest.raises(OSError, match=f"rest_port: 127.0.0.1:{server.rest_port}"):
        Server({"m": directory}, grpc_port=0, rest_port=server.rest_port).start()


SLOW = """
import sys
from tfctr.cli import app
from tfctr.serving.served_model import ServedModel
run = ServedModel.run
def wait_then_run(self, *args):
    print("running", flush=True)
    sys.stdin.readline()
    return run(self, *args)
import tfctr.serving
start = tfctr.serving.Server.start
def start_then_slow(self):
    start(self)
    ServedModel.run = wait_then_run  # now that the warm-up requests are answered
    return self
tfctr.serving.Server.start = start_then_slow
app(["serve", sys.argv[1], "--port=0", "--rest-port=0"])
"""


def post(connection: http.client.HTTPConnection, body: bytes = b"") -> http.client.HTTPResponse:
    """The answer to a request with the rows, or with this body."""
    text = body or json.dumps({"inputs": json_columns()}).encode()
    connection.request("POST", "/v1/models/tiny:predict", text)
    return connection.getresponse()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("over", ["grpc", "rest"])
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
            assert client.answering() == 1
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


# The client.


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


def test_the_client_s_errors_say_what_is_wrong(client: Client, server: Server) -> None:
    for features, kind, text in (
        ({"colour": ["red"]}, ValueError, "no feature 'colour' in the model; there are: age, "),
        ({"user": [1], "item": []}, ValueError, "columns differ in length: user 1, item 0"),
        ({}, ValueError, "no features given"),
        ({"user": ["7"]}, TypeError, "feature 'user' takes int64, found '7'"),
        ({"user": [1.5]}, TypeError, "feature 'user' takes int64"),
        ({"user": [True]}, TypeError, "feature 'user' takes int64"),
        ({"item": [3]}, TypeError, "feature 'item' takes strings, found 3"),
        ({"price": ["x"]}, TypeError, "feature 'price' takes float32"),
        ({"genres": ["war"]}, TypeError, "feature 'genres' takes a list a row, found 'war'"),
        ({"tags": [[1, 2, 3]]}, ValueError, "feature 'tags' takes 2 values a row, found 3"),
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


def test_the_server_takes_an_input_proto_of_neither_kind(stub: Any) -> None:
    request = regression_pb2.RegressionRequest(input=input_pb2.Input())
    request.model_spec.name, request.model_spec.signature_name = "tiny", "regress"
    assert refused(lambda: stub.Regress(request)) == (Code.INVALID_ARGUMENT, "Input is empty.")


def test_very_long_names_do_not_break_the_answer(stub: Any) -> None:
    request = predict_request()
    request.model_spec.signature_name = string.ascii_letters * 1000
    code, text = refused(lambda: stub.Predict(request))
    assert code == Code.FAILED_PRECONDITION
    assert len(text) <= 2000
