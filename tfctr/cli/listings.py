"""What a run config can name: the backbones and the methods, with their keys."""

import inspect
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from tfctr.cli.app import app, console
from tfctr.config.method import registered


@app.command("backbones")
def list_backbones() -> None:
    """Lists the backbones: a line each, and the keys of `model` in a run config."""
    from tfctr import backbones

    for name in backbones.registered():
        cls = backbones.registered_class(name)
        known = inspect.signature(cls).parameters.values()
        arguments = [
            (p.name, p.default) for p in known if p.name != "schema" and p.kind is not p.VAR_KEYWORD
        ]
        _print(name, cls, arguments)


@app.command("frameworks")
def list_frameworks() -> None:
    """Lists the methods around a backbone: a line each, and their keys in `frameworks`."""
    for name, cls in registered().items():
        fields = cls.model_fields.items()
        arguments = [
            (key, inspect.Parameter.empty if field.is_required() else field.get_default())
            for key, field in fields
            if key != "name"
        ]
        _print(name, cls, arguments)


def _print(name: str, cls: type, arguments: Iterable[tuple[str, Any]]) -> None:
    """The name with the first sentence about the class, and its keys; a default of one that is
    required is `Parameter.empty`."""
    about = inspect.getdoc(cls) or ""
    about = " ".join(about.partition("\n\n")[0].split())
    keys = [
        key if default is inspect.Parameter.empty else f"{key}={_shown(default)}"
        for key, default in arguments
    ]
    for line in (f"{name}: {about}", f"    {', '.join(keys) or 'no keys'}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _shown(default: Any) -> str:
    if isinstance(default, BaseModel):
        return str(default.model_dump(mode="json", exclude_defaults=True))
    if isinstance(default, tuple):
        return repr(list(default))
    return str(default)
