"""Asks a SavedModel through TensorFlow's C API, in a process of its own.

    python -m tfctr.serving.exporter.answer_alone FOLDER

Requests come as JSON on stdin, a list of `{"inputs": {tensor: {dtype, shape, values}}, "outputs":
{name: tensor}}`; answers go to stdout, a list of `{name: values}` without their shapes. Strings
are bytes in Latin-1.
"""

import json
import sys
from typing import Any

import numpy as np

from tfctr.serving.c_session import CSession, SessionError


def main(folder: str) -> int:
    try:
        session = CSession(folder)
        answers = [_answer(session, asked) for asked in json.load(sys.stdin)]
    except SessionError as error:
        print(str(error).splitlines()[0], file=sys.stderr)
        return 1
    json.dump(answers, sys.stdout)
    return 0


def _answer(session: CSession, asked: dict[str, Any]) -> dict[str, list[Any]]:
    inputs = {tensor: _array(**sent) for tensor, sent in asked["inputs"].items()}
    found = session.run(inputs, list(asked["outputs"].values()))
    return {name: _values(found[tensor]) for name, tensor in asked["outputs"].items()}


def _array(dtype: str, shape: list[int], values: list[Any]) -> np.ndarray:
    if dtype == "object":
        values = [value.encode("latin-1") for value in values]
    return np.array(values, dtype).reshape(shape)


def _values(array: np.ndarray) -> list[Any]:
    flat: list[Any] = array.ravel().tolist()
    return [value.decode("latin-1") for value in flat] if array.dtype == object else flat


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
