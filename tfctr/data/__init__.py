"""Dataset directories, readers of raw logs, and the generated world.

Names are imported when first used: Beam workers read sources without loading TensorFlow.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Dataset": "tfctr.data.dataset",
    "Vocabulary": "tfctr.data.vocabulary",
    "World": "tfctr.data.world",
    "data_home": "tfctr.config",
    "download": "tfctr.data.archives",
}
__all__ = ["Dataset", "Vocabulary", "World", "data_home", "download"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
