"""Does a server answer as the files of the version say that it should?"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfctr.data.manifest import DataError
from tfctr.serving.client import Client
from tfctr.serving.model_directory import versions
from tfctr.serving.server.loaded_version import LoadedVersion
from tfctr.serving.warmup import inputs_of, read_warmup

TOLERANCE = 1e-4  # another machine's instructions add up in another order


class Found(NamedTuple):
    """What was asked, and how far the answers were from those of the graph.

    Args:
        version: that answered.
        requests: that were sent.
        difference: the largest, of any number.
    """

    version: int
    requests: int
    difference: float


def smoke(model: Path, server: str, label: str | None = None) -> Found:
    """Sends the warm-up requests of the version that answers, and compares the answers with what
    the graph in the version's folder says here.

    Args:
        model: the model's folder; the server has it under the same name.
        server: `host:port` of gRPC.
        label: asks for its version instead of the newest.

    Raises:
        DataError: the version is not in the folder, has no requests, or another answer.
        ConnectionError, TimeoutError, ServingError: as of `Client.predict`.
    """
    name = model.resolve().name
    with Client(server, name, label=label) as client:
        version = client.answering()
        folder = versions(model).get(version)
        if folder is None:
            raise DataError(
                f"{model}: version {version}, which {server} answers with, is not here; versions: "
                f"{', '.join(map(str, versions(model))) or 'none'}"
            )
        logs = [log for log in read_warmup(folder) if log.HasField("predict_log")]
        if not logs:
            raise DataError(f"{folder}: no warm-up requests; export the model with tfctr")
        own, largest = LoadedVersion(name, version, folder), 0.0
        for log in logs:
            request = log.predict_log.request
            request.model_spec.name = name
            request.model_spec.version.value = version
            signature, inputs = inputs_of(log)
            outputs = client.ask(request).outputs
            answer = {output: tf.make_ndarray(tensor) for output, tensor in outputs.items()}
            where = f"{name}, version {version}, {signature}"
            largest = max(largest, _difference(where, own.run(signature, inputs), answer))
    return Found(version, len(logs), largest)


def _difference(
    where: str, expected: Mapping[str, np.ndarray], answer: Mapping[str, np.ndarray]
) -> float:
    """The largest of any output.

    Raises:
        DataError: there is more of one than rounding makes.
    """
    if expected.keys() != answer.keys():
        raise DataError(
            f"{where}: found outputs {', '.join(sorted(answer))}; the graph gives "
            f"{', '.join(sorted(expected))}"
        )
    largest = 0.0
    for output, wanted in expected.items():
        found = answer[output]
        if wanted.shape != found.shape:
            raise DataError(
                f"{where}: found {output} of shape {list(found.shape)}; the graph gives "
                f"{list(wanted.shape)}"
            )
        if wanted.dtype.kind != "f":
            if not np.array_equal(wanted, found):
                raise DataError(f"{where}: found another {output} than the graph gives")
            continue
        apart = np.abs(wanted - found)
        if not np.allclose(found, wanted, TOLERANCE, TOLERANCE):
            place = np.unravel_index(np.argmax(apart), apart.shape)
            raise DataError(
                f"{where}: found {output} {found[place]:.6g}; the graph gives {wanted[place]:.6g}"
            )
        largest = max(largest, float(apart.max(initial=0)))
    return largest
