"""Dataset directories, readers of raw logs, and the generated world.

Names are imported when first used: Beam workers read sources without loading TensorFlow.
"""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "Dataset": "dataset",
        "Vocabulary": "vocabulary",
        "World": "world",
        "download": "archives",
    },
)
