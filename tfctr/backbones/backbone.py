"""The base class of CTR models, with an interface that any method can wrap."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import keras
from keras import ops

from tfctr.layers.field_embedding import FieldEmbedding
from tfctr.models.click_model import ClickModel
from tfctr.schema import Schema

BackboneClass = TypeVar("BackboneClass", bound="type[Backbone]")
_registry: dict[str, "type[Backbone]"] = {}


def register(name: str) -> Callable[[BackboneClass], BackboneClass]:
    """Registers a backbone for configs under `name`, and for Keras when it loads a file."""

    def add(cls: BackboneClass) -> BackboneClass:
        _registry[name] = cls
        cls.registered_name = name
        return keras.saving.register_keras_serializable("tfctr")(cls)

    return add


def registered() -> tuple[str, ...]:
    """The names that configs may use."""
    return tuple(sorted(_registry))


def registered_class(name: str) -> "type[Backbone]":
    """The class of a name.

    Raises:
        ValueError: no such backbone; the message lists all.
    """
    if name not in _registry:
        raise ValueError(f"backbone: found {name!r}; allowed: {', '.join(registered())}")
    return _registry[name]


def create(name: str, schema: Schema, **arguments: Any) -> "Backbone":
    """The backbone registered under `name`.

    Raises:
        ValueError: no such backbone, or it has no such argument; the message lists all.
    """
    cls = registered_class(name)
    known = [p for p in inspect.signature(cls).parameters if p != "schema"]
    for argument in arguments:
        if argument not in known or argument == "kwargs":
            allowed = ", ".join(p for p in known if p != "kwargs")
            raise ValueError(f"{name}: unknown key {argument!r}; allowed: {allowed}")
    return cls(schema, **arguments)


class Backbone(ClickModel):
    """A CTR model that methods can wrap.

    A subclass creates its layers and implements `represent`. Methods use only the three steps; they
    may pass additional fields of width `field_dim` to `represent`.

    Args:
        schema: a fitted `tfctr.schema.Schema`; its model inputs are the `F` fields, in order.
        embedding_dim: int. Width of each field's vector. Defaults to 16.
    """

    registered_name: ClassVar[str | None] = None

    def __init__(self, schema: Schema, embedding_dim: int = 16, **kwargs: Any) -> None:
        super().__init__(schema, **{"name": self.registered_name} | kwargs)
        self.embedding_dim = embedding_dim
        self.fields = FieldEmbedding(schema, self.field_dim, name="fields")
        self.head = keras.layers.Dense(1, dtype="float32", name="head")

    @property
    def field_dim(self) -> int:
        """`D`: the width of a field in `embed` and `represent`."""
        return self.embedding_dim

    def embed(
        self,
        features: Mapping[str, Any],
        names: Sequence[str] | None = None,
        training: bool = False,
    ) -> Any:
        return self.fields(features, names=names)

    def predict_logits(self, representation: Any) -> Any:
        return ops.squeeze(self.head(representation), axis=-1)
