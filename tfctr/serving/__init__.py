"""Exports SavedModels for TF Serving; a local server with its protocol; a client.

Names are imported when they are first used, so that TensorFlow is loaded only then.
"""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "Client": "client",
        "Server": "server.local_server",
        "ServingError": "errors",
        "export": "exporter.saved_model",
        "write_batching": "tf_serving_config",
        "write_config": "tf_serving_config",
    },
)
