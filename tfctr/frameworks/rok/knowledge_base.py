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

    `decompose` looks up the fields, `project` and `encode` are the network, and `reconstruct`
    predicts the teacher's hint, `V` vectors of width `D`, each number standardised over the
    training rows. The cost does not depend on the size of the pool, nor on the number of retrieved
    rows.

    Args:
        schema: the `F` fields, in order.
        num_vectors: int. `V`.
        vector_dim: int. `D`.
        embedding_dim: int. Width `R` of its own fields' vectors.
        hidden_units: widths of the encoder, at least one.
        dropout: float. In the encoder.

    Raises:
        ValueError: no hidden layer.
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
        if not hidden_units:
            raise ValueError("hidden_units: found none; give at least one width, e.g. [128, 128]")
        self.num_vectors = num_vectors
        self.vector_dim = vector_dim
        self.embedding_dim = embedding_dim
        self.hidden_units = tuple(hidden_units)
        self.dropout = dropout
        self.fields = FieldEmbedding(schema, embedding_dim, name="fields")
        self.hidden = MLP(hidden_units, dropout, name="hidden")
        self.output_layer = keras.layers.Dense(num_vectors * vector_dim, name="output_layer")

    def build(self, input_shape: Any = None) -> None:
        if not self.hidden.built:  # `project` reads a weight of a layer that is never called
            self.hidden.build((None, len(self.schema.inputs) * self.embedding_dim))
        super().build(input_shape)

    def decompose(self, features: Mapping[str, Any], names: Sequence[str] | None = None) -> Any:
        """Vectors `[B, F, R]` of the fields in the schema's order; of `names` only, if given."""
        return self.fields(features, names=names)

    def project(self, vectors: Any, names: Sequence[str] | None = None) -> Any:
        """The part of the first layer that fields have: `[B, n, R] -> [B, hidden_units[0]]`.

        The parts of several fields add up, so that those of a user are computed once per request.

        Args:
            vectors: of `decompose`, for the same `names`.
        """
        kernel = self.hidden.stack[0].kernel
        if names is not None:
            at = [i for i, f in enumerate(self.schema.inputs) if f.name in names]
            shape = (-1, self.embedding_dim, kernel.shape[1])
            kernel = ops.reshape(ops.take(ops.reshape(kernel, shape), at, axis=0), (-1, shape[2]))
        flat = ops.reshape(vectors, (-1, vectors.shape[1] * vectors.shape[2]))
        return flat @ ops.cast(kernel, flat.dtype)

    def encode(self, projected: Any, training: bool = False) -> Any:
        """`project` of all fields `[B, hidden_units[0]] -> [B, H]`; the hint is linear in it."""
        first, *_ = self.hidden.stack
        x = first.activation(projected + ops.cast(first.bias, projected.dtype))
        return self.hidden(x, training=training, first=1)

    def reconstruct(self, embeddings: Any, training: bool = False) -> Any:
        """`[B, F, R] -> [B, V, D]`."""
        found = self.output_layer(self.encode(self.project(embeddings), training=training))
        return ops.reshape(found, (-1, self.num_vectors, self.vector_dim))

    def call(self, features: Mapping[str, Any], training: bool = False) -> Any:
        """`[B, V, D]`."""
        return self.reconstruct(self.decompose(features), training=training)
