"""The REST form of TF Serving's API: JSON over HTTP.

POST /v1/models/NAME:predict    {"signature_name": ..., "instances": [...]}
                             or {"signature_name": ..., "inputs": {...}}
POST /v1/models/NAME:classify   {"signature_name": ..., "examples": [{...}], "context": {...}},
POST /v1/models/NAME:regress    the context if there is one
GET  /v1/models/NAME            states of the versions
GET  /v1/models/NAME/metadata   signatures

NAME may be followed by /versions/V or /labels/LABEL.
"""

import base64
import binascii
import json
import logging
import math
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from tfctr.serving import answers
from tfctr.serving.errors import ServingError, invalid
from tfctr.serving.model_versions import ModelVersions
from tfctr.serving.served_model import DEFAULT_SIGNATURE, ServedModel
from tfctr.serving.tensors import dtype_name

logger = logging.getLogger(__name__)

_VERSION = r"(?i:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PATHS = {  # of what is sent, with the query: the real server takes that for a part of the path
    "POST": rf"(?i:/v1/models)/(?P<name>[^/:]+){_VERSION}:(?P<verb>predict|classify|regress)",
    "GET": rf"(?i:/v1/models)(?:/(?P<name>[^/:]+))?{_VERSION}(?P<metadata>/metadata)?",
}
_MAX_DEPTH = 8  # dimensions of a tensor
_MAX_FLOAT = float(np.finfo(np.float32).max)
_MAX_SHOWN = 200  # characters of what is wrong
_RESULTS = "results"  # so says the real server's json_tensor.cc; its documentation says "result"
_WHOLE = {tf.float32: (1 - 2**24, 2**24 - 1), tf.int64: (-(2**63), 2**63 - 1)}  # what may be sent
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

    Attributes:
        draining: whether no new requests are taken.

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
        self._changed = threading.Condition()
        self._answering = 0
        self.draining = False

    def drain(self, seconds: float) -> None:
        """Takes no new requests, and waits for those in flight, `seconds` at most."""
        self.shutdown()
        self.socket.close()  # else who connects now would wait for an answer
        with self._changed:
            self.draining = True
            self._changed.wait_for(lambda: not self._answering, seconds)
        self.server_close()

    @contextmanager
    def in_flight(self) -> Iterator[bool]:
        """While a request is read and answered; whether it may be."""
        with self._changed:
            taken = not self.draining
            self._answering += taken
        try:
            yield taken
        finally:
            with self._changed:
                self._answering -= taken
                self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("%s went away", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: RestServer
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a connection may say nothing

    def do_GET(self) -> None:
        self._take(lambda: self._answer("GET", b""))

    def do_POST(self) -> None:
        self._take(self._post)

    def _take(self, answer: Callable[[], None]) -> None:
        with self.server.in_flight() as taken:
            if taken:
                answer()
            else:  # on a connection that was open before
                self._refuse(503, "the server is stopping")

    def _post(self) -> None:
        length, limit = self._content_length(), self.server.max_request_bytes
        if length is None:
            self._refuse(411, "Content-Length must be given")
        elif length > limit:
            self._refuse(413, f"the request has {length} bytes, at most {limit} are taken")
        else:
            self._answer("POST", self.rfile.read(length))

    def _content_length(self) -> int | None:
        length = self.headers.get("Content-Length", "")
        return int(length[:18]) if length.isascii() and length.isdigit() else None

    def _refuse(self, status: int, why: str) -> None:
        """Answers without what was sent, and closes the connection."""
        self.close_connection = True
        # A client that is still sending would not read the answer.
        left = min(self._content_length() or 0, 4 * self.server.max_request_bytes)
        while left > 0 and (chunk := self.rfile.read(min(left, 65_536))):
            left -= len(chunk)
        self._send(status, {"error": why})

    def _answer(self, method: str, body: bytes) -> None:
        if not self.path.lower().startswith("/v1/"):
            self.send_error(404)  # HTML, as the real server's
            return
        try:
            status, answer = 200, self._dispatch(method, body)
        except ServingError as error:
            status, answer = _HTTP_STATUS.get(error.code, 500), {"error": error.message}
        except Exception as error:
            logger.exception("a request failed")
            status, answer = 500, {"error": f"{type(error).__name__}: {error}"}
        self._send(status, answer)

    def _dispatch(self, method: str, body: bytes) -> dict[str, Any]:
        match = re.fullmatch(_PATHS[method], self.path, re.ASCII)
        if match is None:
            raise invalid(f"Malformed request: {method} {self.path}")
        spec, models = _spec(match), self.server.models
        if method == "POST":
            asked = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec)
            answering = {"predict": predict_json, "classify": classify_json}
            answering["regress"] = regress_json
            return answering[match["verb"]](answers.find(models, asked), body)
        if match["metadata"]:
            return _metadata(models, spec)
        asked = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        return _as_json(answers.model_status(models, asked))

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        self.close_connection |= self.server.draining
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


def predict_json(model: ServedModel, body: bytes) -> dict[str, Any]:
    """The answer to the body of a `:predict`: "instances" in rows, or "inputs" in columns.

    Raises:
        ServingError: INVALID_ARGUMENT; the text says what in the JSON is wrong.
    """
    request, signature = _read(body)
    signature = signature or DEFAULT_SIGNATURE
    if signature not in model.signature_defs:
        raise invalid(f'Serving signature name: "{signature}" not found in signature def')
    if "instances" in request and "inputs" in request:
        raise invalid("expecting only one of 'inputs' or 'instances' keys to exist")
    definition = model.signature_defs[signature]
    dtypes = {n: tf.as_dtype(info.dtype) for n, info in sorted(definition.inputs.items())}
    if "instances" in request:
        inputs = _of_rows(request["instances"], dtypes)
    elif "inputs" in request:
        inputs = _of_columns(request["inputs"], dtypes)
    else:
        raise invalid("Missing 'inputs' or 'instances' key")
    outputs = {name: _plain(name, array) for name, array in model.run(signature, inputs).items()}
    only = next(iter(outputs.values())) if len(outputs) == 1 else None
    if "inputs" in request:
        return {"outputs": outputs if only is None else only}
    if only is not None:
        return {"predictions": only}
    rows = zip(*outputs.values(), strict=True)
    return {"predictions": [dict(zip(outputs, row, strict=True)) for row in rows]}


def classify_json(model: ServedModel, body: bytes) -> dict[str, Any]:
    """The answer to the body of a `:classify`: pairs of a label and a score for each Example.

    Raises:
        ServingError: INVALID_ARGUMENT; the text says what in the JSON is wrong.
    """
    request = _with_examples(classification_pb2.ClassificationRequest(), body)
    rows = answers.classify(model, request).result.classifications
    return {_RESULTS: [[[found.label, found.score] for found in row.classes] for row in rows]}


def regress_json(model: ServedModel, body: bytes) -> dict[str, Any]:
    """The answer to the body of a `:regress`: a value for each Example.

    Raises:
        ServingError: INVALID_ARGUMENT; the text says what in the JSON is wrong.
    """
    request = _with_examples(regression_pb2.RegressionRequest(), body)
    return {_RESULTS: [row.value for row in answers.regress(model, request).result.regressions]}


def _read(body: bytes) -> tuple[dict[str, Any], str]:
    """The object of a body, and the signature that it names; "" if none."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise invalid(f"JSON Value: {_shown(request)} Is not object")
    signature = request.get("signature_name", "")
    if not isinstance(signature, str):
        raise invalid("'signature_name' key must be a string value.")
    return request, signature


def _with_examples(request: Any, body: bytes) -> Any:
    """The request, filled from the Examples of a body, and their context if it has one."""
    found, request.model_spec.signature_name = _read(body)
    if "examples" not in found:
        raise invalid("When method is classify, key 'examples' is expected and was not found")
    examples = found["examples"]
    if not isinstance(examples, list):
        raise invalid("Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid("'examples' value is an empty array")
    into = request.input.example_list
    if "context" in found:
        into = request.input.example_list_with_context
        _fill_example(into.context, found["context"])
    for example in examples:
        _fill_example(into.examples.add(), example)
    return request


def _fill_example(example: Any, values: Any) -> None:
    if not isinstance(values, dict):
        raise invalid(f"Example must be JSON object but got JSON {_type(values)}")
    for name, found in values.items():
        feature = example.features.feature[name]
        for value in found if isinstance(found, list) else [found]:
            kind, number = _feature_value(name, value)
            if feature.WhichOneof("kind") not in (None, kind):
                there = str(feature.WhichOneof("kind")).removesuffix("_list")
                raise invalid(f"Unexpected element type in feature: {name} expecting type: {there}")
            getattr(feature, kind).value.append(number)


def _feature_value(name: str, value: Any) -> tuple[str, bytes | int | float]:
    """The kind of list that a value of a feature goes into, and what goes there."""
    if isinstance(value, str):
        return "bytes_list", value.encode("utf-8", "surrogatepass")
    if _is_base64(value):
        return "bytes_list", _decoded(value)
    if isinstance(value, float):
        return "float_list", value
    if not isinstance(value, int):
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {_type(value)}")
    if not -(2**63) <= value < 2**63:
        raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
    return "int64_list", int(value)


def _of_columns(columns: Any, dtypes: Mapping[str, tf.DType]) -> dict[str, np.ndarray]:
    """The arrays of "inputs"; what the signature does not take is left."""
    if not isinstance(columns, dict) or _is_base64(columns):
        if len(dtypes) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        columns = {next(iter(dtypes)): columns}
    for name in dtypes:
        if name not in columns:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _tensor(columns[name], dtype) for name, dtype in dtypes.items()}


def _of_rows(instances: Any, dtypes: Mapping[str, tf.DType]) -> dict[str, np.ndarray]:
    """The arrays of "instances", an item a row."""
    if not isinstance(instances, list):
        raise invalid("Excepting 'instances' to be an list/array")
    if not instances:
        raise invalid("No values in 'instances' array")
    named = _is_object(instances[0])
    if not named and len(dtypes) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    found: dict[str, list[np.ndarray]] = {name: [] for name in dtypes}
    for number, row in enumerate(instances):
        if _is_object(row) != named:
            raise invalid(
                f"Expecting object but got list at item {number} of input list"
                if named
                else f"Expecting value/list but got object at item {number} of input list"
            )
        for name, value in row.items() if named else ((next(iter(dtypes)), row),):
            where = f"element: {number} key: {name}" if named else f"element: {number}"
            try:
                if name not in dtypes:
                    raise invalid(f"JSON object: does not have named input: {name}")
                array = _tensor(value, dtypes[name])
                first = found[name][0] if found[name] else array
                if array.shape != first.shape:
                    raise invalid(
                        f"Expecting tensor size: {first.size} but got: {array.size}"
                        if array.size != first.size
                        else f"Expecting shape {_shape(first)} but got: {_shape(array)}"
                    )
            except ServingError as error:
                raise invalid(
                    f"Failed to process {where} of 'instances' list. Error: {error}"
                ) from error
            found[name].append(array)
        if named and len(row) != len(dtypes):
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: "
                f"{_shown(row)} must only have keys: {','.join(dtypes)}"
            )
    return {name: np.stack(arrays) for name, arrays in found.items()}


def _tensor(value: Any, dtype: tf.DType) -> np.ndarray:
    """The array of nested lists, all of one size at each level."""
    shape = []
    inner = value
    while isinstance(inner, list):
        shape.append(len(inner))
        if len(shape) > _MAX_DEPTH:
            raise invalid(f"lists are nested more than {_MAX_DEPTH} deep")
        inner = inner[0] if inner else None
    leaves: list[Any] = []
    _collect(value, shape, 0, dtype, leaves)
    array = np.empty(len(leaves), object if dtype == tf.string else dtype.as_numpy_dtype)
    array[:] = leaves
    return array.reshape(shape)


def _collect(value: Any, shape: list[int], level: int, dtype: tf.DType, leaves: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {_shown(value)} found at incorrect level: {level + 1} in the JSON "
                f"DOM. Expected at level: {len(shape)}"
            )
        leaves.append(_leaf(value, dtype))
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for item in value:
        _collect(item, shape, level + 1, dtype, leaves)


def _leaf(value: Any, dtype: tf.DType) -> bytes | int | float:
    if dtype == tf.string:
        if isinstance(value, str):
            return value.encode("utf-8", "surrogatepass")
        if _is_base64(value):
            return _decoded(value)
        if isinstance(value, dict):
            raise invalid(f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
    elif isinstance(value, float) and dtype == tf.float32:
        if math.isfinite(value) and abs(value) > _MAX_FLOAT:
            raise _lossy(value, dtype)
        return value
    elif isinstance(value, int) and not isinstance(value, bool):
        if _WHOLE[dtype][0] <= value <= _WHOLE[dtype][1]:
            return value
        if dtype == tf.float32:
            raise _lossy(value, dtype)
    raise invalid(
        f"JSON Value: {_shown(value)} Type: {_type(value)} is not of expected type: "
        f"{dtype_name(dtype.as_datatype_enum)}"
    )


def _lossy(value: float, dtype: tf.DType) -> ServingError:
    name = dtype_name(dtype.as_datatype_enum)
    return invalid(
        f"Cannot convert JSON value: {_shown(value)} to {name} without loss of precision."
    )


def _decoded(value: dict[str, str]) -> bytes:
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def _shown(value: Any) -> str:
    return json.dumps(value)[:_MAX_SHOWN]


def _shape(array: np.ndarray) -> str:
    return f"[{','.join(map(str, array.shape))}]"


def _type(value: Any) -> str:
    """A JSON value's type, as the real server calls it."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    kinds = ((dict, "Object"), (list, "Array"), (str, "String"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "Number")


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


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
    response = answers.model_metadata(models, request)
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
