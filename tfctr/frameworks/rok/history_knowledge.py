"""Predicts what a search would find from a user's history and a candidate."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfctr.layers.field_embedding import FieldEmbedding
from tfctr.layers.mlp import MLP
from tfctr.models.schema_model import SchemaModel
from tfctr.schema import FIRST_TOKEN_ID, PAD_ID, Schema

OF_USER = ("history_layer", "history_sums")  # the knowledge base's part of `encode_user`
PRIOR = 2.5  # events that a mean over the history is shrunk by, to 0


@keras.saving.register_keras_serializable("tfctr")
class HistoryKnowledge(SchemaModel):
    """A knowledge base that reads the user's events and the candidate.

    An event has the vector `q` of its item, and a learned weight for each of `C` sums, by its
    grade. A sum is `u_c = Σ w_c q / sqrt(1 + n)`, over `n` events; in half of the sums events fade
    by their age. The candidate has a vector `p_c` for each, a linear function of its features'
    vectors. A tower reads `p_c ⊙ u_c`, the features of both sides, the sums, their mean weights and
    the number of events. So a sum over events of similarities to the candidate, each times a
    deviation, is one product of what is known of a user and what is known of an item.

    `encode_user` computes the user's part once per request, the first layer's included;
    `of_candidates` does the rest. The cost of a candidate does not depend on the history's length.

    Args:
        schema: the features of both sides, and the two histories.
        items, grades: names of the histories.
        size: int. Numbers of a hint.
        embedding_dim: int. Width of the features' vectors.
        state_dim: int. `W`, the width of an event's vector.
        sums: int, even. `C`.
        fading: float. Events after which one weighs `1 / e`, where events fade.
        hidden_units: widths of the tower, at least one.
        dropout: float. In the tower.

    A call returns `[B, size]`, each number standardised over the training rows.
    """

    def __init__(
        self,
        schema: Schema,
        items: str,
        grades: str,
        size: int,
        embedding_dim: int,
        state_dim: int,
        sums: int,
        fading: float,
        hidden_units: Sequence[int],
        dropout: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, **kwargs)
        self.items = items
        self.grades = grades
        self.size = size
        self.embedding_dim = embedding_dim
        self.state_dim = state_dim
        self.sums = sums
        self.fading = fading
        self.hidden_units = tuple(hidden_units)
        self.dropout = dropout
        plain = [f.name for f in schema.inputs if f.name not in (items, grades)]
        self.of_item = [f.name for f in schema.side("item")]
        self.of_user = [name for name in plain if name not in self.of_item]
        self.fields = FieldEmbedding(schema.select(plain), embedding_dim, name="fields")
        # A product of two vectors that are nearly 0 would have no gradient to speak of.
        events = schema.select([items])
        self.events = FieldEmbedding(events, state_dim, stddev=0.05, name="events")
        self.weights_of_grades = FieldEmbedding(
            schema.select([grades]), sums, stddev=1.0, name="weights_of_grades"
        )
        self.to_vectors = keras.layers.Dense(sums * state_dim, use_bias=False, name="to_vectors")
        first = self.hidden_units[0]
        self.user_layer = keras.layers.Dense(first, name="user_layer")
        self.item_layer = keras.layers.Dense(first, use_bias=False, name="item_layer")
        self.drop = keras.layers.Dropout(dropout, name="drop")
        self.hidden = MLP(self.hidden_units[1:], dropout, name="hidden")
        self.output_layer = keras.layers.Dense(size, name="output_layer")

    def build(self, input_shape: Any = None) -> None:
        for table in (self.events, self.weights_of_grades):  # only their rows are read
            if not table.built:
                table.build()
        super().build(input_shape)

    def encode_user(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Of the user's features `[B, ...]`: `history_layer` `[B, H]`, their part of the first
        layer, and `history_sums` `[B, C, W]`."""
        items, grades = features[self.items], features[self.grades]
        is_known = ops.logical_and(items >= FIRST_TOKEN_ID, grades >= FIRST_TOKEN_ID)
        known = ops.cast(is_known, "float32")
        is_event = ops.logical_or(items != PAD_ID, grades != PAD_ID)
        places = ops.arange(1, items.shape[1] + 1)
        last = ops.max(ops.where(is_event, places, 0), axis=1, keepdims=True)
        lag = ops.cast(last - places, "float32")
        counted = ops.stack([known, known * ops.exp(-lag / self.fading)], axis=2)
        counted = ops.repeat(counted, self.sums // 2, axis=2)  # `[B, L, C]`
        weights = ops.cast(self.weights_of_grades.rows(self.grades, grades), "float32") * counted
        number = ops.sum(counted, axis=1)
        vectors = self.events.rows(self.items, items)
        weights = ops.cast(weights, vectors.dtype)
        sums = ops.matmul(ops.transpose(weights, (0, 2, 1)), vectors)
        sums = sums / ops.cast(ops.sqrt(1 + number), sums.dtype)[:, :, None]
        means = ops.sum(weights, axis=1) / ops.cast(number + PRIOR, weights.dtype)
        read = [_flat(sums), means, ops.cast(ops.log1p(number[:, :1]), means.dtype)]
        if self.of_user:
            read.append(_flat(self.fields(features, names=self.of_user)))
        layer = self.user_layer(ops.concatenate(read, axis=1))
        return dict(zip(OF_USER, (layer, sums), strict=True))

    def of_candidates(self, rows: Mapping[str, Any], training: bool = False) -> Any:
        """Hints `[B, size]` of rows that have the candidate's features, and what `encode_user`
        returned for their user."""
        layer, sums = (rows[name] for name in OF_USER)
        fields = _flat(self.fields(rows, names=self.of_item))
        vectors = ops.reshape(self.to_vectors(fields), (-1, self.sums, self.state_dim))
        read = ops.concatenate([fields, _flat(vectors * sums)], axis=1)
        first = self.drop(ops.relu(layer + self.item_layer(read)), training=training)
        return self.output_layer(self.hidden(first, training=training))

    def call(self, features: Mapping[str, Any], training: bool = False) -> Any:
        user = self.encode_user(features)
        items = {name: features[name] for name in self.of_item}
        return self.of_candidates(user | items, training=training)


def _flat(vectors: Any) -> Any:
    """`[B, n, d]` to `[B, n * d]`."""
    return ops.reshape(vectors, (-1, vectors.shape[1] * vectors.shape[2]))
