"""Configs as YAML: files that extend and name one another, strict models, errors that name a key.

A file may have two keys of its own:

- `extends: other.yaml`, or `other.yaml#variant`, starts from that config. Mappings are merged key
  by key, unless their kind differs: another schedule, another backbone. The other config's values
  may also be changed by `key.path: value`.
- `variants: {name: {key.path: value}}` defines more configs, `file.yaml#name`. The `name` of a
  variant is the file's name and its own, unless it gives one. `extends: other` in a variant applies
  the changes of another variant of the file first.

A path in a file is relative to the folder of that file, also if another file extends it. In a key's
path, an item of a list is addressed by its number or by its `name`: `frameworks.NAME.key`.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

Model = TypeVar("Model", bound=BaseModel)
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
KINDS = ("name", "backbone", "format")  # keys that determine the kind of a mapping
FOLLOWS = "follows"  # type of an error that follows from another error, which is reported
DEFAULTS = 1  # raise it when a default changes: digests leave out values equal to the default


class ConfigError(ValueError):
    """A config file that cannot be used; the message has one line per error: where and why."""


def digest(value: Any, without: Iterable[str] = ()) -> str:
    """A short hash of a config, or of any JSON value; equal values have equal hashes.

    Values equal to the default are left out, so that a config keeps its digest when keys are added.

    Args:
        value: a config, or a JSON value.
        without: keys of a config that are left out.
    """
    if isinstance(value, BaseModel):
        content = value.model_dump(mode="json", exclude_defaults=True, exclude={*without})
        value = [DEFAULTS, content]
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


# --- files ------------------------------------------------------------------------------------


class _Text(str):
    """A string in a file, with the file's folder, to which paths are relative."""

    directory: Path


class _Loader(yaml.SafeLoader):
    """Reads each string as a `_Text`."""

    directory: Path


def _construct_text(loader: _Loader, node: yaml.ScalarNode) -> _Text:
    text = _Text(loader.construct_scalar(node))
    text.directory = loader.directory
    return text


_Loader.add_constructor("tag:yaml.org,2002:str", _construct_text)


def directory_of(value: Any) -> Path:
    """The folder that a path in a config is relative to: that of its file, else the working
    folder."""
    return value.directory if isinstance(value, _Text) else Path()


def read(path: str | Path) -> dict[str, Any]:
    """The content of a config file, or of a variant in it (`file.yaml#name`).

    Raises:
        ConfigError: no such file or variant; the file is not YAML, or not a mapping.
    """
    return _read(path, ())


def variants(path: str | Path) -> list[str]:
    """The paths `file.yaml#name` of a file's variants; the file's own path if it has none. `file#`
    is the file without its variants."""
    file, is_one = _split(path)[0], "#" in str(path)
    names = [] if is_one else list(_variants(file, _with_base(file, ()).get("variants")))
    return [f"{file}#{name}" for name in names] or [str(path)]


def base_of(path: str | Path) -> str | None:
    """The path of the config that one is made from: of what a variant or a file extends, else of a
    variant's file; None for a file that extends none.

    Errors as for `read`.
    """
    file, variant = _split(path)
    content = _read_yaml(file)
    if variant:
        below = _with_base(file, ()).get("variants")
        own = _variants(file, below).get(variant, {}).get("extends")
        return f"{file}#{own or ''}"
    extends = content.get("extends")
    return None if extends is None else str(directory_of(extends) / extends)


def changed(content: dict[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """A config with changes `key.path=value`; values are YAML. The changes are appended to its
    `name`, unless they set the name.

    Raises:
        ConfigError: a change is not of the form `key.path=value`, or its path does not exist.
    """
    content, given = copy.deepcopy(content), {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not key or not equals:
            raise ConfigError(f"found {change!r}; key=value is needed, as training.seed=2")
        try:
            given[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{change}: not YAML: {' '.join(str(error).split())}") from None
    for key, value in given.items():
        _set(content, key, value, key)
    if given and "name" in content and "name" not in given:
        parts = [f"{key.rpartition('.')[2]}-{value}" for key, value in given.items()]
        plain = "-".join([str(content["name"]), *parts])
        content["name"] = "".join(c if c.isalnum() or c in "_.-" else "_" for c in plain)
    return content


def with_values(content: Mapping[str, Any], values: Mapping[str, Any], where: str) -> Any:
    """A config with the values of some key paths set, in order.

    Args:
        content: the config.
        values: by key path.
        where: the place that errors name.

    Raises:
        ConfigError: a path does not exist.
    """
    content = copy.deepcopy(dict(content))
    for key, value in values.items():
        _set(content, key, copy.deepcopy(value), f"{where}: {key}")
    return content


def _split(path: str | Path) -> tuple[Path, str]:
    file, _, variant = str(path).partition("#")
    return Path(file), variant


def _read(path: str | Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The content of a file or variant; `above` are the files that extend it."""
    file, variant = _split(path)
    content = _with_base(file, above)
    known = _variants(file, content.pop("variants", None))
    if not variant:
        return content
    changes = _changes(known, variant, file, ())
    if "name" in content:
        content["name"] = f"{content['name']}-{variant}"
    for key, value in changes.items():
        _set(content, key, value, f"{file}: variants.{variant}.{key}")
    return content


def _with_base(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A file's content, merged over that of the file that it extends."""
    if path.resolve() in above:
        raise ConfigError(f"{path}: extends: the file extends itself")
    content = _read_yaml(path)
    base = content.pop("extends", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise ConfigError(f"{path}: extends: found {base!r}; the path of a file is needed")
    paths = {key: content.pop(key) for key in list(content) if "." in str(key)}
    # The base's variants are not inherited.
    below = _read(directory_of(base) / base, (*above, path.resolve()))
    return with_values(_merged(below, content), paths, str(path))


def _variants(path: Path, found: Any) -> dict[str, dict[str, Any]]:
    """A file's changes by variant and key."""
    named = _mapping(found, f"{path}: variants")
    return {name: _mapping(value, f"{path}: variants.{name}") for name, value in named.items()}


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict | None):
        raise ConfigError(f"{place}: a mapping is needed, found {value!r}")
    return {str(key): part for key, part in (value or {}).items()}


def _changes(
    known: dict[str, dict[str, Any]], variant: str, path: Path, above: tuple[str, ...]
) -> dict[str, Any]:
    """A variant's changes by key; those of the variant that it extends come first."""
    place = f"{path}: variants.{above[-1]}.extends" if above else f"{path}"
    if variant not in known:
        names = ", ".join(known) or "none"
        raise ConfigError(f"{place}: no variant {variant!r}; there are: {names}")
    if variant in above:
        raise ConfigError(f"{place}: the variant extends itself")
    own = dict(known[variant])
    base = own.pop("extends", None)
    if base is None:
        return own
    changes = _changes(known, str(base), path, (*above, variant))
    # In order: a part's change comes after that of the whole. The base's name is not inherited.
    kept = {key: value for key, value in changes.items() if key not in own and key != "name"}
    return kept | own


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        # Another schedule, optimizer or backbone has other keys.
        if (
            isinstance(old, dict)
            and isinstance(value, dict)
            and all(value[kind] == old.get(kind) for kind in KINDS if kind in value)
        ):
            value = _merged(old, value)
        merged[key] = value
    return merged


def _set(content: Any, key: str, value: Any, place: str) -> None:
    """Sets the value at a key's path; `place` is for errors."""
    *parts, last = key.split(".")
    for i, part in enumerate(parts):
        if isinstance(content, list):
            content = _item(content, part, place)
            continue
        if not isinstance(content, dict) or isinstance(content.get(part), str):
            raise ConfigError(
                f"{place}: {'.'.join(parts[: i + 1])} holds no keys of its own here; "
                "give the whole value, or change the file that it names"
            )
        content = content.setdefault(part, {})
    if isinstance(content, list):
        content[content.index(_item(content, last, place))] = value
    elif isinstance(content, dict):
        content[last] = value
    else:
        raise ConfigError(f"{place}: found {content!r}, which has no keys")


def _item(items: list[Any], part: str, place: str) -> Any:
    for number, item in enumerate(items):
        if part in (str(number), item.get("name") if isinstance(item, dict) else None):
            return item
    names = [str(item.get("name", i)) for i, item in enumerate(items) if isinstance(item, dict)]
    raise ConfigError(f"{place}: no {part!r}; there are: {', '.join(names) or 'none'}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        loader.directory = path.parent
        content = loader.get_single_data()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a mapping is needed, found {type(content).__name__}")
    return _unshared(content)


def _unshared(content: Any) -> Any:
    """A copy without shared parts, which YAML anchors make, so that a change affects one place."""
    if isinstance(content, dict):
        return {key: _unshared(value) for key, value in content.items()}
    return [_unshared(item) for item in content] if isinstance(content, list) else content


# --- models -----------------------------------------------------------------------------------


def load(path: str | Path, model: type[Model], changes: Iterable[str] = ()) -> Model:
    """The config in a file, or in a variant of it.

    Args:
        path: `file.yaml` or `file.yaml#variant`.
        model: the class of the config.
        changes: `key.path=value`.

    Raises:
        ConfigError: it cannot be read, or is not a valid config of this class.
    """
    return validate(path, model, changed(read(path), changes))


def from_file(model: Callable[[], type[BaseModel]]) -> BeforeValidator:
    """Marks a key that holds a config, or the path of its file.

    Args:
        model: returns the class, which may be defined later in the module.
    """

    def load_if_path(value: Any) -> Any:
        return load(directory_of(value) / value, model()) if isinstance(value, str) else value

    return BeforeValidator(load_if_path)


def validate(path: str | Path, model: type[Model], content: dict[str, Any]) -> Model:
    """The validated config of a file's content; errors as for `load`."""
    try:
        return model.model_validate(content)
    except ValidationError as errors:
        lines = [line for error in errors.errors() for line in _lines(str(path), error, content)]
        raise ConfigError("\n".join(lines)) from None


def chosen(classes: Callable[[], Mapping[str, type[Model]]]) -> BeforeValidator:
    """Marks a mapping whose `name` selects its class.

    Args:
        classes: returns the classes by name, when a config is read.
    """

    def choose(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        known, name = classes(), value.get("name")
        if not isinstance(name, str) or name not in known:
            raise ValueError(f"name: found {name!r}; allowed: {', '.join(known)}")
        return known[name].model_validate(value)

    return BeforeValidator(choose)


def _lines(path: str, error: Any, content: Any) -> list[str]:
    if error["type"] == FOLLOWS:
        return []
    key, at = "", content
    loc, is_missing = error["loc"], error["type"] == "missing"
    for i, part in enumerate(loc):
        if isinstance(part, int):
            key += f"[{part}]"
        # pydantic adds the chosen kind or format to the path as if it were a key; it is left out.
        elif isinstance(at, dict) and part not in at and not (is_missing and i + 1 == len(loc)):
            continue
        else:
            key += f".{part}" if key else str(part)
        at = _at(at, part)
    place = f"{path}: {key}: " if key else f"{path}: "
    inner = (error.get("ctx") or {}).get("error")
    if isinstance(inner, ConfigError):
        return str(inner).splitlines()  # an error in a file that this one names
    if error["type"] == "value_error":
        return [place + error["msg"].removeprefix("Value error, ")]
    if error["type"] == "missing":
        return [f"{place}missing; it is required"]
    found = error["input"]
    shown = repr(found) if not isinstance(found, dict | list) else type(found).__name__
    if error["type"].startswith("union_tag"):
        tag = error["ctx"]["discriminator"].strip("'")
        shown = repr(found.get(tag)) if isinstance(found, dict) else shown
        allowed = error["ctx"].get("expected_tags") or "see the docs"
        return [f"{place[:-2]}.{tag}: found {shown}; allowed: {allowed}"]
    return [f"{place}found {shown}; {error['msg'][0].lower()}{error['msg'][1:]}"]


def _at(content: Any, part: str | int) -> Any:
    try:
        return content[part]
    except (KeyError, IndexError, TypeError):
        return None
