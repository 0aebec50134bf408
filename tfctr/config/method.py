"""What a run knows of a method: the method's config, and what the run asks it for.

A method is a folder of `tfctr.frameworks`. Its config is a `Method`, registered under its name. It
says all that a run must know: which stages come before the student's training, what the student
is, and which weights it starts from. The run's own code names no method.
"""

import importlib
import typing
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from tfctr.schema import Schema, Strict

MethodClass = TypeVar("MethodClass", bound="type[Method]")
_registry: dict[str, "type[Method]"] = {}


class Method(Strict):
    """One entry of `frameworks` in a run config.

    A subclass has `name: Literal["its name"]`, and overrides what the method does; everything else
    does nothing. A run asks its methods in the config's order: each one wraps the model that the
    ones before it have made.
    """

    name: str

    is_of_backbone: ClassVar[bool] = False  # trains the plain backbone: it must be the first method
    goes_on: ClassVar[bool] = True  # its student can start from the model of an earlier run

    @property
    def parts(self) -> Mapping[str, Any]:
        """The configs that it names, by key. Each has a `name`, that of its folder, and may have
        `data`, which must be the run's."""
        return {}

    @property
    def is_served(self) -> bool:
        """Whether the student can be served: a server has all features that it reads."""
        return True

    @property
    def takes_rows(self) -> bool:
        """Whether raw features are enough in a request; else it must hold more, e.g. a text's
        tokens."""
        return True

    def check(self, run: Any) -> None:
        """Raises a `ValueError` where a `RunConfig` does not fit."""

    def import_models(self) -> None:
        """Imports all that its models are made of: so that Keras knows the classes in a file, and
        before a seed is set, for to import a library may draw from Python's random numbers."""

    def stages(self, run: Any) -> Mapping[str, Any]:
        """The stages before the training of a `tfctr.stages.Run`'s student, by role."""
        return {}

    def side_outputs(self, stages: Mapping[str, Any]) -> Sequence[Any]:
        """Those of the stages whose side outputs the student reads with the dataset."""
        return ()

    def wrap(self, model: Any, schema: Schema, stages: Mapping[str, Any]) -> Any:
        """The method's student: a `ClickModel` around `model`; neither is built yet. `schema` is
        the dataset's."""
        return model

    def start(self, model: Any, stages: Mapping[str, Any]) -> None:
        """Gives `model`, which `wrap` returned and which is built now, the weights that the stages
        have learned."""

    def trainee(self, model: Any, data: Any, stages: Mapping[str, Any]) -> Any:
        """The model that is trained: the student, or one that holds it. The student is kept."""
        return model

    def index(self, run: Any, stages: Mapping[str, Any], k: int, search: str) -> Any:
        """The stage that exports an index of the items that may come next; None for none."""
        return None


def register(cls: MethodClass) -> MethodClass:
    """Makes a method known to configs under its name."""
    (name,) = typing.get_args(cls.__pydantic_fields__["name"].annotation)
    _registry[name] = cls
    return cls


def registered() -> Mapping[str, type[Method]]:
    """The methods by name, ascending."""
    importlib.import_module("tfctr.frameworks")  # each of its folders registers one
    return dict(sorted(_registry.items()))
