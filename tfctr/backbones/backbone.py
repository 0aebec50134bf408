"""What a CTR model answers, so that any method can be put around any of them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import keras
import numpy as np
from keras import ops

from tfctr.layers.field_embedding import FieldEmbedding
from tfctr.losses import LogLoss
from tfctr.optimizers import catch_up
from tfctr.schema import Numeric, Schema

BackboneClass = TypeVar("BackboneClass", bound="type[Backbone]")
_registry: dict[str, "type[Backbone]"] = {}


def register(name: str) -> Callable[[BackboneClass], BackboneClass]:
    """Makes a backbone known to configs under `name`, and to Keras when it loads a file."""

    def add(cls: BackboneClass) -> BackboneClass:
        _registry[name] = cls
        return keras.saving.register_keras_serializable("tfctr")(cls)

    return add


def registered() -> tuple[str, ...]:
    """The names that configs may use."""
    return tuple(sorted(_registry))


def create(name: str, schema: Schema, **arguments: Any) -> "Backbone":
    """The backbone registered under `name`.

    Raises:
        ValueError: no such backbone, or it has no such argument; the text lists those there are.
    """
    if name not in _registry:
        raise ValueError(f"backbone: found {name!r}; allowed: {', '.join(registered())}")
    known = [p for p in inspect.signature(_registry[name]).parameters if p != "schema"]
    for argument in arguments:
        if argument not in known or argument == "kwargs":
            allowed = ", ".join(p for p in known if p != "kwargs")
            raise ValueError(f"{name}: unknown key {argument!r}; allowed: {allowed}")
    return _registry[name](schema, **arguments)


class Backbone(keras.Model):
    """A CTR model in three steps: `embed`, `represent`, `predict_logits`.

    A subclass makes its layers and implements `represent`. Methods that work with any backbone
    use the three steps only: they may feed `represent` further fields of width `field_dim`.

    Called on `{feature: values}` (ids int `[B]` or `[B, M]`, floats `[B]`) it gives logits `[B]`.
    `compile` needs only an optimizer: the loss is log loss unless another is given.

    Args:
        schema: a fitted `tfctr.schema.Schema`; its model inputs are the `F` fields, in order.
        embedding_dim: int. Width of each field's vector. Defaults to 16.
    """

    built: bool
    embeds_fields_apart: ClassVar[bool] = True  # else `embed` needs all features together

    def __init__(self, schema: Schema, embedding_dim: int = 16, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.schema = schema
        self.embedding_dim = embedding_dim
        self.fields = FieldEmbedding(schema, self.field_dim, name="fields")
        self.head = keras.layers.Dense(1, dtype="float32", name="head")

    @property
    def field_dim(self) -> int:
        """`D`: the width of a field in `embed` and `represent`."""
        return self.embedding_dim

    def embed(self, features: Mapping[str, Any], names: Sequence[str] | None = None) -> Any:
        """Vectors `[B, F, D]` of the fields in the schema's order; of `names` only, if given."""
        return self.fields(features, names=names)

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        """What is known of a row before the last layer: `[B, F, D] -> [B, q]`."""
        raise NotImplementedError

    def predict_logits(self, representation: Any) -> Any:
        """Logits `[B]` from `[B, q]`. (`predict` is what Keras calls batch inference.)"""
        return ops.squeeze(self.head(representation), axis=-1)

    def call(self, features: Mapping[str, Any], training: bool = False) -> Any:
        representation = self.represent(self.embed(features), training=training)
        return self.predict_logits(representation)

    def build(self, input_shape: Any = None) -> None:
        """Makes all weights by one pass over a row without values."""
        if not self.built:
            self.built = True  # before the call, which would build again
            self(self._empty_row())

    def train_step(self, data: Any) -> Any:
        return self._reducible(super().train_step(data))

    def test_step(self, data: Any) -> Any:
        return self._reducible(super().test_step(data))

    def _reducible(self, logs: Any) -> Any:
        # Keras takes the mean of several workers' logs over an axis that its scalars do not have.
        resolver = self.distribute_strategy.cluster_resolver
        several = resolver is not None and resolver.cluster_spec().as_dict()
        return {name: ops.expand_dims(v, 0) for name, v in logs.items()} if several else logs

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Under a `tf.distribute` strategy Keras takes the mean of the replicas' first batches to
        # see what a batch looks like. The mean of ids is no id, and the batches would be lost.
        if self._distribute_strategy is not None:
            label = np.zeros(1, "float32")
            super()._maybe_symbolic_build(data_batch=(self._empty_row(), label))

    def _empty_row(self) -> dict[str, np.ndarray]:
        return {f.name: np.zeros(_row_shape(f), _row_dtype(f)) for f in self.schema.inputs}

    def build_from_config(self, config: dict[str, Any]) -> None:
        self.build()

    def compile(self, optimizer: Any = "adam", loss: Any = None, **kwargs: Any) -> None:
        super().compile(optimizer=optimizer, loss=LogLoss() if loss is None else loss, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras leaves a model with its own `compile` uncompiled when it loads a file.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    # A lazy optimizer owes L2 to the rows that no recent batch touched. Before anyone looks at
    # the weights, it pays.

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        self._catch_up()
        return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        self._catch_up()
        return super().predict(*args, **kwargs)

    def save(self, *args: Any, **kwargs: Any) -> None:
        self._catch_up()
        super().save(*args, **kwargs)

    def save_weights(self, *args: Any, **kwargs: Any) -> None:
        self._catch_up()
        super().save_weights(*args, **kwargs)

    def _catch_up(self) -> None:
        if getattr(self, "optimizer", None) is not None:
            catch_up(self.optimizer, self.trainable_variables)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("dtype", None)  # a lower precision is for training
        for name in inspect.signature(type(self)).parameters:
            if name != "kwargs":
                config[name] = getattr(self, name)
        return config | {"schema": self.schema.model_dump(mode="json")}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Backbone":
        return cls(**config | {"schema": Schema.model_validate(config["schema"])})


def _row_shape(feature: Any) -> tuple[int, ...]:
    return (1, feature.max_length) if feature.is_list else (1,)


def _row_dtype(feature: Any) -> str:
    return "float32" if isinstance(feature, Numeric) else "int64"
