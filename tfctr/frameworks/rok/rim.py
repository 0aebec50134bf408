"""Retrieval & Interaction Machine (Qin et al., 2021, arXiv:2108.05252)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops
from keras_rs.layers import DotInteraction

from tfctr.backbones.backbone import Backbone, register
from tfctr.layers.mlp import MLP
from tfctr.layers.row_attention import RowAttention
from tfctr.retrieval.similar_rows import CLICKED, LABEL, NO_ROW, PREFIX
from tfctr.schema import Numeric, Schema
from tfctr.schema import Sequence as TokenSequence


@register("rim")
class RIM(Backbone):
    """A deep tower over a row's fields and over the fields and labels of similar earlier rows.

    The `K` rows of `tfctr retrieve` are weighted by attention, `a_k = softmax_k(<W x + b, s_k> /
    sqrt(F' D))`, and summed field by field; so are the vectors of their labels. `x` are the row's
    `F` fields, `s_k` the `F'` fields of a similar row, from the same table: all but sequences.
    Without a similar row the sums are zero.

    `embed` returns `[B, F + F' + 1, D]`: the fields, the sums of the similar rows' fields, the sum
    of their labels' vectors. `represent` feeds these and the inner products of all pairs to the
    tower and returns `[mlp ; sum of labels]`, `[B, hidden_units[-1] + D]`.

    Args:
        schema: the fields, in order.
        embedding_dim: int. Width `D` of each field's vector. Defaults to 16.
        hidden_units: widths of the tower. Defaults to `(200, 80)`.
        dropout: float. In the tower. Defaults to 0.
        labels: bool. False leaves out the similar rows' labels, and so the last vector.
            Defaults to True.
    """

    embeds_fields_apart: bool = False  # similar rows belong to the whole row
    reads_side_outputs: ClassVar[bool] = True

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        hidden_units: Sequence[int] = (200, 80),
        dropout: float = 0.0,
        labels: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, embedding_dim, **kwargs)
        self.hidden_units = tuple(hidden_units)
        self.dropout = dropout
        self.labels = labels
        self.of_found = [f for f in schema.inputs if not isinstance(f, TokenSequence)]
        self.attention = RowAttention(len(self.of_found), name="attention")
        self.inner = DotInteraction(name="inner")
        self.deep = MLP(hidden_units, dropout, name="deep")
        if labels:
            self.label_vectors = keras.layers.Embedding(
                CLICKED + 1, self.field_dim, name="label_vectors"
            )

    @property
    def reads(self) -> tuple[str, ...]:
        return (*super().reads, LABEL, *(PREFIX + feature.name for feature in self.of_found))

    @property
    def num_aggregates(self) -> int:
        """The number of the last vectors of `embed`, which come from the similar rows."""
        return len(self.of_found) + self.labels

    def embed(
        self,
        features: Mapping[str, Any],
        names: Sequence[str] | None = None,
        training: bool = False,
    ) -> Any:
        fields = self.fields(features, names=names)
        if names is not None:
            return fields
        labels = features[LABEL]
        found = self._found(features, labels.shape[1])
        if self.labels:
            vectors = ops.expand_dims(self.label_vectors(labels), 2)
            found = ops.concatenate([found, vectors], axis=2)
        sums = self.attention(fields, found, ops.not_equal(labels, NO_ROW))
        return ops.concatenate([fields, sums], axis=1)

    def aggregate(self, features: Mapping[str, Any]) -> Any:
        """The sums over the similar rows, `[B, num_aggregates, D]`: the hint."""
        return self.embed(features)[:, -self.num_aggregates :]

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        num_fields, dim = embeddings.shape[1:]
        flat = ops.reshape(embeddings, (-1, num_fields * dim))
        products = self.inner(ops.unstack(embeddings, num=num_fields, axis=1))
        deep = self.deep(ops.concatenate([flat, products], axis=1), training=training)
        if not self.labels:
            return deep
        label = len(self.schema.inputs) + len(self.of_found)
        return ops.concatenate([deep, embeddings[:, label]], axis=1)

    def _found(self, features: Mapping[str, Any], k: int) -> Any:
        """The similar rows' fields `[B, K, F', D]`."""
        rows = {}
        for feature in self.of_found:
            values = features[PREFIX + feature.name]
            shape = (-1, feature.max_length) if feature.is_list else (-1,)
            rows[feature.name] = ops.reshape(values, shape)
        vectors = self.fields(rows, names=tuple(rows))
        return ops.reshape(vectors, (-1, k, len(self.of_found), self.field_dim))

    def _empty_row(self) -> dict[str, np.ndarray]:
        row = super()._empty_row() | {LABEL: np.zeros((1, 2), "int64")}
        for feature in self.of_found:
            length = feature.max_length if feature.is_list else 1
            kind = "float32" if isinstance(feature, Numeric) else "int64"
            row[PREFIX + feature.name] = np.zeros((1, 2 * length), kind)
        return row
