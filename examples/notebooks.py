"""Writes the notebooks that are made of examples: `python examples/notebooks.py`.

The docstring of an example is the first cell; `# %%` begins a cell of code, and a text after it is
a cell of its own.
"""

import ast
import json
from pathlib import Path

FOLDER = Path(__file__).parent
NOTEBOOKS = ("own_dataframe", "own_backbone")


def notebook(text: str) -> str:
    """The notebook of an example's text, as JSON without outputs."""
    head, *parts = text.split("\n# %%")
    cells = [("markdown", ast.get_docstring(ast.parse(head)) or "")]
    for part in parts:
        about, _, code = part.partition("\n")
        cells += [("markdown", about.strip())] if about.strip() else []
        cells.append(("code", code.strip()))
    content = {
        "cells": [_cell(i, kind, source) for i, (kind, source) in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1) + "\n"


def _cell(number: int, kind: str, source: str) -> dict[str, object]:
    of_code = {"execution_count": None, "outputs": []} if kind == "code" else {}
    lines = source.splitlines(keepends=True)
    return {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, **of_code, "source": lines}


if __name__ == "__main__":
    for name in NOTEBOOKS:
        text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
        (FOLDER / f"{name}.ipynb").write_text(notebook(text), encoding="utf-8")
