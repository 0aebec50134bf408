"""The `tfctr` command."""

import pkgutil
from importlib import import_module
from importlib.util import find_spec

from tfctr import frameworks
from tfctr.cli import data, init, listings, report, runs, serving
from tfctr.cli.app import app

# A method's folder may have commands of its own.
for _method in pkgutil.iter_modules(frameworks.__path__, f"{frameworks.__name__}."):
    if find_spec(f"{_method.name}.commands"):
        import_module(f"{_method.name}.commands")

__all__ = ["app", "data", "init", "listings", "report", "runs", "serving"]
