"""The REST form of TF Serving's API: JSON over HTTP.

POST /v1/models/NAME[/versions/V]:predict    {"signature_name": ..., "instances": [...]}
                                          or {"signature_name": ..., "inputs": {...}}
GET  /v1/models/NAME[/versions/V]            states of the versions
GET  /v1/models/NAME[/versions/V]/metadata   signatures
"""

import base64
import binascii
import json
import logging
import re
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
)

from tfctr.serving import answers
from tfctr.serving.errors import ServingError, invalid
from tfctr.serving.model_versions import ModelVersions
from tfctr.serving.served_model import DEFAULT_SIGNATURE, ServedModel
from tfctr.serving.tensors import dtype_name

logger = logging.getLogger(__name__)

_PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d{1,19}))?(:predict|/metadata)?")
_MAX_DEPTH = 8  # dimensions of a tensor
_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
}  # else 500


class RestServer(ThreadingHTTPServer):
    """Answers for `models`; a thread a connection.

    Raises:
        OSError: the address is taken.
    """

    def __init__(
        self,
        address: tuple[str, int],
        models: Mapping[str, ModelVersions],
        max_request_bytes: int,
    ) -> None:
        super().__init__(address, _Handler)
        self.models = models
        self.max_request_bytes = max_request_bytes

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("%s went away", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: RestServer
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a connection may say nothing

    def do_GET(self) -> None:
        self._answer("GET", b"")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self.close_connection = True
            self._send(411, {"error": "Content-Length must be given"})
        elif len(length) > 18 or int(length) > self.server.max_request_bytes:
            self._refuse_body(int(length[:18]))
        else:
            body = self.rfile.read(int(length))
            self._answer("POST", body)

    def _refuse_body(self, length: int) -> None:
        limit = self.server.max_request_bytes
        self.close_connection = True
        left = min(length, 4 * limit)  # a client that is still sending would not read the answer
        while left > 0 and (chunk := self.rfile.read(min(left, 65_536))):
            left -= len(chunk)
        self._send(413, {"error": f"the request has {length} bytes, at most {limit} are taken"})

    def _answer(self, method: str, body: bytes) -> None:
        try:
            status, answer = 200, self._dispatch(method, body)
        except ServingError as error:
            status, answer = _HTTP_STATUS.get(error.code, 500), {"error": error.message}
        except Exception as error:
            logger.exception("a request failed")
            status, answer = 500, {"error": f"{type(error).__name__}: {error}"}
        self._send(status, answer)

    def _dispatch(self, method: str, body: bytes) -> dict[str, Any]:
        match = _PATH.fullmatch(self.path)
        if match is None or (match[3] == ":predict") != (method == "POST"):
            raise invalid(f"Malformed request: {method} {self.path}")
        spec = model_pb2.ModelSpec(name=match[1])
        if match[2]:
            if int(match[2]) > 2**63 - 1:
                raise invalid(f"Failed to convert version: {match[2]} to numeric.")
            spec.version.value = int(match[2])
        if match[3] == ":predict":
            asked = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec)
            return predict_json(answers.find(self.server.models, asked), body)
        if match[3] == "/metadata":
            return _metadata(self.server.models, spec)
        return _as_json(
            answers.model_status(
                self.server.models, get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
            )
        )

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)


def predict_json(model: ServedModel, body: bytes) -> dict[str, Any]:
    """The answer to the body of a `:predict`: "instances" in rows, or "inputs" in columns.

    Raises:
        ServingError: INVALID_ARGUMENT; the text says what in the JSON is wrong.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise invalid("JSON Value: Is not object")
    signature = request.get("signature_name", "")
    if not isinstance(signature, str):
        raise invalid("'signature_name' key must be a string value.")
    signature = signature or DEFAULT_SIGNATURE
    if signature not in model.signature_defs:
        raise invalid(f'Serving signature name: "{signature}" not found in signature def')
    if "instances" in request and "inputs" in request:
        raise invalid("expecting only one of 'inputs' or 'instances' keys to exist")
    definition = model.signature_defs[signature]
    if "instances" in request:
        columns = _columns(request["instances"], sorted(definition.inputs))
    elif "inputs" in request:
        columns = request["inputs"]
        if not isinstance(columns, dict) or _is_base64(columns):
            if len(definition.inputs) > 1:
                raise invalid("inputs is a plain value/list, but expecting an object")
            columns = {next(iter(definition.inputs)): columns}
    else:
        raise invalid("Missing 'inputs' or 'instances' key")
    for name in definition.inputs:
        if name not in columns:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    inputs = {}
    for name, value in columns.items():
        if name not in definition.inputs:
            raise invalid(f"JSON object: does not have named input: {name}")
        inputs[name] = _tensor(name, value, tf.as_dtype(definition.inputs[name].dtype))
    outputs = {name: _plain(name, array) for name, array in model.run(signature, inputs).items()}
    only = next(iter(outputs.values())) if len(outputs) == 1 else None
    if "inputs" in request:
        return {"outputs": outputs if only is None else only}
    if only is not None:
        return {"predictions": only}
    rows = zip(*outputs.values(), strict=True)
    return {"predictions": [dict(zip(outputs, row, strict=True)) for row in rows]}


def _columns(instances: Any, names: list[str]) -> dict[str, list[Any]]:
    """Rows to columns."""
    if not isinstance(instances, list):
        raise invalid("Expecting 'instances' to be an list/array")
    if not instances:
        raise invalid("No values in 'instances' array")
    if not isinstance(instances[0], dict) or _is_base64(instances[0]):
        if len(names) > 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple input "
                "tensors required as per tensorinfo_map"
            )
        return {names[0]: instances}
    for number, row in enumerate(instances):
        if not isinstance(row, dict) or sorted(row) != names:
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: keys must "
                f"be equal to: {','.join(names)}"
            )
    return {name: [row[name] for row in instances] for name in names}


def _tensor(name: str, value: Any, dtype: tf.DType) -> np.ndarray:
    """The array of nested lists, all of one size at each level."""
    shape = []
    inner = value
    while isinstance(inner, list):
        shape.append(len(inner))
        if len(shape) > _MAX_DEPTH:
            raise invalid(f"input {name!r}: lists are nested more than {_MAX_DEPTH} deep")
        inner = inner[0] if inner else None
    leaves: list[Any] = []
    _collect(name, value, shape, dtype, leaves)
    numpy_dtype = object if dtype == tf.string else dtype.as_numpy_dtype
    try:
        return np.array(leaves, dtype=numpy_dtype).reshape(shape)
    except OverflowError as error:
        raise invalid(f"input {name!r}: a number does not fit {dtype.name}") from error


def _collect(name: str, value: Any, shape: list[int], dtype: tf.DType, leaves: list[Any]) -> None:
    if shape:
        if not isinstance(value, list) or len(value) != shape[0]:
            found = f"a list of {len(value)}" if isinstance(value, list) else "a value"
            raise invalid(f"input {name!r}: expecting a list of {shape[0]} but got {found}")
        for item in value:
            _collect(name, item, shape[1:], dtype, leaves)
        return
    if dtype == tf.string and isinstance(value, str):
        leaves.append(value.encode("utf-8", "surrogatepass"))
    elif dtype == tf.string and _is_base64(value):
        try:
            leaves.append(base64.b64decode(value["b64"], validate=True))
        except (binascii.Error, ValueError) as error:
            raise invalid(f"input {name!r}: Unable to base64 decode") from error
    elif (
        isinstance(value, int if dtype == tf.int64 else int | float)
        and not isinstance(value, bool)
        and dtype != tf.string
    ):
        leaves.append(value)
    else:
        raise invalid(
            f"JSON Value: {json.dumps(value)[:200]} of input {name!r} is not of expected type: "
            f"{dtype_name(dtype.as_datatype_enum)}"
        )


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _plain(name: str, array: np.ndarray) -> Any:
    """Nested lists; bytes as text, or in base64 if the output's name ends in `_bytes`."""
    if array.dtype != object:
        return array.tolist()
    texts = [
        {"b64": base64.b64encode(item).decode()} if name.endswith("_bytes") else item.decode()
        for item in array.ravel()
    ]
    return np.array(texts, dtype=object).reshape(array.shape).tolist()


def _metadata(models: Mapping[str, ModelVersions], spec: Any) -> dict[str, Any]:
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=spec, metadata_field=["signature_def"]
    )
    response = answers.model_metadata(answers.find(models, request), request)
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
