"""A smoke test: does a server answer as the exported graph of its version does?"""

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

TOLERANCE = 1e-4  # relative and absolute; another machine may add in another order


class SmokeResult(NamedTuple):
    """The result of a smoke test.

    Args:
        version: number of the version that answered.
        requests: number of requests that were sent.
        difference: the largest difference of a number from the graph's.
    """

    version: int
    requests: int
    difference: float


def smoke(model: Path, server: str, label: str | None = None) -> SmokeResult:
    """Sends the warm-up requests of the version that answers, and compares the answers with those
    of the graph in the version's folder, which runs here.

    Args:
        model: the model's folder; its name is the model's name on the server.
        server: `host:port` of gRPC.
        label: asks the version with this label. Defaults to the newest version.

    Raises:
        DataError: the version is not in the folder, has no warm-up requests, or other answers.
        ConnectionError, TimeoutError, ServingError: as `Client.predict`.
    """
    name = model.resolve().name
    with Client(server, name, label=label) as client:
        version = client.served_version()
        folder = versions(model).get(version)
        if folder is None:
            raise DataError(
                f"{server} answers with version {version}, which is not in {model}; versions: "
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
    return SmokeResult(version, len(logs), largest)


def _difference(
    where: str, expected: Mapping[str, np.ndarray], answer: Mapping[str, np.ndarray]
) -> float:
    """The largest difference of any output.

    Raises:
        DataError: it is more than rounding.
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
                raise DataError(f"{where}: found {output} that differs from the graph's")
            continue
        apart = np.abs(wanted - found)
        if not np.allclose(found, wanted, TOLERANCE, TOLERANCE):
            place = np.unravel_index(np.argmax(apart), apart.shape)
            raise DataError(
                f"{where}: found {output} {found[place]:.6g}; the graph gives {wanted[place]:.6g}"
            )
        largest = max(largest, float(apart.max(initial=0)))
    return largest
