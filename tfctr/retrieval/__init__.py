"""Searches for similar rows."""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "Bm25Index": "bm25",
        "DenseIndex": "dense",
        "RandomRows": "random_rows",
        "RetrievalConfig": "config",
    },
)
