"""Requests to answers, whichever way they came: the code of TF Serving's services.

Wordings and codes are the real server's; each function takes the version that answers.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)

from tfctr.serving.errors import ServingError, invalid, no_servable, not_found
from tfctr.serving.raw_requests import RawPredictRequest
from tfctr.serving.served_model import DEFAULT_SIGNATURE, ServedModel
from tfctr.serving.tensors import to_proto

if TYPE_CHECKING:
    from tfctr.serving.model_versions import ModelVersions


def find(models: Mapping[str, "ModelVersions"], request: Any) -> ServedModel:
    """The version that a request asks for."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    if not spec.name:
        raise invalid("ModelSpec has no name specified.")
    version = spec.version.value if spec.HasField("version") else None
    model = models.get(spec.name)
    if model is None:
        if spec.HasField("version_label"):
            raise invalid(f"Unrecognized servable version label: {spec.version_label}")
        raise no_servable(spec.name, version)
    return model.get(version, spec.version_label)


def predict(model: ServedModel, request: Any) -> Any:
    """`PredictRequest` to `PredictResponse`.

    Args:
        model: the version.
        request: a `RawPredictRequest`, as the server reads it; or a `PredictRequest`.
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


def classify(model: ServedModel, request: Any) -> Any:
    """`ClassificationRequest` to `ClassificationResponse`."""
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


def regress(model: ServedModel, request: Any) -> Any:
    """`RegressionRequest` to `RegressionResponse`."""
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


def model_metadata(models: Mapping[str, "ModelVersions"], request: Any) -> Any:
    """`GetModelMetadataRequest` to `GetModelMetadataResponse`."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != "signature_def":  # the real server puts the name behind, not into its text
            raise invalid(f"Metadata field %s is not supported{field}")
    model = find(models, request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in model.signature_defs.items():
        signatures.signature_def[name].CopyFrom(definition)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    _fill_spec(response.model_spec, model, "")
    response.metadata["signature_def"].Pack(signatures)
    return response


def model_status(models: Mapping[str, "ModelVersions"], request: Any) -> Any:
    """`GetModelStatusRequest` to `GetModelStatusResponse`.

    The real server does not look at a label here, known or not: it answers with all versions.
    """
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    version = spec.version.value if spec.HasField("version") else None
    model = models.get(spec.name)
    if model is None:
        what = "any versions" if version is None else f"version {version}"
        raise not_found(f"Could not find {what} of model {spec.name}")
    return get_model_status_pb2.GetModelStatusResponse(model_version_status=model.status(version))


def _for_examples(model: ServedModel, request: Any) -> tuple[str, Any]:
    """The name and the `SignatureDef` of what a request with Examples asks for."""
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


def _run_examples(model: ServedModel, request: Any, signature: str) -> dict[str, np.ndarray]:
    """The outputs of a signature for the serialized Examples of a request."""
    examples = _serialized(request.input)
    if not examples:
        raise invalid("Input is empty.")
    return model.run(signature, {"inputs": np.array(examples, dtype=object)})


def _serialized(message: Any) -> list[bytes]:
    """Each Example of an `Input`; what it leaves out it takes from the context, if there is one."""
    if message.WhichOneof("kind") != "example_list_with_context":
        return [example.SerializeToString() for example in message.example_list.examples]
    together = message.example_list_with_context
    context = together.context.SerializeToString()
    return [context + example.SerializeToString() for example in together.examples]


def _fill_spec(spec: Any, model: ServedModel, signature: str) -> None:
    spec.name = model.name
    spec.version.value = model.version
    spec.signature_name = signature
