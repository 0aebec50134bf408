"""The config of a method that adds one constant field."""

from collections.abc import Mapping
from typing import Any, Literal

from tfctr.config.method import Method, register
from tfctr.schema import Schema


@register
class Toy(Method):
    """One more field, the same for all rows."""

    name: Literal["toy"]
    value: float = 1.0

    def import_models(self) -> None:
        import tests.frameworks.toy.student  # noqa: F401

    def wrap(self, model: Any, schema: Schema, stages: Mapping[str, Any]) -> Any:
        from tests.frameworks.toy.student import ToyStudent

        return ToyStudent(model, self.value)
