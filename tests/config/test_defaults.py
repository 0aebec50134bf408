"""A default is written once: by the config, or by the class that the config is of.

Configs are read without Keras, so a method's config can't be made from the signature of a layer or
model: there the config has the defaults, and the class has none. A backbone has no config of its
own: `BackboneConfig` hands its keys on, and the class has the defaults.
"""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import pytest

import tfctr
from tfctr.backbones import Backbone
from tfctr.schema import Strict

# Configs, and the folder of what they configure.
ROOMS = {
    "tfctr.config.training": ["tfctr.optimizers"],
    "tfctr.language.config": ["tfctr.language"],
    "tfctr.retrieval.config": ["tfctr.retrieval"],
    **{
        f"tfctr.frameworks.{path.parent.name}.config": [
            f"tfctr.frameworks.{path.parent.name}",
            "tfctr.language",
        ]
        for path in sorted(Path(tfctr.__path__[0]).glob("frameworks/*/config.py"))
    },
}
# Off, as all that Keras' own optimizers may do beside their step.
OFF = {
    (name, key) for name in ("LazyAdam", "LazyAdagrad") for key in ("embedding_l2", "compact_state")
}


def _own(module: ModuleType) -> Iterator[type]:
    for _, cls in inspect.getmembers(module, inspect.isclass):
        if cls.__module__ == module.__name__:
            yield cls


def _modules(package: str) -> Iterator[ModuleType]:
    folder = Path(tfctr.__path__[0]).parent / package.replace(".", "/")
    for path in sorted(folder.glob("*.py")):
        yield importlib.import_module(f"{package}.{path.stem}".removesuffix(".__init__"))


def _defaults(cls: type) -> Iterator[str]:
    """The arguments of a layer, model or optimizer that have a default; None says "not given"."""
    is_ours = issubclass(cls, keras.Layer | keras.optimizers.Optimizer)
    if is_ours and not issubclass(cls, Backbone) and "__init__" in vars(cls):
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            if parameter.default not in (inspect.Parameter.empty, None):
                yield name


@pytest.mark.parametrize("room", ROOMS)
def test_no_class_has_a_default_that_its_config_has_too(room: str) -> None:
    configs = [cls for cls in _own(importlib.import_module(room)) if issubclass(cls, Strict)]
    fields: dict[str, Any] = {}
    for config in configs:
        fields |= config.__pydantic_fields__
    said = {name for name, field in fields.items() if not field.is_required()}
    twice = {
        (cls.__name__, name)
        for package in ROOMS[room]
        for module in _modules(package)
        for cls in _own(module)
        for name in _defaults(cls)
        if name in said
    }
    assert twice - OFF == set()
