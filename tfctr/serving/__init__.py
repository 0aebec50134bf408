"""SavedModels for TF Serving, a local server that speaks its protocol, and a client.

Names are imported when first used: TensorFlow loads only then.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Client": "tfctr.serving.client",
    "Server": "tfctr.serving.server.local_server",
    "ServingError": "tfctr.serving.errors",
    "export": "tfctr.serving.exporter.saved_model",
    "write_batching": "tfctr.serving.tf_serving_config",
    "write_config": "tfctr.serving.tf_serving_config",
}
__all__ = ["Client", "Server", "ServingError", "export", "write_batching", "write_config"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
