"""A transformer over a user's events with side information (SRP4CTR, arXiv:2407.19658)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from tfctr.layers.attending_block import AttendingBlock, AttentionMask, by_heads
from tfctr.layers.behaviour_sequence import Behaviours
from tfctr.layers.field_embedding import FieldEmbedding
from tfctr.layers.flat_dense import FlatDense
from tfctr.models.transfer import blocks
from tfctr.schema import MASK_ID, OOV_ID, Schema


class Encoded(NamedTuple):
    """The outputs of an encoder."""

    keys: list[Any]  # of each layer, [B, heads, L, d / heads]
    values: list[Any]  # of each layer, [B, heads, L, d / heads]
    last: Any  # [B, L, d], the output of the last layer


@keras.saving.register_keras_serializable("tfctr")
class SequenceEncoder(keras.layers.Layer):
    """Contextual vectors of events, `[B, L, d]`, by self-attention.

    An event's input is the normalised sum of a vector for each of its parts (a history's token) and
    one for its position. Position 0 is the next event, or the event to predict; the latest event of
    a history has position 1.

    Args:
        schema: the histories, and the item features that they share (`Behaviours`).
        dim: int. `d`.
        num_layers: int.
        num_heads: int. Must divide `d`.
        dropout: float.
    """

    built: bool

    def __init__(
        self,
        schema: Schema,
        dim: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.schema = schema
        self.dim = dim
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.dropout = dropout
        self.behaviours = Behaviours(schema)
        self.parts = self.behaviours.histories
        self.tokens = FieldEmbedding(schema.select(self.parts), dim, stddev=0.02, name="tokens")
        self.places = self.add_weight(
            (self.behaviours.max_length + 1, dim),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="places",
        )
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")
        self.drop = keras.layers.Dropout(dropout, name="drop")
        self.of_key = [FlatDense(dim, name=f"key_{i}") for i in range(num_layers)]
        self.of_value = [FlatDense(dim, name=f"value_{i}") for i in range(num_layers)]
        self.blocks = [
            AttendingBlock(num_heads, dropout, name=f"block_{i}") for i in range(num_layers)
        ]

    def build(self, input_shape: Any = None) -> None:
        if self.built:
            return
        self.built = True
        self.tokens.build()
        shape = (None, None, self.dim)
        for layer in (self.norm, *self.of_key, *self.of_value, *self.blocks):
            layer.build(shape)

    def as_own(self, other: "SequenceEncoder") -> list[np.ndarray]:
        """The weights of another encoder of this make, in the order of `weights`. Its vocabularies
        may be shorter: a token that it does not know has the vector of unknown ones.

        Raises:
            ValueError: it has other arguments.
        """
        found = [np.array(values) for values in other.get_weights()]
        own, theirs = blocks(self.tokens), blocks(other.tokens)
        shrunk = any(theirs[name][1] > size for name, (_, size) in own.items() if name in theirs)
        if [*own] != [*theirs] or self.parts != other.parts or shrunk:
            raise ValueError("`encoder` should be of the student's encoder's make")
        place = [id(weight) for weight in self.weights].index(id(self.tokens.table))
        rows: list[np.ndarray] = []
        for (_, size), (start, had) in zip(own.values(), theirs.values(), strict=True):
            rows.append(found[place][start : start + had])
            rows.append(np.repeat(found[place][[start + OOV_ID]], size - had, axis=0))
        found[place] = np.concatenate(rows)
        if [values.shape for values in found] != [tuple(weight.shape) for weight in self.weights]:
            raise ValueError("`encoder` should be of the student's encoder's make")
        return found

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The parts that describe an event's item, and those that describe its outcome."""
        about = tuple(self.behaviours.of_item)
        return {"item": about, "behaviour": tuple(p for p in self.parts if p not in about)}

    def embed(self, ids: Mapping[str, Any], first_place: int, training: bool = False) -> Any:
        """Events `[B, L, d]` from each part's ids `[B, L]`, the latest first."""
        length = ids[self.parts[0]].shape[1]
        x = self._sum(ids) + self.places[first_place : first_place + length]
        return self.drop(self.norm(x), training=training)

    def candidates(self, items: Mapping[str, Any]) -> Any:
        """Candidates `[B, N, d]` as the next event, from item features `[B, N]`."""
        about = self.behaviours.of_item
        hidden = ops.zeros_like(items[next(iter(about.values()))]) + MASK_ID
        ids = {part: items[about[part]] if part in about else hidden for part in self.parts}
        return self.norm(self._sum(ids) + self.places[0])

    def _sum(self, ids: Mapping[str, Any]) -> Any:
        """`[B, L, d]` from each part's ids `[B, L]`."""
        return ops.sum(self.tokens.each(ids, names=self.parts), axis=2)

    def call(self, x: Any, attention_mask: AttentionMask, training: bool = False) -> Encoded:
        """Encodes embedded events `[B, L, d]`; the mask tells which of them exist."""
        shape, x = (-1, x.shape[1]), ops.reshape(x, (-1, self.dim))
        keys, values = [], []
        for of_key, of_value, block in zip(self.of_key, self.of_value, self.blocks, strict=True):
            layers = (block.query, of_key, of_value)
            query, key, value = by_heads(x, shape, self.num_heads, layers)
            keys.append(key)
            values.append(value)
            x = block(x, query, key, value, attention_mask, training=training)
        return Encoded(keys, values, ops.reshape(x, (*shape, self.dim)))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "schema": self.schema.model_dump(mode="json"),
            "dim": self.dim,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SequenceEncoder":
        return cls(**config | {"schema": Schema.model_validate(config["schema"])})
