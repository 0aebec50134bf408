"""Answers requests for scores, which come by gRPC or REST.

The texts and codes of errors are the real server's.
"""

from typing import Any

import grpc
import numpy as np
from tensorflow_serving.apis import (
    classification_pb2,
    predict_pb2,
    regression_pb2,
)

from tfctr.serving.errors import ServingError, invalid
from tfctr.serving.server.loaded_version import DEFAULT_SIGNATURE, LoadedVersion
from tfctr.serving.server.raw_requests import RawPredictRequest
from tfctr.serving.server.tensors import to_proto


def predict(model: LoadedVersion, request: Any) -> Any:
    """`PredictRequest` to `PredictResponse`.

    Args:
        model: the version.
        request: a `RawPredictRequest`, as the server reads it; or a `PredictRequest`.

    Raises:
        ServingError: the request does not fit the version, or its graph fails.
    """
    if isinstance(request, predict_pb2.PredictRequest):
        request = RawPredictRequest.FromString(request.SerializeToString())
    signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
    if signature not in model.signature_defs:
        raise ServingError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f'Serving signature key "{signature}" not found.',
        )
    inputs = dict(request.inputs)
    model.check_inputs(signature, inputs)
    outputs = model.run(signature, inputs, list(request.output_filter))
    response = predict_pb2.PredictResponse()
    _fill_spec(response.model_spec, model, signature)
    for alias, array in outputs.items():
        response.outputs[alias].CopyFrom(to_proto(array))
    return response


def classify(model: LoadedVersion, request: Any) -> Any:
    """`ClassificationRequest` to `ClassificationResponse`.

    Raises:
        ServingError: as `predict`.
    """
    signature, definition = _for_examples(model, request)
    if len(definition.outputs) not in (1, 2):
        found = len(definition.outputs)
        raise invalid(f"Expected one or two output Tensors, found {found}")
    _check_inputs(definition, "classification")
    if not {"classes", "scores"} <= set(definition.outputs):
        raise invalid(
            'Expected classification signature outputs to contain at least one of "classes" or '
            f'"scores". Signature was: {definition}'
        )
    outputs = _run_examples(model, request, signature)
    response = classification_pb2.ClassificationResponse()
    _fill_spec(response.model_spec, model, signature)
    for labels, scores in zip(outputs["classes"], outputs["scores"], strict=True):
        classes = response.result.classifications.add().classes
        for label, score in zip(labels, scores, strict=True):
            classes.add(label=label.decode(), score=score)
    return response


def regress(model: LoadedVersion, request: Any) -> Any:
    """`RegressionRequest` to `RegressionResponse`.

    Raises:
        ServingError: as `predict`.
    """
    signature, definition = _for_examples(model, request)
    if len(definition.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    _check_inputs(definition, "regression")
    if "outputs" not in definition.outputs:
        raise invalid(f"No regression outputs found in SignatureDef: {definition}")
    outputs = _run_examples(model, request, signature)
    response = regression_pb2.RegressionResponse()
    _fill_spec(response.model_spec, model, signature)
    for value in outputs["outputs"]:
        response.result.regressions.add(value=value)
    return response


def _for_examples(model: LoadedVersion, request: Any) -> tuple[str, Any]:
    """The name and the `SignatureDef` that a request with Examples asks for."""
    signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
    if signature not in model.signature_defs:
        raise invalid(f"No signature was found with the name: {signature}")
    definition = model.signature_defs[signature]
    if len(definition.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    return signature, definition


def _check_inputs(definition: Any, task: str) -> None:
    if "inputs" not in definition.inputs:
        raise invalid(f"No {task} inputs found in SignatureDef: {definition}")


def _run_examples(model: LoadedVersion, request: Any, signature: str) -> dict[str, np.ndarray]:
    """The outputs of a signature for the serialized Examples of a request."""
    examples = _serialized(request.input)
    if not examples:
        raise invalid("Input is empty.")
    return model.run(signature, {"inputs": np.array(examples, dtype=object)})


def _serialized(message: Any) -> list[bytes]:
    """The serialized Examples of an `Input`; features left out come from its context, if any."""
    if message.WhichOneof("kind") != "example_list_with_context":
        return [example.SerializeToString() for example in message.example_list.examples]
    inputs = message.example_list_with_context
    context = inputs.context.SerializeToString()
    return [context + example.SerializeToString() for example in inputs.examples]


def _fill_spec(spec: Any, model: LoadedVersion, signature: str) -> None:
    spec.name = model.name
    spec.version.value = model.version
    spec.signature_name = signature
