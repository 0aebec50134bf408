"""Runs requests on a SavedModel through TensorFlow's C API, as a separate process.

    python -m tfctr.serving.exporter.run_requests FOLDER

Requests come as JSON on stdin, a list of `{"inputs": {tensor: {dtype, shape, values}}, "outputs":
{name: tensor}}`; answers go to stdout, a list of `{name: values}`, the values flat. Strings are
bytes in Latin-1.
"""

import json
import sys
from typing import Any

import numpy as np

from tfctr.quiet import quieten
from tfctr.serving.c_session import CSession, SessionError


def main(folder: str) -> int:
    try:
        session = CSession(folder)
        answers = [_answer(session, request) for request in json.load(sys.stdin)]
    except SessionError as error:
        print(str(error).splitlines()[0], file=sys.stderr)
        return 1
    json.dump(answers, sys.stdout)
    return 0


def _answer(session: CSession, request: dict[str, Any]) -> dict[str, list[Any]]:
    inputs = {tensor: _array(**sent) for tensor, sent in request["inputs"].items()}
    found = session.run(inputs, list(request["outputs"].values()))
    return {name: _values(found[tensor]) for name, tensor in request["outputs"].items()}


def _array(dtype: str, shape: list[int], values: list[Any]) -> np.ndarray:
    if dtype == "object":
        values = [value.encode("latin-1") for value in values]
    return np.array(values, dtype).reshape(shape)


def _values(array: np.ndarray) -> list[Any]:
    flat: list[Any] = array.ravel().tolist()
    return [value.decode("latin-1") for value in flat] if array.dtype == object else flat


if __name__ == "__main__":
    quieten()  # the parent shows the last line, which is the error's
    sys.exit(main(sys.argv[1]))
