"""tfctr: offline knowledge into click-through-rate models that are cheap to serve."""

from importlib import import_module
from typing import Any

from tfctr import quiet, saving

__version__ = "0.1.0"
__all__ = ["quiet", "saving"]

quiet.set_environment()

_ROOMS = ("backbones", "config", "data", "layers", "metrics", "optimizers", "schema", "serving")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:  # imported when first used: Beam workers need no TensorFlow
        return import_module(f"tfctr.{name}")
    if name == "predict":
        return import_module("tfctr.models.probabilities").predict
    raise AttributeError(f"module 'tfctr' has no attribute {name!r}")
