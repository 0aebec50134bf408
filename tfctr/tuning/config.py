"""The config of a search."""

import json
import math
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, JsonValue, PlainValidator, model_validator

from tfctr.config.base import directory_of
from tfctr.schema import Strict

if TYPE_CHECKING:
    import optuna


def _number(value: Any) -> int | float:
    if isinstance(value, str):  # YAML reads 1e-4 as text
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"found {value!r}; a number is needed")
    return value


Number = Annotated[int | float, PlainValidator(_number)]


class Searched(Strict):
    """The values of a key: one of `choices`, or a number from `low` to `high`, both included.

    Numbers are integers if `low` and `high` are.
    """

    low: Number | None = None
    high: Number | None = None
    step: Number | None = None
    log: bool = False  # log-uniform: 0.1 to 1 is as likely as 1 to 10
    choices: tuple[JsonValue, ...] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _one_of_two(self) -> "Searched":
        if self.choices is not None:
            others = sorted(self.model_fields_set - {"choices"})
            if others:
                raise ValueError(f"choices exclude other keys, found {', '.join(others)}")
            if len(set(self._texts)) < len(self.choices):
                raise ValueError(f"choices must differ, found {list(self.choices)}")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give choices, or low and high")
        if self.low >= self.high:
            raise ValueError(f"low must be below high, found {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 where log is true, found {self.low}")
        if self.step is not None:
            if self.log:
                raise ValueError("step and log exclude each other")
            if self.step <= 0 or (self.is_integer and not isinstance(self.step, int)):
                kind = "whole number" if self.is_integer else "number"
                raise ValueError(f"step must be a {kind} above 0, found {self.step}")
            steps = (self.high - self.low) / self.step
            if not math.isclose(steps, round(steps)):
                raise ValueError(
                    f"high must be a number of steps above low, found {self.low} and {self.high} "
                    f"with step {self.step}"
                )
        return self

    @property
    def is_integer(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def extremes(self) -> tuple[Any, ...]:
        """All choices, or both ends."""
        return (self.low, self.high) if self.choices is None else self.choices

    @property
    def _texts(self) -> list[str]:
        """The choices as text, because optuna takes no lists, and treats 1 and True as equal."""
        return [json.dumps(choice) for choice in self.choices or ()]

    def as_parameter(self, value: Any) -> Any:
        """A value as optuna's parameter, maybe out of range; None if optuna cannot hold it."""
        if self.choices is not None:
            return text if (text := json.dumps(value)) in self._texts else None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return value if is_number and (value > 0 or not self.log) else None

    def suggest(self, trial: "optuna.Trial", key: str) -> Any:
        """A trial's proposal for a key, as a value of a run config."""
        if self.choices is not None:
            return json.loads(trial.suggest_categorical(key, self._texts))
        assert self.low is not None
        assert self.high is not None
        if self.is_integer:
            step = int(self.step or 1)
            return trial.suggest_int(key, int(self.low), int(self.high), step=step, log=self.log)
        value = trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log)
        return value if self.step is None else float(f"{value:.12g}")  # 0.1 + 2 * 0.1 is not 0.3


def _from_here(value: Any) -> Any:
    return str(directory_of(value) / value) if isinstance(value, str) else value


class TuneConfig(Strict):
    """A search: `tfctr tune FILE`."""

    run: Annotated[str, BeforeValidator(_from_here)]  # `file.yaml` or `file.yaml#variant`
    trials: int = Field(20, ge=1)  # trial 0 has the run's own values
    seeds: tuple[int, ...] = Field((1,), min_length=1)  # a trial's result is the mean over them
    space: dict[str, Searched] = Field(min_length=1)  # by key, e.g. training.optimizer.name

    @model_validator(mode="after")
    def _seeds_and_keys(self) -> "TuneConfig":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, found {list(self.seeds)}")
        for key in self.space:
            if key == "training.chosen_by":
                raise ValueError(
                    f"space.{key}: trials are compared by this measure, so it is not searched"
                )
            if key == "training.seed":
                raise ValueError(f"space.{key}: the key 'seeds' gives the seeds of a trial")
            if not re.fullmatch(r"(model|training|frameworks)(\.\w+)+", key):
                raise ValueError(
                    f"space: found key {key!r}; allowed: keys of a run's model, training and "
                    "frameworks, e.g. model.embedding_dim, frameworks.NAME.key"
                )
        return self
