"""Reads JSON bodies of REST requests as the real server does, and makes the JSON of answers.

The texts of errors are the real server's.
"""

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, regression_pb2

from tfctr.serving.errors import ServingError, invalid
from tfctr.serving.server import answers
from tfctr.serving.server.loaded_version import DEFAULT_SIGNATURE, LoadedVersion
from tfctr.serving.server.tensors import dtype_name

_MAX_DEPTH = 8  # dimensions of a tensor
_MAX_FLOAT = float(np.finfo(np.float32).max)
_MAX_SHOWN = 200  # characters of a wrong value in an error
_RESULTS = "results"  # as in the real server's json_tensor.cc; its documentation has "result"
_WHOLE = {tf.float32: (1 - 2**24, 2**24 - 1), tf.int64: (-(2**63), 2**63 - 1)}  # allowed integers


def predict_json(model: LoadedVersion, body: bytes) -> dict[str, Any]:
    """The answer to the body of a `:predict`: "instances" in rows, or "inputs" in columns.

    Raises:
        ServingError: INVALID_ARGUMENT, with what is wrong in the JSON; or as `answers.predict`.
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


def classify_json(model: LoadedVersion, body: bytes) -> dict[str, Any]:
    """The answer to the body of a `:classify`: pairs of a label and a score for each Example.

    Raises:
        ServingError: INVALID_ARGUMENT, with what is wrong in the JSON; or as `answers.predict`.
    """
    request = _with_examples(classification_pb2.ClassificationRequest(), body)
    rows = answers.classify(model, request).result.classifications
    return {_RESULTS: [[[found.label, found.score] for found in row.classes] for row in rows]}


def regress_json(model: LoadedVersion, body: bytes) -> dict[str, Any]:
    """The answer to the body of a `:regress`: a value for each Example.

    Raises:
        ServingError: INVALID_ARGUMENT, with what is wrong in the JSON; or as `answers.predict`.
    """
    request = _with_examples(regression_pb2.RegressionRequest(), body)
    return {_RESULTS: [row.value for row in answers.regress(model, request).result.regressions]}


def _read(body: bytes) -> tuple[dict[str, Any], str]:
    """The object of a body, and the name of its signature, or ""."""
    if not body:
        raise invalid("JSON Parse error: The document is empty")
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
    """The kind of list that holds a feature's value, and the value in it."""
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
    """The arrays of "inputs"; other keys than the signature's are ignored."""
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
    """The arrays of "instances", one item per row."""
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
    """An array from nested lists; at each level all lists must have one length."""
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
