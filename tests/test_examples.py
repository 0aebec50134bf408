"""The examples run, and the notebooks are those of their text."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

import tfctr.backbones.backbone

EXAMPLES = Path(__file__).parents[1] / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))
PRINTED = {
    "notebooks": "",
    "own_backbone": "gated_sum ",
    "own_dataframe": "Total params: ",
    "serve": "with curl: [",
    "stacked_student": "Epoch 2/2",
    "training_loop": "epoch 3: loss ",
}


@pytest.mark.processes
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_an_example_is_short_and_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
    monkeypatch.chdir(tmp_path)
    known = dict(tfctr.backbones.backbone._registry)  # one example registers a backbone
    monkeypatch.setattr(tfctr.backbones.backbone, "_registry", known)
    runpy.run_path(str(path))
    printed = capsys.readouterr().out
    assert PRINTED[path.stem] in printed


def test_notebooks_are_made_of_their_examples_and_hold_no_outputs() -> None:
    made = runpy.run_path(str(EXAMPLES / "notebooks.py"))
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == {*made["NOTEBOOKS"]}
    for name in made["NOTEBOOKS"]:
        text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
        found = (EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8")
        assert found == made["notebook"](text), "run: python examples/notebooks.py"
        cells = json.loads(found)["cells"]
        assert not any(cell.get("outputs") for cell in cells)
        # All of the program's code is in the cells, in order.
        code = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        after_docstring = text.split('"""', 2)[2]
        without_marks = re.sub(r"^# %%.*$", "", after_docstring, flags=re.MULTILINE)
        assert "".join(code.split()) == "".join(without_marks.split())


def test_every_example_is_described() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in (*PROGRAMS, *EXAMPLES.glob("*.ipynb")):
        assert f"({path.name})" in page or path.stem == "notebooks"
