"""A local server, for development and tests, that answers as TF Serving does."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    regression_pb2,
)

from tfctr.serving.errors import ServingError
from tfctr.serving.server import answers
from tfctr.serving.server.http_server import RestServer
from tfctr.serving.server.model_specs import find_version, model_metadata, model_status
from tfctr.serving.server.model_versions import ModelVersions
from tfctr.serving.server.raw_requests import RawPredictRequest
from tfctr.serving.tf_serving_config import read_models

LAST_PORT = 65_535
logger = logging.getLogger(__name__)


class Server:
    """Serves models over gRPC (PredictionService, ModelService) and REST until `stop`.

        with Server({"movielens": "saved_models/movielens-dcnv2"}) as server:
            server.wait()

    Args:
        models: each model's directory by its name; or the path of a `models.config`, which is read
            again when it changes. If a directory in it does not exist here, e.g. because it is a
            container's path, the folder of that name next to the file is taken.
        host: address to listen on. Defaults to loopback, because there is no authentication.
        grpc_port: int. 0 takes any free port. Defaults to 8500.
        rest_port: int. 0 takes any free port. Defaults to 8501.
        max_request_bytes: int. A larger request is answered with RESOURCE_EXHAUSTED, or 413.
            Defaults to 16 MiB.
        poll_seconds: float. Time between two looks for new versions. Defaults to 1.

    Raises:
        ValueError: a port that there is not; one port for both.

    Attributes:
        grpc_port, rest_port: the ports in use, after `start`.
    """

    def __init__(
        self,
        models: Mapping[str, str | Path] | str | Path,
        host: str = "127.0.0.1",
        grpc_port: int = 8500,
        rest_port: int = 8501,
        max_request_bytes: int = 16 * 1024 * 1024,
        poll_seconds: float = 1.0,
    ) -> None:
        for name, port in (("grpc_port", grpc_port), ("rest_port", rest_port)):
            if not 0 <= port <= LAST_PORT:
                raise ValueError(f"{name}: found {port}; a port is 1 to {LAST_PORT}, or 0 for any")
        if grpc_port == rest_port != 0:
            raise ValueError(f"grpc_port and rest_port are both {grpc_port}; give two ports")
        self.host = host
        self.grpc_port = grpc_port
        self.rest_port = rest_port
        self.max_request_bytes = max_request_bytes
        self.poll_seconds = poll_seconds
        self._config = Path(models) if isinstance(models, str | Path) else None
        self._models: dict[str, ModelVersions] = {}
        if not isinstance(models, str | Path):
            self._models = {name: ModelVersions(name, Path(path)) for name, path in models.items()}
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> "Server":
        """Loads the models, then listens.

        Raises:
            ValueError: no version of a model loads; `models.config` is missing or invalid.
            OSError: a port is taken.
        """
        if self._config is not None:
            self._read_config(self._config)
            if not self._models:
                raise ValueError(f"{self._config}: no model in it")
        for model in self._models.values():
            model.poll()
            model.require()
        self._grpc = self._start_grpc()
        try:
            self._rest = RestServer(
                (self.host, self.rest_port), self._models, self.max_request_bytes
            )
        except OSError as error:
            self._grpc.stop(None).wait()
            raise OSError(
                f"rest_port: {self.host}:{self.rest_port} can't be listened on ({error.strerror}); "
                "is another server running? 0 takes a free port"
            ) from error
        self.rest_port = self._rest.server_port
        self._threads = [
            threading.Thread(target=self._rest.serve_forever, daemon=True),
            threading.Thread(target=self._poll, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def stop(self, grace_seconds: float = 20.0) -> None:
        """Refuses new requests and finishes those in flight, for `grace_seconds` at most.

        The default is less than the 30 seconds after which Kubernetes kills a container.
        """
        self._stopping.set()
        stopped = self._grpc.stop(grace_seconds)
        self._rest.drain(grace_seconds)
        stopped.wait()
        for thread in self._threads:
            thread.join()

    @property
    def models(self) -> tuple[str, ...]:
        """The models' names."""
        return tuple(self._models)

    def wait(self) -> None:
        """Waits until the server is stopped."""
        self._stopping.wait()

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_grpc(self) -> grpc.Server:
        server = grpc.server(
            futures.ThreadPoolExecutor(os.cpu_count()),
            options=[
                ("grpc.max_receive_message_length", self.max_request_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # else a second server would share the port unnoticed
            ],
        )
        for service, methods in SERVICES.items():
            handlers = {
                name: grpc.unary_unary_rpc_method_handler(
                    self._method(request, answer),
                    response_serializer=lambda response: response.SerializeToString(),
                )
                for name, (request, answer) in methods.items()
            }
            handler = grpc.method_handlers_generic_handler(service, handlers)
            server.add_generic_rpc_handlers((handler,))
        try:
            self.grpc_port = server.add_insecure_port(f"{self.host}:{self.grpc_port}")
        except RuntimeError as error:
            raise OSError(
                f"grpc_port: {self.host}:{self.grpc_port} can't be listened on; is another server "
                "running? 0 takes a free port"
            ) from error
        server.start()
        return server

    def _read_config(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        hosted = read_models(path)
        for name, model in hosted.items():  # all labels or none, as in the real server
            if name in self._models:
                self._models[name].check_labels(model.labels)
        for name, model in hosted.items():
            directory = Path(model.directory)
            if not directory.is_dir():
                directory = path.parent / directory.name
            known = self._models.get(name)
            if known is None or known.directory != directory:
                self._models[name] = ModelVersions(name, directory, model.labels, model.versions)
            else:
                known.labels, known.named = dict(model.labels), frozenset(model.versions)
        for name in self._models.keys() - hosted.keys():
            del self._models[name]

    def _poll(self) -> None:
        while not self._stopping.wait(self.poll_seconds):
            if self._config is not None:
                try:
                    self._read_config(self._config)
                except (OSError, ValueError) as error:  # the models stay as they are
                    logger.error("%s: %s", self._config, error)
            for model in list(self._models.values()):
                try:
                    model.poll()
                except OSError as error:  # e.g. a directory that can't be read for now
                    logger.error("model %s: %s", model.name, error)

    def _method(
        self, message: Any, answer: Callable[[Any, Any], Any]
    ) -> Callable[[bytes, grpc.ServicerContext], Any]:
        """A method of a gRPC service from `answer(models, request)`.

        It parses the request itself: `grpcio` leaks 16 KB for each one that it can't parse.
        """

        def method(serialized: bytes, context: grpc.ServicerContext) -> Any:
            try:
                return answer(self._models, message.FromString(serialized))
            except DecodeError:
                name = message.DESCRIPTOR.name
                context.abort(grpc.StatusCode.INTERNAL, f"the request can't be read as a {name}")
            except ServingError as error:
                context.abort(error.code, error.message)
            except Exception as error:
                logger.exception("a request failed")
                context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"[:2000])

        return method


def _of_version(answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """`answer`, for the version that a request asks for."""
    return lambda models, request: answer(find_version(models, request), request)


def _unimplemented(_: object, request: Any) -> Any:
    name = type(request).__name__
    raise ServingError(grpc.StatusCode.UNIMPLEMENTED, f"{name} works on the real TF Serving only")


SERVICES: dict[str, dict[str, tuple[Any, Callable[[Any, Any], Any]]]] = {
    "tensorflow.serving.PredictionService": {
        "Predict": (RawPredictRequest, _of_version(answers.predict)),
        "Classify": (classification_pb2.ClassificationRequest, _of_version(answers.classify)),
        "Regress": (regression_pb2.RegressionRequest, _of_version(answers.regress)),
        "GetModelMetadata": (
            get_model_metadata_pb2.GetModelMetadataRequest,
            model_metadata,
        ),
        "MultiInference": (inference_pb2.MultiInferenceRequest, _unimplemented),
    },
    "tensorflow.serving.ModelService": {
        "GetModelStatus": (get_model_status_pb2.GetModelStatusRequest, model_status),
        "HandleReloadConfigRequest": (model_management_pb2.ReloadConfigRequest, _unimplemented),
    },
}
