"""The base class of all models here: a Keras model that reads the features of a schema."""

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfctr.optimizers import catch_up
from tfctr.schema import Numeric, Schema


class SchemaModel(keras.Model):
    """Called on `{feature: values}`: ids int `[B]` or `[B, M]`, floats `[B]`.

    Args:
        schema: a fitted `tfctr.schema.Schema`; its model inputs are the `F` fields, in order.
    """

    built: bool

    def __init__(self, schema: Schema, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.schema = schema

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the features that a call needs."""
        return tuple(feature.name for feature in self.schema.inputs)

    @property
    def data_variables(self) -> list[Any]:
        """The variables that hold data, such as tables by id, and nothing that is learned here. A
        model that starts from this one has its own."""
        return []

    def build(self, input_shape: Any = None) -> None:
        """Creates all weights by a call on a row of missing values."""
        if not self.built:
            self.built = True  # before the call, which would build again
            self(self._empty_row())

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """Keras' table of the layers; their weights are created for it if they are not yet."""
        self.build()
        super().summary(*args, **kwargs)

    def count_params(self) -> int:
        """The number of weights, also before the first call."""
        self.build()
        return int(super().count_params())

    def train_step(self, data: Any) -> Any:
        return self._reducible(super().train_step(data))

    def test_step(self, data: Any) -> Any:
        return self._reducible(super().test_step(data))

    def _reducible(self, logs: Any) -> Any:
        # Keras averages several workers' logs over an axis that its scalars do not have.
        resolver = self.distribute_strategy.cluster_resolver
        several = resolver is not None and resolver.cluster_spec().as_dict()
        return {name: ops.expand_dims(v, 0) for name, v in logs.items()} if several else logs

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Under a `tf.distribute` strategy Keras averages the replicas' first batches to see the
        # shape of a batch. The mean of ids is not an id, and these batches would not be trained.
        if self._distribute_strategy is not None:
            label = np.zeros(1, "float32")
            super()._maybe_symbolic_build(data_batch=(self._empty_row(), label))

    def _empty_row(self) -> dict[str, np.ndarray]:
        return {f.name: np.zeros(_row_shape(f), _row_dtype(f)) for f in self.schema.inputs}

    def build_from_config(self, config: dict[str, Any]) -> None:
        self.build()

    def get_compile_config(self) -> dict[str, Any] | None:
        # An optimizer for each variable cannot be saved: such a model is loaded uncompiled.
        if isinstance(getattr(self, "optimizer", None), keras.optimizers.MultiOptimizer):
            return None
        return super().get_compile_config()

    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras does not compile a loaded model that overrides `compile`.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, tf.data.Dataset):
            kwargs.setdefault("shuffle", False)  # Keras would warn that it does not shuffle it
        if self._distribute_strategy is None and getattr(self, "optimizer", None) is not None:
            # Keras would create the variables in the first traced step, where each takes some 20
            # milliseconds.
            self.build()
            if not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)
        return super().fit(x, *args, **kwargs)

    # Rows that no recent batch touched lack the L2 of the steps since then. A lazy optimizer
    # applies it before the weights are read.

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        self._catch_up()
        return super().evaluate(*args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        self._catch_up()
        if _is_empty(x):  # Keras fails where there are no batches
            # Outside of a graph it also fails to add [0, D] to [0, D].
            outputs = self(self._empty_row(), training=False)
            return keras.tree.map_structure(lambda one: ops.convert_to_numpy(one)[:0], outputs)
        return super().predict(x, *args, **kwargs)

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
        # Keras would set it before the layers exist.
        config.pop("trainable", None)
        for name in inspect.signature(type(self)).parameters:
            if name != "kwargs":
                config[name] = getattr(self, name)
        return config | {"schema": self.schema.model_dump(mode="json")}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "SchemaModel":
        return cls(**config | {"schema": Schema.model_validate(config["schema"])})


def _is_empty(x: Any) -> bool:
    """Whether there are no rows in `{feature: values}`, or no batches in a `tf.data.Dataset`."""
    if isinstance(x, Mapping):
        return bool(x) and len(next(iter(x.values()))) == 0
    return isinstance(x, tf.data.Dataset) and int(x.cardinality()) == 0


def _row_shape(feature: Any) -> tuple[int, ...]:
    return (1, feature.max_length) if feature.is_list else (1,)


def _row_dtype(feature: Any) -> str:
    return "float32" if isinstance(feature, Numeric) else "int64"
