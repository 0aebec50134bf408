"""DataFrames: into datasets, to scores, to metrics.

A DataFrame goes the way of a log: it is written as Parquet, and read by the code that reads files.
So the same values are the same inputs of a model, and the same rows are bad.
"""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, {"evaluate": "scores", "predict": "scores", "is_frame": "tables"}
)
