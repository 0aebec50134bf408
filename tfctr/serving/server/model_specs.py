"""Finds the version that a `ModelSpec` names; answers requests for metadata and status.

The texts and codes of errors are the real server's.
"""

from collections.abc import Mapping
from typing import Any

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from tfctr.serving.errors import invalid, no_servable, not_found
from tfctr.serving.server.loaded_version import LoadedVersion
from tfctr.serving.server.model_versions import ModelVersions


def find_version(models: Mapping[str, ModelVersions], request: Any) -> LoadedVersion:
    """The version that a request asks for.

    Raises:
        ServingError: the `ModelSpec` is incomplete; no such model, version or label is served.
    """
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


def model_metadata(models: Mapping[str, ModelVersions], request: Any) -> Any:
    """`GetModelMetadataRequest` to `GetModelMetadataResponse`."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != "signature_def":  # the real server appends the name to its text
            raise invalid(f"Metadata field %s is not supported{field}")
    model = find_version(models, request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in model.signature_defs.items():
        signatures.signature_def[name].CopyFrom(definition)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = model.name
    response.model_spec.version.value = model.version
    response.metadata["signature_def"].Pack(signatures)
    return response


def model_status(models: Mapping[str, ModelVersions], request: Any) -> Any:
    """`GetModelStatusRequest` to `GetModelStatusResponse`.

    Like the real server, it ignores a label, known or not, and answers with all versions.
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
