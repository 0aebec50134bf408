"""Keeps TensorFlow's lines out of what a command prints.

Only commands and their worker processes do this: what a program prints that imports tfctr is its
own affair. A setting of the user's stays: `TF_CPP_MIN_LOG_LEVEL=0` shows every line.
"""

import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
INFO_LINE = re.compile(rb"I\d{4} |WARNING: All log messages before absl::InitializeLog\(\)")


def quieten() -> None:
    """Lets this process, and those that it starts, import TensorFlow without a line of its own.

    A command calls it before it imports TensorFlow; a worker process calls it itself.
    """
    # Level 2 would show an error, cuInit, on every machine without a GPU. What goes wrong is raised
    # as well.
    os.environ.setdefault(LOG_LEVEL, "3")
    if "tensorflow" not in sys.modules and os.environ[LOG_LEVEL] != "0":
        sys.meta_path.insert(0, _TensorFlow())


class _TensorFlow(MetaPathFinder):
    """Imports TensorFlow without the lines that it logs before it has read its log level."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: Any = None
    ) -> ModuleSpec | None:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                with _without_info_lines():
                    run(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextmanager
def _without_info_lines() -> Iterator[None]:
    """Holds back what is written to the standard error, and then writes it, but for INFO lines."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if not INFO_LINE.match(line):
                    os.write(2, line)
