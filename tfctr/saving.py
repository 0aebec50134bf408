"""Lets Keras load files whose classes are not imported yet.

After `import tfctr`, `keras.models.load_model(path)` finds every class of tfctr. Keras looks in a
registry, where a class is from its module's import on; until then a `Deferred` stands there, which
imports the module when a file names the class. Nothing here imports Keras or TensorFlow.

Which class is in which module is read from the modules' texts when Keras is imported (25 ms), so
that a new class is written in its own file only. Keras itself looks a name up in a plain dict, and
imports no module of ours by the path that its files also hold.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import wrapt

KERAS_CLASS = re.compile(
    r'^@(?:keras\.saving\.register_keras_serializable|register)\("\w+"\)\nclass (\w+)',
    re.MULTILINE,
)


@dataclass(frozen=True)
class Deferred:
    """Stands for a class in Keras' registry until its module is imported."""

    module: str
    name: str

    def from_config(self, config: dict[str, Any]) -> Any:
        return getattr(import_module(self.module), self.name).from_config(config)


def defer(module: str, *names: str, package: str = "tfctr") -> None:
    """Lets Keras import `module` when a file names one of its classes.

    A method outside of tfctr calls it in the `__init__` of its folder, for its models and layers.

    Args:
        module: where the classes are registered for Keras.
        names: of the classes.
        package: that they are registered under.
    """
    # At once if Keras is there.
    wrapt.register_post_import_hook(lambda keras: _register(keras, module, names, package), "keras")


def _register(keras: Any, module: str, names: Iterable[str], package: str = "tfctr") -> None:
    for name in names:
        # A class that is imported already stays.
        keras.saving.get_custom_objects().setdefault(f"{package}>{name}", Deferred(module, name))


def _register_own(keras: Any) -> None:
    """All classes of tfctr; a file says by a decorator which ones it registers."""
    root = Path(__file__).parent
    for path in root.rglob("*.py"):
        module = ".".join(path.relative_to(root.parent).with_suffix("").parts)
        _register(keras, module, KERAS_CLASS.findall(path.read_text("utf-8")))


wrapt.register_post_import_hook(_register_own, "keras")
