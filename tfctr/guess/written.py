"""A config as YAML, with comments beside its lines."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Writes a text with signs that are not printed, such as line breaks, in one line."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = None if value.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)


_Dumper.add_representer(str, _text)


@dataclass(frozen=True)
class Line:
    """One line of a mapping or a list.

    Attributes:
        key: None in a list.
        value: written in one line.
        comment: beside it.
        is_off: whether the line itself is a comment.
    """

    key: str | None
    value: Any
    comment: str = ""
    is_off: bool = False


@dataclass(frozen=True)
class Block:
    """A key with lines below it."""

    key: str
    lines: Sequence["Line | Block"] = field(default_factory=tuple)


def text(lines: Sequence[Line | Block], head: Sequence[str]) -> str:
    """The YAML of a mapping, after the lines `head`, which are comments."""
    top = [f"# {line}" for line in head]
    return "\n".join([*top, *_written(lines, "")]) + "\n"


def _written(lines: Sequence[Line | Block], indent: str) -> Iterator[str]:
    for line in lines:
        if isinstance(line, Block):
            yield f"{indent}{line.key}:"
            yield from _written(line.lines, indent + "  ")
            continue
        start = "- " if line.key is None else f"{line.key}: "
        shown = f"{indent}{'# ' if line.is_off else ''}{start}{inline(line.value)}"
        yield f"{shown}  # {one_line(line.comment)}" if line.comment else shown


def inline(value: Any) -> str:
    """A value in one line of YAML."""
    found: str = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=True,
        sort_keys=False,
        width=float("inf"),
        allow_unicode=True,
    )
    return found.removesuffix("\n").removesuffix("\n...")


def one_line(comment: str) -> str:
    """Names of columns may hold any sign; those that end a line would end the comment."""
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", lambda sign: repr(sign[0])[1:-1], comment)


def content(lines: Sequence[Line | Block]) -> Any:
    """What the YAML says."""
    if any(isinstance(line, Line) and line.key is None and not line.is_off for line in lines):
        return [line.value for line in lines if isinstance(line, Line) and not line.is_off]
    found: Mapping[str, Any] = {
        str(line.key): content(line.lines) if isinstance(line, Block) else line.value
        for line in lines
        if isinstance(line, Block) or not line.is_off
    }
    return dict(found)
