"""A client for models that `export` wrote, on TF Serving or on the local server."""

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

import grpc
import numpy as np

from tfctr.data.one_value import LARGEST_FLOAT, WHOLE_FLOATS, read_float, read_int, token_of
from tfctr.serving.errors import ServingError
from tfctr.serving.messages import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tfctr.serving.tensors import FLOAT, INT64, MISSING, STRING, numpy_dtype, to_array, to_proto

SEPARATOR = "|"  # between the values of a list that is given as text


class Client:
    """Requests scores from one model; takes plain Python lists.

        with Client("127.0.0.1:8500", model="movielens-dcnv2") as client:
            client.predict({"user": ["7", "9"], "genres": [["drama"], ["war", "drama"]]})
            client.rank({"user": "7"}, {"item": ["31", "1029"], "genres": [["war"], []]})

    `None` is a missing value, and a feature that is left out is missing in every row. Rows may be
    as they were logged; they are read as `prepare` reads them: `4.0` and `True` where a feature
    takes strings are `"4"` and `"1"`, the text `"3"` is a number and `"drama|war"` a list. A column
    that is no feature of the model is left out, with one warning.

    Args:
        address: `host:port` of the gRPC server.
        model: the model's name.
        timeout: float. Seconds that a request may take. Defaults to 10.
        version: int. The version to ask. Defaults to the newest.
        label: the label of the version to ask, e.g. "canary", instead of its number.

    Raises:
        ValueError: both a version and a label are given.
    """

    def __init__(
        self,
        address: str,
        model: str,
        timeout: float = 10.0,
        version: int | None = None,
        label: str | None = None,
    ) -> None:
        self.address = address
        self.timeout = timeout
        self._spec = model_pb2.ModelSpec(name=model)
        if version is not None and label is not None:
            raise ValueError(f"give a version or a label; found {version} and {label!r}")
        if version is not None:
            self._spec.version.value = version
        if label is not None:
            self._spec.version_label = label
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
            ],
        )
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._signatures: Mapping[str, Any] | None = None
        self._ignored: set[str] = set()  # columns that a warning has named

    def predict(self, features: Any) -> np.ndarray:
        """Scores float32 `[B]` of `B` rows.

        Args:
            features: raw values by feature name: `[B]`, or `[B]` lists of at most `max_length`
                values; also as a DataFrame (pandas 2.2, Polars, pyarrow, ...). Cut longer lists
                yourself: keep the last values of a sequence, the first ones of a set.

        Raises:
            ValueError: no feature of the model is given, columns differ in length, a list is too
                long; the model is an index of items.
            TypeError: a value of the wrong type.
            ConnectionError: no server answers at the address.
            TimeoutError: the server did not answer in time.
            ServingError: the server refused the request.
        """
        specs = self._inputs("serving_default")
        if self.is_index:
            raise ValueError(
                f"model {self._spec.name!r} is an index of items, which has no score of a row; "
                "call `recommend`"
            )
        features = self._select(_by_column(features), specs, "feature")
        rows = _length(features)
        return self._scores(
            "serving_default",
            {
                name: _column(name, features.get(name, [None] * rows), spec)
                for name, spec in specs.items()
            },
        )

    def rank(self, user: Mapping[str, Any], candidates: Any) -> np.ndarray:
        """Scores float32 `[N]` of `N` candidates for one user, in one request.

        Args:
            user: one raw value (or list) for each user and context feature.
            candidates: raw values `[N]`, or `[N]` lists, for each item feature; also as a
                DataFrame.

        Errors are those of `predict`.
        """
        rows = self._inputs("serving_default")
        specs = self._inputs("rank")
        items = {n for n, spec in specs.items() if _rank(spec) > _rank(rows[n])}
        user = self._select(user, specs.keys() - items, "user or context feature")
        candidates = self._select(_by_column(candidates), items, "item feature")
        count = _length(candidates)
        if count == 0:
            return np.zeros(0, np.float32)
        inputs = {
            name: _column(name, candidates.get(name, [None] * count), rows[name])[np.newaxis]
            if name in items
            else _column(name, [user.get(name)], rows[name])
            for name in specs
        }
        # A batching server returns as many scores as the longest of the merged requests has.
        return self._scores("rank", inputs)[0, :count]

    def encode_user(self, user: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Encodes a user for `score`; the result stays valid until a feature of the user changes.

        The model must have the signature `encode_user`. The result belongs to one version of the
        model: `score` of another version refuses it.

        Args:
            user: one raw value (or list) for each user and context feature.

        Returns:
            Arrays `[1, ...]` by name.

        Errors are those of `predict`.
        """
        rows, specs = self._inputs("serving_default"), self._inputs("encode_user")
        user = self._select(user, specs, "user or context feature")
        columns = {name: _column(name, [user.get(name)], rows[name]) for name in specs}
        return self._outputs("encode_user", columns)

    def score(self, encoded: Mapping[str, Any], candidates: Mapping[str, Any]) -> np.ndarray:
        """Scores float32 `[N]` of `N` candidates for an encoded user, equal to those of `rank`.

        Args:
            encoded: the result of `encode_user`.
            candidates: raw values `[N]`, or `[N]` lists, for each item feature.

        Errors are those of `predict`.
        """
        rows, specs = self._inputs("serving_default"), self._inputs("score")
        items = specs.keys() - encoded.keys()
        candidates = self._select(candidates, items, "item feature")
        count = _length(candidates)
        if count == 0:
            return np.zeros(0, np.float32)
        inputs = {
            name: _column(name, candidates.get(name, [None] * count), rows[name])[np.newaxis]
            for name in items
        }
        return self._outputs("score", inputs | dict(encoded))["scores"][0, :count]

    @property
    def features(self) -> list[str]:
        """The names of the features that a row of `predict` or `recommend` may have."""
        return sorted(self._inputs("serving_default"))

    @property
    def is_index(self) -> bool:
        """Whether the model is an index of items (`tfctr index`), which answers `recommend`."""
        self._inputs("serving_default")
        assert self._signatures is not None
        return "candidates" in self._signatures["serving_default"].outputs

    def recommend(self, user: Mapping[str, Any]) -> tuple[list[Any], np.ndarray]:
        """The items that a user may want next, best first, and their scores float32 `[k]`.

        The model must be an index of items (`tfctr index`).

        Args:
            user: a list for each history.

        Errors are those of `predict`.
        """
        specs = self._inputs("serving_default")
        user = self._select(user, specs, "history")
        columns = {name: _column(name, [user.get(name)], spec) for name, spec in specs.items()}
        found = self._outputs("serving_default", columns)
        items = found["candidates"][0].tolist()
        return [i.decode() if isinstance(i, bytes) else i for i in items], found["scores"][0]

    def ask(self, request: Any) -> Any:
        """Sends a `PredictRequest` as it is, and returns the `PredictResponse`.

        Raises:
            ConnectionError, TimeoutError, ServingError: as `predict`.
        """
        return self._call(self._stub.Predict, request)

    def served_version(self) -> int:
        """The number of the version that answers this client.

        Errors are those of `ask`.
        """
        return int(self._metadata().model_spec.version.value)

    def status(self) -> dict[int, Any]:
        """The `ModelVersionStatus` of each version that the server knows, by number; empty if it
        does not know the model.

        Errors are those of `ask`.
        """
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self._spec.name
        try:
            response = self._call(self._models.GetModelStatus, request)
        except ServingError as error:
            if error.code == grpc.StatusCode.NOT_FOUND:
                return {}
            raise
        return {status.version: status for status in response.model_version_status}

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _select(
        self, given: Mapping[str, Any], names: Collection[str], what: str
    ) -> dict[str, Any]:
        """The values that the model reads. A column that it does not know is named in a warning,
        once, and left out."""
        known = {name: values for name, values in given.items() if name in names}
        others = [name for name in given if name not in names]
        elsewhere = [name for name in others if name in self._inputs("serving_default")]
        if elsewhere or (others and not known):
            raise ValueError(
                f"no {what} {(elsewhere or others)[0]!r} in the model; there are: "
                f"{', '.join(sorted(names))}"
            )
        new = [name for name in others if name not in self._ignored]
        if new:
            self._ignored.update(new)
            warnings.warn(
                f"model {self._spec.name!r} has no feature {', '.join(map(repr, new))}: ignored",
                stacklevel=3,
            )
        return known

    def _inputs(self, signature: str) -> Mapping[str, Any]:
        if self._signatures is None:
            response = self._metadata()
            signatures = get_model_metadata_pb2.SignatureDefMap()
            response.metadata["signature_def"].Unpack(signatures)
            self._signatures = signatures.signature_def
            self._version = response.model_spec.version.value
        if signature not in self._signatures:
            raise ValueError(
                f"model {self._spec.name!r} has no signature {signature!r}; it has: "
                f"{', '.join(sorted(self._signatures))}"
            )
        inputs: Mapping[str, Any] = self._signatures[signature].inputs
        return inputs

    def _metadata(self) -> Any:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._spec, metadata_field=["signature_def"]
        )
        return self._call(self._stub.GetModelMetadata, request)

    def _scores(self, signature: str, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        return self._outputs(signature, inputs)["scores"]

    def _outputs(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        request = predict_pb2.PredictRequest(model_spec=self._spec)
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(to_proto(array))
        try:
            response = self._call(self._stub.Predict, request)
        except ServingError:
            self._signatures = None  # a new version may take other features: ask again
            raise
        if response.model_spec.version.value != self._version:
            self._signatures = None
        return {name: to_array(tensor) for name, tensor in response.outputs.items()}

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self.timeout)
        except grpc.RpcError as error:
            self._raise(error)

    def _raise(self, error: Any) -> NoReturn:
        code, details = error.code(), error.details()
        if code == grpc.StatusCode.UNAVAILABLE:
            raise ConnectionError(
                f"no server answers at {self.address} ({details}); `tfctr serve` starts one"
            ) from error
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            raise TimeoutError(
                f"{self.address} did not answer within {self.timeout} seconds"
            ) from error
        raise ServingError(code, details) from error


def _by_column(rows: Any) -> Mapping[str, Any]:
    """Values by feature name, of a mapping or a DataFrame."""
    if not hasattr(rows, "__arrow_c_stream__"):
        return dict(rows)
    from tfctr.frames.tables import to_table  # imports Arrow, which few requests need

    table = to_table(rows)
    return {name: table[name].to_pylist() for name in table.column_names}


def _length(features: Mapping[str, Any]) -> int:
    lengths = {name: len(column) for name, column in features.items()}
    if not lengths:
        raise ValueError("no features given")
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"columns differ in length: {found}")
    return next(iter(lengths.values()))


def _rank(spec: Any) -> int:
    return len(spec.tensor_shape.dim)


def _column(name: str, values: Sequence[Any], spec: Any) -> np.ndarray:
    """Values `[B]`, or lists `[B, M]` padded with missing values, as the server takes them."""
    dtype = spec.dtype
    if _rank(spec) == 1:
        return np.array([_value(name, value, dtype) for value in values], numpy_dtype(dtype))
    rows = [_list(name, row) for row in values]
    if dtype == FLOAT:
        _refuse_parts(name, rows, spec.tensor_shape.dim[1].size)
    longest = max(map(len, rows), default=0)
    width = spec.tensor_shape.dim[1].size
    if longest > width:
        raise ValueError(
            f"feature {name!r} takes {width} values per row, found {longest}; keep the last ones "
            "of a sequence, the first ones of a set"
        )
    array = np.full((len(rows), width), MISSING[dtype], numpy_dtype(dtype))
    for row, items in enumerate(rows):
        for position, item in enumerate(items):
            array[row, position] = _value(name, item, dtype)
    return array


def _refuse_parts(name: str, rows: Sequence[Any], width: int) -> None:
    """Checks vectors: all numbers of one are given, or none."""
    for number, row in enumerate(rows):
        if len(row) not in (0, width):
            raise ValueError(
                f"feature {name!r} takes a vector of {width} numbers, or None; found {len(row)} "
                f"in row {number}"
            )
        for value in row:
            if not math.isfinite(_value(name, value, FLOAT)):
                raise ValueError(
                    f"feature {name!r} takes a vector of {width} finite numbers, or None; found "
                    f"{value!r} in row {number}"
                )


def _list(name: str, row: Any) -> Any:
    if row is None or (isinstance(row, float) and math.isnan(row)):
        return ()
    if isinstance(row, str):  # as in a file of text
        return [item for item in row.split(SEPARATOR) if item]
    if isinstance(row, list | tuple | np.ndarray):
        return row
    if isinstance(row, bool | int | float | np.generic):
        return (row,)
    raise TypeError(f"feature {name!r} takes a list per row, found {row!r}")


def _value(name: str, value: Any, dtype: int) -> Any:
    """A value as the server takes it; what it is follows the rules of `tfctr.data.one_value`."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING[dtype]
    if isinstance(value, str) and not (value if dtype == STRING else value.strip()):
        return MISSING[dtype]
    read = {STRING: _token, INT64: _integer, FLOAT: _number}[dtype]
    found = read(value)
    if found is None:
        kind = {STRING: "strings", INT64: "int64", FLOAT: "float32"}[dtype]
        raise TypeError(f"feature {name!r} takes {kind}, found {value!r}")
    return found


def _token(value: Any) -> bytes | None:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bool | int | float):
        return token_of(value).encode()
    return value if isinstance(value, bytes) else None


def _integer(value: Any) -> int | None:
    if isinstance(value, str):
        return read_int(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < WHOLE_FLOATS else None
    return int(value) if isinstance(value, int) and -(2**63) <= value < 2**63 else None


def _number(value: Any) -> float | None:
    number = read_float(value) if isinstance(value, str) else value
    if not isinstance(number, bool | int | float):
        return None
    if abs(number) > LARGEST_FLOAT:  # also an integer that no float can hold
        return math.inf if number > 0 else -math.inf
    return float(number)
