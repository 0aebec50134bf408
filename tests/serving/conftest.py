"""A server of the model of `tests/conftest.py`, and what asks it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from tests.serving.raw_rows import fake_dataset
from tests.serving.requests import MAX_REQUEST_BYTES
from tfctr.serving import Client, Server, export


@pytest.fixture(scope="session")
def directory(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("server")
    return export(model, fake_dataset(folder / "v"), folder / "tiny").parent


@pytest.fixture(scope="session")
def server(directory: Path) -> Iterator[Server]:
    with Server(
        {"tiny": directory}, grpc_port=0, rest_port=0, max_request_bytes=MAX_REQUEST_BYTES
    ) as server:
        yield server


@pytest.fixture(scope="session")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield channel


@pytest.fixture(scope="session")
def stub(channel: grpc.Channel) -> Any:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="session")
def status_stub(channel: grpc.Channel) -> Any:
    return model_service_pb2_grpc.ModelServiceStub(channel)


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[Client]:
    with Client(f"127.0.0.1:{server.grpc_port}", model="tiny") as client:
        yield client
