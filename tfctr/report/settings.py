"""The keys of configs, and which of them differ."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from tfctr.config import RunConfig, base_of, changed, read

MISSING = "–"


class Settings(NamedTuple):
    """How a run config came about.

    Attributes:
        content: of its file, with what the file extends.
        base: what the content is made from: another file, a file without the variant, or, if keys
            were changed for the run, the config without the changes; "" for none.
        of_base: the content of the base; empty for none.
    """

    content: Mapping[str, Any]
    base: str
    of_base: Mapping[str, Any]

    @classmethod
    def of_file(cls, path: str, changes: Iterable[str] = ()) -> "Settings":
        """Those of a run config's path, and of changes `key.path=value`."""
        content, changes = read(path), list(changes)
        if changes:
            return cls(changed(content, changes), path, content)
        below = base_of(path)
        return cls(content, below or "", read(below) if below else {})

    @classmethod
    def of_config(cls, config: RunConfig) -> "Settings":
        """Those of a config that no file describes: its keys that have not their defaults."""
        return cls(config.model_dump(mode="json", exclude_defaults=True), "", {})

    def differences(self) -> list[tuple[str, str, str]]:
        """`(key, value, value of the base)` of each key that differs, without the run's name."""
        mine, other = flat(self.content), flat(self.of_base)
        return [
            (key, mine.get(key, MISSING), other.get(key, MISSING))
            for key in {**other, **mine}
            if mine.get(key) != other.get(key) and key != "name"
        ]


def between(configs: Sequence[RunConfig]) -> list[tuple[str, list[str]]]:
    """`(key, a value for each run)` of each key in which runs differ, without their names."""
    found = [flat(config.model_dump(mode="json")) for config in configs]
    keys = dict.fromkeys(key for values in found for key in values)
    rows = [(key, [values.get(key, MISSING) for values in found]) for key in keys]
    return [row for row in rows if len({*row[1]}) > 1 and row[0] != "name"]


def flat(content: Any, prefix: str = "") -> dict[str, str]:
    """The values of a config as JSON by key path. Items of a list of mappings with names are
    addressed by their `name`; other lists are values.

    Example:
        >>> flat({"model": {"backbone": "dnn", "hidden_units": [8, 4]}})
        {'model.backbone': 'dnn', 'model.hidden_units': '[8, 4]'}
    """
    if isinstance(content, Mapping) and (content or not prefix):
        parts = {str(key): value for key, value in content.items()}
    elif _has_names(content):
        parts = {str(item["name"]): _without_name(item) for item in content}
    else:
        return {prefix: content if isinstance(content, str) else json.dumps(content, default=str)}
    found: dict[str, str] = {}
    for key, value in parts.items():
        found |= flat(value, f"{prefix}.{key}" if prefix else key)
    return found


def _has_names(content: Any) -> bool:
    if not isinstance(content, Sequence) or isinstance(content, str) or not content:
        return False
    return all(isinstance(item, Mapping) and "name" in item for item in content)


def _without_name(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != "name"}


def as_yaml(config: RunConfig) -> str:
    """A whole run config, with the configs that it refers to, without defaults."""
    content = json.loads(config.model_dump_json(exclude_defaults=True))
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, allow_unicode=True)
