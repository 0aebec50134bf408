"""The search space, checked before anything is prepared."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tfctr.config import (
    ConfigError,
    RunConfig,
    digest,
    load,
    read,
    validate,
    with_values,
)
from tfctr.stages.student import check_student, stand_in
from tfctr.tuning.config import TuneConfig

IN_MODELS = ("model.", "frameworks.")


@dataclass(frozen=True)
class Space:
    """A search, and the run that it starts from.

    Attributes:
        path: of the search's file.
        config: the search.
        content: of the run's file.
        base: the run.
    """

    path: str
    config: TuneConfig
    content: dict[str, Any]
    base: RunConfig

    def changes(self, values: dict[str, Any], seed: int, name: str) -> dict[str, Any]:
        """The changes of a trial's run to the base, by key.

        If a mapping and a key inside it are both searched, the mapping comes first.
        """
        return {"name": name, **dict(sorted(values.items())), "training.seed": seed}

    def run(self, values: dict[str, Any], seed: int, name: str) -> RunConfig:
        """The run of a trial.

        Raises:
            ConfigError: a value is refused.
        """
        where = f"{self.path}: space"
        changes = self.changes(values, seed, name)
        return validate(where, RunConfig, with_values(self.content, changes, where))

    @cached_property
    def own_values(self) -> dict[str, Any]:
        """The run config's or default value of each searched key; None if there is none."""
        base = self.base
        backbone = base.model.create(stand_in(base.data)).get_config()
        content = {
            "model": backbone | base.model.model_dump(),
            "training": base.training.model_dump(),
            "frameworks": {method.name: method.model_dump() for method in base.frameworks},
        }
        values = {}
        for key in self.config.space:
            found: Any = content
            for part in key.split("."):
                found = found.get(part) if isinstance(found, dict) else None
            values[key] = json.loads(json.dumps(found, default=str))
        return values

    @property
    def own_parameters(self) -> dict[str, Any]:
        """The same as optuna's parameters, without values that it cannot hold."""
        space, own = self.config.space, self.own_values
        found = {key: searched.as_parameter(own[key]) for key, searched in space.items()}
        return {key: value for key, value in found.items() if value is not None}

    def covering(self) -> Iterator[dict[str, Any]]:
        """Values that cover each key's choices, or both its ends, with the others at their first.

        All of them can occur in a trial. Errors of other combinations make a trial fail.
        """
        first = {key: searched.extremes[0] for key, searched in self.config.space.items()}
        yield first
        for key, searched in self.config.space.items():
            for value in searched.extremes[1:]:
                yield first | {key: value}


def load_tune(path: str | Path) -> Space:
    """The search of a file, `file.yaml` or `file.yaml#variant`.

    Raises:
        ConfigError: also if the run config or a model refuses a value of the space.
    """
    config = load(path, TuneConfig)
    content = read(config.run)
    base = validate(config.run, RunConfig, content)
    space = Space(str(path), config, content, base)
    for end in ("tune", "best"):  # folders of the search
        validate(config.run, RunConfig, content | {"name": f"{base.name}-{end}"})
    if base.training.strategy == "multi_worker":
        raise ConfigError(
            f"{config.run}: training.strategy: found 'multi_worker'; a search runs on one machine: "
            "one_device or mirrored"
        )
    check_student(base, f"{config.run}: model: ")
    tried = set()
    for values in space.covering():
        run = space.run(values, config.seeds[0], base.name)
        if run.training.refit:
            raise ConfigError(
                f"{config.run}: training.refit: found true; trials are compared by validation "
                "rows, so refit the best run after the search"
            )
        key = digest(run.model_dump(mode="json", include={"model", "frameworks"}))
        if key in tried:
            continue
        tried.add(key)
        of_models = {key: v for key, v in values.items() if key.startswith(IN_MODELS)}
        check_student(run, f"{path}: space: found {shown(of_models)}; ")
    return space


def shown(values: dict[str, Any]) -> str:
    """Values in one line."""
    return ", ".join(f"{key} {_text(value)}" for key, value in values.items())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
