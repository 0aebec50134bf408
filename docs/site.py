"""Pages of the site that are files elsewhere in the repository, and links to them.

All pages are plain Markdown, with links as a code host follows them: `../benchmarks/README.md`.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
}
PROGRAMS = sorted((ROOT / "examples").glob("*.py"))
LOADED = re.compile(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")

log = get_plugin_logger(__name__)


def on_files(files: Files, config: Any) -> None:
    for path, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The text with links from page to page; a link to another file of the repository is an error,
    since the site does not have it: name the file instead. Only examples are there, on their page.
    """
    sources = {name: path for path, name in PAGES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def relinked(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        target = PAGES.get(path, path.removeprefix("docs/"))
        anchor = match[2] or ""
        if (program := (ROOT / path).with_suffix(".py")) in PROGRAMS:  # or its notebook
            target, anchor = PAGES["examples/README.md"], "#" + program.name.replace(".", "")
        elif path not in PAGES and not path.startswith("docs/"):
            log.warning("%s: links to %s, which is no page", source, path)
        link = posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")
        return f"]({link}{anchor})"

    text = LINK.sub(relinked, markdown)
    if source == "examples/README.md":
        for path in PROGRAMS:
            text += f"\n## {path.name}\n\n```python\n{path.read_text()}```\n"
    return text


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """A page that loads something from another site is an error: it would tell that site of its
    readers."""
    for found in LOADED.findall(output):
        log.warning("%s: loads from elsewhere: %s", page.file.src_uri, found)
    return output
