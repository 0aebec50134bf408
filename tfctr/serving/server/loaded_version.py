"""One loaded version of a model: checks requests and runs them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DT_INVALID, DataType

from tfctr.serving.c_session import CSession, SessionError, UnreadableTensorError
from tfctr.serving.errors import ServingError, invalid
from tfctr.serving.model_directory import signature_defs
from tfctr.serving.server.tensors import dtype_and_shape, dtype_name, unreadable

DEFAULT_SIGNATURE = "serving_default"


class LoadedVersion:
    """A loaded SavedModel. Its methods may be called from many threads at a time.

    Args:
        name: the model's name.
        version: the number of the version.
        path: the version's folder.
    """

    def __init__(self, name: str, version: int, path: Path) -> None:
        self.name = name
        self.version = version
        self.signature_defs = signature_defs(path)
        self._signatures = {
            name: _Signature(
                {alias: _Input.of(info) for alias, info in sorted(definition.inputs.items())},
                {alias: info.name for alias, info in definition.outputs.items()},
            )
            for name, definition in self.signature_defs.items()
        }
        self._session = CSession(path, in_caller=True)

    def check_inputs(self, signature: str, protos: Mapping[str, bytes]) -> None:
        """Checks serialized `TensorProto`s, by input name, before `run`.

        Raises:
            ServingError: as the real server answers missing, extra, ill-typed and unreadable
                tensors; also for a shape that the signature does not take.
            google.protobuf.message.DecodeError: a tensor is not a `TensorProto`.
        """
        specs = self._signatures[signature].inputs
        if len(protos) != len(specs):
            sent, wanted = sorted(protos), sorted(specs)
            raise invalid(
                f"input size does not match signature: {len(sent)}!={len(wanted)} "
                f"len({{{','.join(sent)}}}) != len({{{','.join(wanted)}}}). "
                f"Sent extra: {{{','.join(sorted(set(sent) - set(wanted)))}}}. "
                f"Missing but required: {{{','.join(sorted(set(wanted) - set(sent)))}}}."
            )
        found = {}
        for alias, spec in specs.items():
            if alias not in protos:
                raise invalid(
                    f"Signature input alias: {alias}(feed name: {spec.name}) not found in request "
                    "and no default value provided. Inputs expected to be in the request "
                    f"{{{','.join(sorted(protos))}}}, or default input alias set: "
                )
            found[alias] = dtype_and_shape(alias, protos[alias])
        for position, (alias, (dtype, _)) in enumerate(found.items()):
            if dtype != specs[alias].dtype:
                if dtype not in DataType.values() or dtype == DT_INVALID:
                    raise unreadable(alias)
                raise invalid(
                    f"Expects arg[{position}] to be {dtype_name(specs[alias].dtype)} but "
                    f"{dtype_name(dtype)} is provided"
                )
        _check_shapes(specs, {alias: shape for alias, (_, shape) in found.items()})

    def run(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray] | Mapping[str, bytes],
        outputs: Collection[str] = (),
    ) -> dict[str, np.ndarray]:
        """The outputs of a signature, by name.

        Args:
            signature: its name.
            inputs: by name, arrays, or serialized `TensorProto`s that `check_inputs` has accepted.
            outputs: names of the outputs. Defaults to all.

        Raises:
            ServingError: INVALID_ARGUMENT for an unknown output, a shape that the signature does
                not take, or a tensor that can't be read; the graph's own code if it fails.
            google.protobuf.message.DecodeError: a tensor is not a `TensorProto`.
        """
        specs, named = self._signatures[signature].inputs, self._signatures[signature].outputs
        for alias in outputs:
            if alias not in named:
                raise invalid(
                    f"output tensor alias not found in signature: {alias} Outputs expected to be "
                    f"in the set {{{','.join(sorted(named))}}}."
                )
        if len(set(outputs)) != len(outputs):
            raise invalid(f"duplicate output tensor alias: {sorted(outputs)}")
        arrays = {a: value.shape for a, value in inputs.items() if isinstance(value, np.ndarray)}
        _check_shapes(specs, arrays)
        tensors = {specs[alias].name: value for alias, value in inputs.items()}
        names = {alias: named[alias] for alias in outputs or named}
        try:
            results = self._session.run(tensors, names.values())
        except UnreadableTensorError as error:
            alias = next(alias for alias, spec in specs.items() if spec.name == error.name)
            TensorProto.FromString(inputs[alias])  # raises if the whole request is unreadable
            raise unreadable(alias) from error
        except SessionError as error:
            code = next(c for c in grpc.StatusCode if c.value[0] == error.code)
            raise ServingError(code, _message(str(error))) from error
        return {alias: results[name] for alias, name in names.items()}


@dataclass(frozen=True, slots=True)
class _Input:
    name: str
    dtype: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, info: Any) -> "_Input":
        return cls(info.name, info.dtype, tuple(dim.size for dim in info.tensor_shape.dim))


@dataclass(frozen=True, slots=True)
class _Signature:
    """The parts of a `SignatureDef` that a request needs; its own maps are slow to read."""

    inputs: dict[str, _Input]  # in the order of their names
    outputs: dict[str, str]  # names of tensors


def _check_shapes(specs: Mapping[str, _Input], shapes: Mapping[str, tuple[int, ...]]) -> None:
    rows: dict[int, str] = {}
    for alias, shape in shapes.items():
        if not shape:
            continue  # sent without a shape: the graph checks it
        wanted = specs[alias].shape
        if len(wanted) != len(shape) or any(
            size not in (-1, found) for size, found in zip(wanted, shape, strict=True)
        ):
            raise invalid(
                f"input {alias!r}: found shape {list(shape)}, expected {list(wanted)} "
                "(-1: any size)"
            )
        rows.setdefault(shape[0], alias)
    if len(rows) > 1:
        found = ", ".join(f"{size} in {alias!r}" for size, alias in rows.items())
        raise invalid(f"inputs differ in their number of rows: {found}")


def _message(text: str) -> str:
    """The message of a failed operation, without its place in the graph."""
    text = text.split("\n\t [[")[0].split(" [Op:")[0]
    return text.removeprefix("Graph execution error:").strip().splitlines()[-1]
