"""The base class of backbones that read a user's history."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from keras import ops

from tfctr.backbones.backbone import Backbone
from tfctr.layers.behaviour_sequence import BehaviourSequence
from tfctr.layers.mlp import MLP
from tfctr.schema import Schema


class SequenceBackbone(Backbone):
    """An MLP over the fields and over a subclass's vectors of candidate and history.

    The sequences are no fields: `embed` returns the other fields in the schema's order, then the
    `n` vectors of `attend`: `[B, F - H + n, D]`. If `names` lacks a sequence, or an item feature
    that one shares, it returns only the fields. `tfctr.layers.behaviour_sequence.Behaviours`
    defines the histories of a schema, and its errors.

    `represent` takes any number of fields `[B, F', D]` and gives `[B, hidden_units[-1]]`.
    """

    embeds_fields_apart: bool = False  # the candidate attends to the history
    oldest_first: ClassVar[bool] = False  # else the latest event is at index 0

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        hidden_units: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, embedding_dim, **kwargs)
        self.hidden_units = tuple(hidden_units)
        self.dropout = dropout
        self.behaviours = BehaviourSequence(schema, self.field_dim, name="behaviours")
        self.deep = MLP(hidden_units, dropout, name="deep")

    @property
    def field_names(self) -> tuple[str, ...]:
        histories = self.behaviours.histories
        return tuple(f.name for f in self.schema.inputs if f.name not in histories)

    def attend(self, query: Any, keys: Any, exists: Any) -> Any:
        """`[B, n, D]` from the candidate `[B, Q]`, the events `[B, L, Q]`, and bool `[B, L]`."""
        raise NotImplementedError

    def embed(
        self,
        features: Mapping[str, Any],
        names: Sequence[str] | None = None,
        training: bool = False,
    ) -> Any:
        histories, candidate = self.behaviours.histories, self.behaviours.candidate
        wanted = [f.name for f in self.schema.inputs if names is None or f.name in names]
        others = [name for name in wanted if name not in histories]
        if not others:
            return self.fields(features, names=wanted)[:, :0]
        fields = self.fields(features, names=others)
        if not {*histories, *candidate} <= {*wanted}:
            return fields
        behaviours = self.behaviours.behaviours
        if self.oldest_first:
            ids = {name: features[name] for name in histories}
            exists = behaviours.exists(features)
        else:
            ids, exists = behaviours.latest_first(features)
        query, keys = self.behaviours(
            ops.concatenate([fields[:, others.index(name)] for name in candidate], axis=-1),
            self.fields.side_by_side(ids, names=histories),
        )
        return ops.concatenate([fields, self.attend(query, keys, exists)], axis=1)

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        x = ops.reshape(embeddings, (-1, embeddings.shape[1] * embeddings.shape[2]))
        return self.deep(x, training=training)
