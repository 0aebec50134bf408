"""tfctr: offline knowledge into click-through-rate models that are cheap to serve."""

import os
from importlib import import_module
from typing import Any

from tfctr import saving

__version__ = "0.1.0"
__all__ = ["saving"]

# tensorflow-recommenders needs legacy `tf.keras`, and TensorFlow reads this once. `import keras` is
# Keras 3 all the same.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

_ROOMS = ("backbones", "config", "data", "layers", "metrics", "optimizers", "schema", "serving")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:  # imported when first used: Beam workers need no TensorFlow
        return import_module(f"tfctr.{name}")
    if name == "predict":
        return import_module("tfctr.models.probabilities").predict
    raise AttributeError(f"module 'tfctr' has no attribute {name!r}")
