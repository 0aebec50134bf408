"""The interface between a run and a method: the method's config and its hooks.

A method is a folder of `tfctr.frameworks`. Its config is a `Method`, registered under its name. The
hooks return all that a run needs: the stages before the student's training, the student, and the
weights that it starts from. The run's own code names no method.
"""

import importlib
import pkgutil
import typing
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from tfctr.schema import Schema, Strict

MethodClass = TypeVar("MethodClass", bound="type[Method]")
_registry: dict[str, "type[Method]"] = {}


class Method(Strict):
    """One entry of `frameworks` in a run config.

    A subclass has `name: Literal["its name"]` and overrides the hooks that it needs; the others do
    nothing. A run calls its methods in the config's order: each one wraps the model of the methods
    before it.
    """

    name: str

    trains_backbone: ClassVar[bool] = False  # the plain one: the method must be the first
    can_continue: ClassVar[bool] = True  # its student can start from the model of an earlier run
    reads_log: ClassVar[bool] = False  # whether `latest` reads a later log
    by_days: ClassVar[bool] = False  # a rollout can use it: its student reads no side outputs

    @property
    def parts(self) -> Mapping[str, Any]:
        """The configs that it refers to, by key. Each has a `name`, which is its folder's, and may
        have `data`, which must be the run's."""
        return {}

    @property
    def is_served(self) -> bool:
        """Whether the student can be served: whether a server has all features that it reads."""
        return True

    @property
    def takes_rows(self) -> bool:
        """Whether a request needs raw features only; else it also needs e.g. a text's tokens."""
        return True

    @property
    def made_again(self) -> str:
        """What a rollout makes again every so many days, with its `data_stages`, in a word; "" if
        that is nothing."""
        return ""

    def check(self, run: Any) -> None:
        """Raises a `ValueError` if a `RunConfig` does not fit the method."""

    def check_rollout(self) -> None:
        """Raises a `ValueError` if a rollout cannot use it as it is configured."""

    def check_teacher(self) -> None:
        """Raises a `ValueError` if a student with it, as configured, knows training rows' labels
        when it is asked about them."""

    def import_models(self) -> None:
        """Imports the classes of its models, with a backbone that it registers. A run calls it
        before it sets a seed, because imports may draw from Python's random numbers. Files are
        loaded without it: see `tfctr.saving.defer`."""

    def stages(self, run: Any) -> Mapping[str, Any]:
        """The stages before the training of a `tfctr.stages.Run`'s student, by role."""
        return {}

    def side_outputs(self, stages: Mapping[str, Any]) -> Sequence[Any]:
        """The stages whose side outputs the student reads with the dataset."""
        return ()

    def wrap(self, model: Any, schema: Schema, stages: Mapping[str, Any]) -> Any:
        """The method's student: a `ClickModel` that wraps `model`; neither is built yet. `schema`
        is the dataset's."""
        return model

    def data_stages(self, stages: Mapping[str, Any]) -> Sequence[Any]:
        """The stages that `set_data` reads."""
        return ()

    def set_data(self, model: Any, stages: Mapping[str, Any]) -> None:
        """Sets the `ClickModel.data_variables` of `model`, which `wrap` returned and which is built
        now. Unlike `start`, it is also called for a student that starts from an earlier one."""

    def latest(self, run: Any, log: Any, adds: bool) -> Mapping[str, Any]:
        """The stages of data later than that of the training, for `set_data`, by role; none if the
        method has no such data. A refresh exports the student with it.

        Args:
            run: a `tfctr.stages.Run`.
            log: a `DataConfig` of later events, with `reads_log`; else None.
            adds: whether its events are added to those of the last refresh.
        """
        return {}

    def start(self, model: Any, stages: Mapping[str, Any]) -> None:
        """Copies the weights that the stages have learned to `model`, which is built now."""

    def trainee(self, model: Any, data: Any, stages: Mapping[str, Any]) -> Any:
        """The model to train: the student, or a model that contains it. The student is saved."""
        return model

    def served(self, model: Any) -> Any:
        """The model to export: the trained student, without what only training reads."""
        return model

    def index(self, run: Any, stages: Mapping[str, Any], k: int, search: str) -> Any:
        """The stage that exports an index of the next items; None if the method has none."""
        return None


def register(cls: MethodClass) -> MethodClass:
    """Registers a method, so that configs can use its name."""
    (name,) = typing.get_args(cls.__pydantic_fields__["name"].annotation)
    _registry[name] = cls
    return cls


def registered() -> Mapping[str, type[Method]]:
    """The methods by name, sorted."""
    frameworks = importlib.import_module("tfctr.frameworks")
    for folder in pkgutil.iter_modules(frameworks.__path__, f"{frameworks.__name__}."):
        importlib.import_module(f"{folder.name}.config")  # each registers its own
    return dict(sorted(_registry.items()))
