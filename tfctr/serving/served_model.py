"""One version of a model in memory: checks what it is asked, then runs it."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from tfctr.serving.c_session import CSession, SessionError
from tfctr.serving.errors import ServingError, invalid
from tfctr.serving.model_directory import signature_defs
from tfctr.serving.tensors import dtype_name, parse_tensor

DEFAULT_SIGNATURE = "serving_default"


class ServedModel:
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
        self._session = CSession(path)

    def parse_inputs(self, signature: str, protos: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The arrays of a request's tensors.

        Raises:
            ServingError: what the real server answers to missing, extra, ill-typed and
                unreadable tensors.
        """
        specs = self.signature_defs[signature].inputs
        if len(protos) != len(specs):
            sent, wanted = sorted(protos), sorted(specs)
            raise invalid(
                f"input size does not match signature: {len(sent)}!={len(wanted)} "
                f"len({{{','.join(sent)}}}) != len({{{','.join(wanted)}}}). "
                f"Sent extra: {{{','.join(sorted(set(sent) - set(wanted)))}}}. "
                f"Missing but required: {{{','.join(sorted(set(wanted) - set(sent)))}}}."
            )
        for alias in protos:
            if alias not in specs:
                raise invalid(
                    f"input tensor alias not found in signature: {alias}. Inputs expected to be "
                    f"in the set {{{','.join(sorted(specs))}}}."
                )
        for position, alias in enumerate(sorted(specs)):
            if protos[alias].dtype != specs[alias].dtype:
                raise invalid(
                    f"Expects arg[{position}] to be {dtype_name(specs[alias].dtype)} but "
                    f"{dtype_name(protos[alias].dtype)} is provided"
                )
        return {alias: parse_tensor(alias, proto) for alias, proto in protos.items()}

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Collection[str] = ()
    ) -> dict[str, np.ndarray]:
        """The outputs of a signature by name; those in `outputs` only, if any are given.

        Raises:
            ServingError: INVALID_ARGUMENT for an unknown output, a shape that the signature does
                not take and what the graph finds wrong.
        """
        definition = self.signature_defs[signature]
        for alias in outputs:
            if alias not in definition.outputs:
                raise invalid(
                    f"output tensor alias not found in signature: {alias} Outputs expected to be "
                    f"in the set {{{','.join(sorted(definition.outputs))}}}."
                )
        if len(set(outputs)) != len(outputs):
            raise invalid(f"duplicate output tensor alias: {sorted(outputs)}")
        _check_shapes(definition.inputs, inputs)
        tensors = {definition.inputs[alias].name: array for alias, array in inputs.items()}
        names = {alias: definition.outputs[alias].name for alias in outputs or definition.outputs}
        try:
            results = self._session.run(tensors, names.values())
        except SessionError as error:
            code = next(c for c in grpc.StatusCode if c.value[0] == error.code)
            raise ServingError(code, _message(str(error))) from error
        return {alias: results[name] for alias, name in names.items()}


def _check_shapes(specs: Mapping[str, Any], inputs: Mapping[str, np.ndarray]) -> None:
    rows: dict[int, str] = {}
    for alias, array in inputs.items():
        wanted = [dim.size for dim in specs[alias].tensor_shape.dim]
        if len(wanted) != array.ndim or any(
            size not in (-1, found) for size, found in zip(wanted, array.shape, strict=True)
        ):
            raise invalid(
                f"input {alias!r}: found shape {list(array.shape)}, expected {wanted} "
                "(-1: any size)"
            )
        rows.setdefault(array.shape[0], alias)
    if len(rows) > 1:
        found = ", ".join(f"{size} in {alias!r}" for size, alias in rows.items())
        raise invalid(f"inputs differ in their number of rows: {found}")


def _message(text: str) -> str:
    """What an operation says, without where in the graph it stands."""
    text = text.split("\n\t [[")[0].split(" [Op:")[0]
    return text.removeprefix("Graph execution error:").strip().splitlines()[-1]
