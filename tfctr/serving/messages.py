"""TF Serving's messages, imported without TensorFlow: a client needs the messages alone.

`tensorflow_serving.apis` reads messages of `tensorflow.core`, and Python imports a package before
its modules. So an empty package stands for TensorFlow, seconds to import, while they are read; a
later `import tensorflow` is as ever.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def _without_tensorflow() -> Iterator[None]:
    found = None if "tensorflow" in sys.modules else importlib.util.find_spec("tensorflow")
    if found is None:
        yield
        return
    empty = ModuleType("tensorflow")
    empty.__path__ = list(found.submodule_search_locations or ())
    sys.modules["tensorflow"] = empty
    try:
        yield
    finally:
        del sys.modules["tensorflow"]


with _without_tensorflow():
    from tensorflow.core.framework import tensor_pb2, types_pb2
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

__all__ = [
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "model_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_service_pb2_grpc",
    "tensor_pb2",
    "types_pb2",
]
