"""The `tfctr` command."""

import pkgutil
from importlib import import_module

from tfctr import frameworks
from tfctr.cli import data, runs, serving
from tfctr.cli.app import app

# A method's folder may have commands of its own.
for _method in pkgutil.iter_modules(frameworks.__path__, f"{frameworks.__name__}."):
    if any(
        module.name == "commands"
        for module in pkgutil.iter_modules(import_module(_method.name).__path__)
    ):
        import_module(f"{_method.name}.commands")

__all__ = ["app", "data", "runs", "serving"]
