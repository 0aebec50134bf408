"""The local server answers over gRPC as TF Serving does, whatever it is sent."""

import random
import re
import string
from collections.abc import Callable
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
    predict_pb2,
    regression_pb2,
)

from tests.serving.raw_rows import (
    NUM_ROWS,
    ROWS,
    SCHEMA,
    model_scores,
    rank_inputs,
    raw_tensors,
    serialized_examples,
    that_fit,
)
from tests.serving.requests import (
    MAX_REQUEST_BYTES,
    Code,
    predict_request,
    refused,
    rest,
    with_examples,
)
from tfctr.serving import Client, Server
from tfctr.serving.server import answers
from tfctr.serving.server.loaded_version import LoadedVersion

State = get_model_status_pb2.ModelVersionStatus


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
    model = LoadedVersion("m", 1, tmp_path / "1")
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
