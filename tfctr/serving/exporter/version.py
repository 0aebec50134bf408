"""Writes a new version of a served model, checks it in TF Serving's loader, and publishes it."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfctr.data.manifest import DataError
from tfctr.schema import Schema
from tfctr.serving.exporter.warmup_requests import write_warmup
from tfctr.serving.model_directory import publish, signature_defs
from tfctr.serving.warmup import inputs_of, read_warmup

TOLERANCE = 1e-4  # absolute, of a score; threads may add in another order


def write_version(
    directory: Path,
    served: tf.Module,
    signatures: Mapping[str, Any],
    schema: Schema,
    vocabularies: Mapping[str, Path],
) -> Path:
    """Writes the next version, `directory/<version>/`; it appears once it has passed its checks.

    Args:
        directory: the model's directory; its name is the model's name.
        served: holds the variables and tables.
        signatures: concrete functions by name.
        schema: of the features that the signatures take.
        vocabularies: the vocabulary file of each feature that has tokens.

    Returns:
        The folder of the new version.

    Raises:
        DataError: it does not load, or has other scores than `signatures`; it is deleted.
    """

    def write(version: Path) -> None:
        tf.saved_model.save(served, str(version), signatures=dict(signatures))
        extra = version / "assets.extra"
        extra.mkdir()
        (extra / "schema.json").write_text(schema.model_dump_json(indent=2) + "\n")
        write_warmup(extra, directory.name, schema, vocabularies, signatures)
        _verify(version, directory, signatures)

    return publish(directory, write)


def _verify(version: Path, directory: Path, signatures: Mapping[str, Any]) -> None:
    """Runs the warm-up requests in TensorFlow's C++ loader, as a separate process: a version that
    crashes the loader would crash a server with all its models."""
    definitions = signature_defs(version)
    requests, expected = [], []
    for log in read_warmup(version):
        name, inputs = inputs_of(log)
        definition = definitions[name]
        answer = {k: v.numpy() for k, v in signatures[name](**_tensors(inputs)).items()}
        requests.append(
            {
                "inputs": {definition.inputs[k].name: _to_json(v) for k, v in inputs.items()},
                "outputs": {k: definition.outputs[k].name for k in answer},
            }
        )
        expected.append((name, answer))
    run = subprocess.run(
        [sys.executable, "-m", "tfctr.serving.exporter.run_requests", str(version)],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
    )
    if run.returncode:
        why = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(
            f"{directory}: the exported version does not load in TF Serving's loader, exit status "
            f"{run.returncode}: {why}"
        )
    for (name, answer), found in zip(expected, json.loads(run.stdout), strict=True):
        for key, values in answer.items():
            if values.dtype.kind != "f":
                continue
            if not np.isfinite(values).all():
                raise DataError(
                    f"{directory}: {name}: {key} of a warm-up request is not finite; train the "
                    "model again with a smaller learning rate"
                )
            difference = float(np.max(np.abs(np.array(found[key]) - values.ravel()), initial=0))
            if difference > TOLERANCE:
                raise DataError(
                    f"{directory}: {name}: {key} differs by {difference:.2g} between the model and "
                    "the exported version"
                )


def _tensors(inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: tf.constant(values) for name, values in inputs.items()}


def _to_json(values: np.ndarray) -> dict[str, Any]:
    flat = values.ravel().tolist()
    if values.dtype == object:
        flat = [value.decode("latin-1") for value in flat]
    return {"dtype": values.dtype.name, "shape": list(values.shape), "values": flat}
