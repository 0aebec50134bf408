"""The site has every page and every public class; `make docs` checks its links."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NAV = re.findall(r"^ +- [^#\n]+: (\S+\.md)", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
FROM_ELSEWHERE = re.findall(r'": "(\S+\.md)"', (DOCS / "site.py").read_text())


def test_every_page_is_in_the_nav_once() -> None:
    pages = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    assert sorted(NAV) == sorted([*pages, *FROM_ELSEWHERE])


@pytest.mark.parametrize("room", ["backbones", "layers"])
def test_every_registered_class_is_on_its_page(room: str) -> None:
    listed = re.findall(r"^::: (\S+)", (DOCS / f"reference/{room}.md").read_text(), re.MULTILINE)
    for path in (ROOT / "tfctr" / room).glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.decorator_list:
                if path.stem.endswith("_backbone"):  # what two of them share
                    continue
                assert f"tfctr.{room}.{path.stem}.{node.name}" in listed
