"""Students: models that wrap a backbone or another student."""

import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import keras

from tfctr.models.click_model import ClickModel
from tfctr.schema import Schema


class Student(ClickModel):
    """A `ClickModel` that wraps another one and delegates the steps that it does not override.

    It may add fields (`add_fields`) or extend the representation. It must not change the wrapped
    model, so that students stack: each is the backbone of the next.

    Args:
        backbone: a `ClickModel` that is not built yet.
        schema: the features that the student reads, if they are more than the backbone's.

    Raises:
        ValueError: the backbone reads side outputs, which a server does not have.
    """

    own_tensors: ClassVar[Collection[str]] = ()  # what it adds to `encode_user`

    def __init__(self, backbone: ClickModel, schema: Schema | None = None, **kwargs: Any) -> None:
        super().__init__(schema or backbone.schema, **kwargs)
        if backbone.reads_side_outputs:
            raise ValueError(
                f"backbone: {backbone.name} reads side outputs, which a server does not have; no "
                "method can wrap it"
            )
        self.backbone = backbone
        self.embeds_fields_apart = backbone.embeds_fields_apart
        self.folds = backbone.folds

    def build(self, input_shape: Any = None) -> None:
        if not self.built:
            self.build_parts()
            super().build(input_shape)
            inner = self.backbone
            while True:  # only their steps were called, never the models themselves
                inner.built = True
                if not isinstance(inner, Student):
                    break
                inner = inner.backbone

    def build_parts(self) -> None:
        """Builds those of its models whose steps are called, but never the models themselves."""
        if isinstance(self.backbone, Student):
            self.backbone.build_parts()

    def innermost(self) -> ClickModel:
        return self.backbone.innermost()

    @property
    def of_requests(self) -> tuple[Any, ...]:
        return self.backbone.of_requests

    @property
    def head(self) -> Any:
        return self.backbone.head

    @property
    def field_dim(self) -> int:
        return self.backbone.field_dim

    @property
    def field_names(self) -> tuple[str, ...]:
        return self.backbone.field_names

    @property
    def encoder_variables(self) -> list[Any]:
        return self.backbone.encoder_variables

    @property
    def data_variables(self) -> list[Any]:
        return self.backbone.data_variables

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*super().reads, *self.backbone.reads)))

    @property
    def may_read(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*super().may_read, *self.backbone.may_read)))

    @property
    def reads_of_item(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*super().reads_of_item, *self.backbone.reads_of_item)))

    def embed(
        self,
        features: Mapping[str, Any],
        names: Sequence[str] | None = None,
        training: bool = False,
    ) -> Any:
        """The backbone's fields, then `own_fields`; with `names`, only the backbone's of these."""
        fields = self.backbone.embed(features, names=names, training=training)
        own = None if names is not None else self.own_fields(features, training)
        return fields if own is None else self.add_fields(fields, own)

    def own_fields(self, features: Mapping[str, Any], training: bool) -> Any:
        """The fields `[B, n, field_dim]` that it adds to those of rows; None: none."""
        return None

    def add_fields(self, embeddings: Any, fields: Any) -> Any:
        return self.backbone.add_fields(embeddings, fields)

    def encode_user(self, features: Mapping[str, Any]) -> dict[str, Any]:
        return self.backbone.encode_user(readable(self.backbone, features))

    def embed_candidates(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        of_backbone = {n: tensor for n, tensor in user.items() if n not in self.own_tensors}
        return self.backbone.embed_candidates(of_backbone, readable(self.backbone, items))

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        return self.backbone.represent(embeddings, training=training)

    def predict_logits(self, representation: Any) -> Any:
        return self.backbone.predict_logits(representation)

    def _empty_row(self) -> dict[str, Any]:
        return self.backbone._empty_row() | super()._empty_row()

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"name": self.name}
        for name in inspect.signature(type(self)).parameters:
            if name == "kwargs":
                continue
            value = getattr(self, name)
            if isinstance(value, Schema):
                value = value.model_dump(mode="json")
            elif isinstance(value, keras.layers.Layer):
                value = keras.saving.serialize_keras_object(value)
            config[name] = list(value) if isinstance(value, tuple) else value
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Student":
        made: dict[str, Any] = {}
        for name, value in config.items():
            if name == "schema":
                made[name] = Schema.model_validate(value)
            elif isinstance(value, dict) and "class_name" in value:
                made[name] = keras.saving.deserialize_keras_object(value)
        return cls(**config | made)


def refuse_names(features: Iterable[str], outputs: Collection[str]) -> None:
    """Checks that no feature has the name of a tensor of `encode_user`.

    Raises:
        ValueError: one has.
    """
    taken = [name for name in features if name in outputs]
    if taken:
        raise ValueError(
            f"schema: found a feature {taken[0]!r}; an output of `encode_user` has this name, so "
            "rename the feature"
        )


def readable(model: ClickModel, features: Mapping[str, Any]) -> dict[str, Any]:
    """The features that a model may read."""
    return {name: value for name, value in features.items() if name in model.may_read}
