"""tfctr: offline knowledge into click-through-rate models that are cheap to serve.

`dir(tfctr)` lists all there is. A room is imported when it is first used, so that a Beam worker or
a client loads no TensorFlow.
"""

import os

from tfctr import saving
from tfctr.lazy import exports

__version__ = "0.1.0"

# tensorflow-recommenders needs legacy `tf.keras`, and TensorFlow reads this once. `import keras` is
# Keras 3 all the same.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

__getattr__, __dir__, __all__ = exports(
    __name__,
    {"Run": "stages", "compare": "comparison", "evaluate": "frames", "predict": "frames"},
    rooms=(
        *("backbones", "config", "data", "frameworks", "language", "layers", "metrics", "models"),
        *("optimizers", "retrieval", "schema", "serving", "training"),
    ),
)
__all__ += ["saving"]
