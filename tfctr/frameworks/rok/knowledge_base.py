"""Predicts the result of retrieval from a row alone (ROK, arXiv:2404.18304)."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfctr.layers.field_embedding import FieldEmbedding
from tfctr.layers.mlp import MLP
from tfctr.models.schema_model import SchemaModel
from tfctr.schema import Schema


@keras.saving.register_keras_serializable("tfctr")
class KnowledgeBase(SchemaModel):
    """Embeds a row's fields in its own table, and encodes them to predict a teacher's hint.

    `decompose` looks up the fields, `encode` is the network, and `reconstruct` predicts the
    teacher's hint, `V` vectors of width `D`, each number standardised over the training rows. The
    cost does not depend on the size of the pool, nor on the number of retrieved rows.

    Args:
        schema: the `F` fields, in order.
        num_vectors: int. `V`.
        vector_dim: int. `D`.
        embedding_dim: int. Width `R` of its own fields' vectors.
        hidden_units: widths of the encoder.
        dropout: float. In the encoder.
    """

    def __init__(
        self,
        schema: Schema,
        num_vectors: int,
        vector_dim: int,
        embedding_dim: int,
        hidden_units: Sequence[int],
        dropout: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, **kwargs)
        self.num_vectors = num_vectors
        self.vector_dim = vector_dim
        self.embedding_dim = embedding_dim
        self.hidden_units = tuple(hidden_units)
        self.dropout = dropout
        self.fields = FieldEmbedding(schema, embedding_dim, name="fields")
        self.hidden = MLP(hidden_units, dropout, name="hidden")
        self.output_layer = keras.layers.Dense(num_vectors * vector_dim, name="output_layer")

    def decompose(self, features: Mapping[str, Any], names: Sequence[str] | None = None) -> Any:
        """Vectors `[B, F, R]` of the fields in the schema's order; of `names` only, if given."""
        return self.fields(features, names=names)

    def encode(self, embeddings: Any, training: bool = False) -> Any:
        """`[B, F, R] -> [B, H]`, of which the hint is a linear function."""
        flat = ops.reshape(embeddings, (-1, embeddings.shape[1] * embeddings.shape[2]))
        return self.hidden(flat, training=training)

    def reconstruct(self, embeddings: Any, training: bool = False) -> Any:
        """`[B, F, R] -> [B, V, D]`."""
        found = self.output_layer(self.encode(embeddings, training=training))
        return ops.reshape(found, (-1, self.num_vectors, self.vector_dim))

    def call(self, features: Mapping[str, Any], training: bool = False) -> Any:
        """`[B, V, D]`."""
        return self.reconstruct(self.decompose(features), training=training)
