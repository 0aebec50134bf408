"""Several devices and several processes learn what one device learns."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tfctr import backbones
from tfctr.data.manifest import DataError, read_manifest
from tfctr.schema import MASK_ID, TOKEN_KINDS
from tfctr.training import distribution


def start(
    strategy: str, data: Path, name: str, clipnorm: float = 0.0, **environment: str
) -> subprocess.Popen[str]:
    arguments = [strategy, str(data.parent), name, str(clipnorm)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.train_on_devices", *arguments],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        output, _ = process.communicate(timeout=280)
        assert process.returncode == 0, output[-3000:]


def assert_alike(found: Path, expected: Path) -> None:
    """Runs whose loss curves and weights are the same but for rounding."""
    curves = [
        (read_manifest(folder / "train.json") or {})["epochs"] for folder in (found, expected)
    ]
    assert curves[1][1]["loss"] < curves[1][0]["loss"]
    for epochs in zip(*curves, strict=True):
        for key in ("loss", "valid_auc", "valid_log_loss"):
            assert epochs[0][key] == pytest.approx(epochs[1][key], abs=1e-6)
    models: list[backbones.Backbone] = [
        keras.models.load_model(folder / "model.keras") for folder in (found, expected)
    ]
    for weights in zip(*(model.weights for model in models), strict=True):
        np.testing.assert_allclose(weights[0].numpy(), weights[1].numpy(), atol=1e-5)


def assert_rows_of_no_batch_are_as_they_were(folder: Path) -> None:
    """Those of hidden values, which no data hold: L2 must not have moved them."""
    trained: backbones.Backbone = keras.models.load_model(folder / "model.keras")
    keras.utils.set_random_seed(1)  # as the training began
    untrained = type(trained).from_config(trained.get_config())
    untrained.build()
    vocabularies = {f.vocabulary for f in trained.schema.inputs if isinstance(f, TOKEN_KINDS)}
    rows = [trained.fields.offsets[name] + MASK_ID for name in vocabularies]
    tables = [model.fields.table.numpy() for model in (trained, untrained)]
    np.testing.assert_array_equal(tables[0][rows], tables[1][rows])
    assert (tables[0] != tables[1]).any()


@pytest.fixture(scope="module")
def one_device(world_data: Path) -> Path:
    finish(start("one_device", world_data, "one-device"))
    return world_data.parent / "one-device"


@pytest.mark.slow
def test_two_devices_learn_what_one_learns(world_data: Path, one_device: Path) -> None:
    finish(start("mirrored", world_data, "mirrored"))
    mirrored = world_data.parent / "mirrored"
    assert_alike(mirrored, one_device)
    for folder in (mirrored, one_device):
        assert_rows_of_no_batch_are_as_they_were(folder)


@pytest.mark.slow
def test_the_sum_of_the_replicas_gradients_is_clipped(world_data: Path) -> None:
    names = ("one_device", "mirrored")
    finish(*(start(name, world_data, f"clipped-{name}", clipnorm=0.05) for name in names))
    one, two = (world_data.parent / f"clipped-{name}" for name in names)
    assert_alike(two, one)


@pytest.mark.processes
def test_two_processes_learn_what_one_learns(world_data: Path, one_device: Path) -> None:
    workers = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            workers.append(f"localhost:{free.getsockname()[1]}")
    cluster = {"cluster": {"worker": workers}}
    tasks = [cluster | {"task": {"type": "worker", "index": i}} for i in range(2)]
    finish(
        *(
            start("multi_worker", world_data, "two-workers", TF_CONFIG=json.dumps(task))
            for task in tasks
        )
    )
    folder = world_data.parent / "two-workers"
    assert_alike(folder, one_device)
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.keras",
        "train.json",
        "vocabularies",
    ]


@pytest.mark.parametrize("found", [None, "{", '{"cluster": {}}'])
def test_a_wrong_tf_config_is_explained(monkeypatch: pytest.MonkeyPatch, found: str | None) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if found is not None:
        monkeypatch.setenv("TF_CONFIG", found)
    with pytest.raises(DataError, match="multi_worker needs the environment variable TF_CONFIG"):
        distribution.open_strategy("multi_worker")
