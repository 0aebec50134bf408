"""TF Serving's REST API: paths, and the JSON of requests and answers.

POST /v1/models/NAME:predict    {"signature_name": ..., "instances": [...]}
                             or {"signature_name": ..., "inputs": {...}}
POST /v1/models/NAME:classify   {"signature_name": ..., "examples": [{...}], "context": {...}},
POST /v1/models/NAME:regress    the context is optional
GET  /v1/models/NAME            states of the versions
GET  /v1/models/NAME/metadata   signatures

NAME may be followed by /versions/V or /labels/LABEL.
"""

import logging
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from tfctr.serving.errors import ServingError, invalid
from tfctr.serving.server.json_forms import classify_json, predict_json, regress_json
from tfctr.serving.server.model_specs import find_version, model_metadata, model_status
from tfctr.serving.server.model_versions import ModelVersions

logger = logging.getLogger(__name__)

_VERSION = r"(?i:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PATHS = {  # matched with the query, which the real server takes for a part of the path
    "POST": rf"(?i:/v1/models)/(?P<name>[^/:]+){_VERSION}:(?P<verb>predict|classify|regress)",
    "GET": rf"(?i:/v1/models)(?:/(?P<name>[^/:]+))?{_VERSION}(?P<metadata>/metadata)?",
}
_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
}  # else 500


def answer(
    models: Mapping[str, ModelVersions], method: str, path: str, body: bytes
) -> tuple[int, dict[str, Any]]:
    """The HTTP status and the JSON that answer a request; an error is `{"error": ...}`.

    Args:
        models: by name.
        method: "GET" or "POST".
        path: as it was sent, with the query.
        body: of a POST.
    """
    try:
        return 200, _dispatch(models, method, path, body)
    except ServingError as error:
        return _HTTP_STATUS.get(error.code, 500), {"error": error.message}
    except Exception as error:
        logger.exception("a request failed")
        return 500, {"error": f"{type(error).__name__}: {error}"}


def _dispatch(
    models: Mapping[str, ModelVersions], method: str, path: str, body: bytes
) -> dict[str, Any]:
    match = re.fullmatch(_PATHS[method], path, re.ASCII)
    if match is None:
        raise invalid(f"Malformed request: {method} {path}")
    spec = _spec(match)
    if method == "POST":
        asked = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec)
        answering = {"predict": predict_json, "classify": classify_json, "regress": regress_json}
        return answering[match["verb"]](find_version(models, asked), body)
    if match["metadata"]:
        return _metadata(models, spec)
    asked = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
    return _as_json(model_status(models, asked))


def _spec(match: re.Match[str]) -> Any:
    """The `ModelSpec` that a path names."""
    if match["name"] is None:
        raise invalid("Missing model name in request.")
    spec = model_pb2.ModelSpec(name=urllib.parse.unquote(match["name"]))
    if version := match["version"]:
        if len(version) > 19 or int(version) > 2**63 - 1:
            raise invalid(f"Failed to convert version: {version} to numeric.")
        spec.version.value = int(version)
    if match["label"]:
        spec.version_label = urllib.parse.unquote(match["label"])
    return spec


def _metadata(models: Mapping[str, ModelVersions], spec: Any) -> dict[str, Any]:
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=spec, metadata_field=["signature_def"]
    )
    response = model_metadata(models, request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    return {
        "model_spec": _as_json(response.model_spec),
        "metadata": {"signature_def": _as_json(signatures)},
    }


def _as_json(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
