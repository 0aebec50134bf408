"""The base class of backbones that read a user's history."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from keras import ops

from tfctr.backbones.backbone import Backbone
from tfctr.layers.behaviour_sequence import BehaviourSequence
from tfctr.layers.mlp import MLP
from tfctr.models.click_model import candidate_rows, for_each
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

    def attend_candidates(self, query: Any, keys: Any, exists: Any) -> Any:
        """The same for `N` candidates of a user: `[B * N, n, D]` from `query [B, N, Q]`."""
        number = ops.shape(query)[1]
        keys, exists = for_each(keys, number), for_each(exists, number)
        return self.attend(ops.reshape(query, (-1, query.shape[2])), keys, exists)

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
        events, exists = self._events(features)
        query, keys = self.behaviours(self._query(fields, others), events)
        return ops.concatenate([fields, self.attend(query, keys, exists)], axis=1)

    def encode_user(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """`fields` of the user and the context, if there are any; `history_keys` `[B, L, Q]`, and
        which of them exist, `history_exists` `[B, L]`, 1 or 0."""
        events, exists = self._events(features)
        user = {"history_keys": self.behaviours.keys(events)}
        user["history_exists"] = ops.cast(exists, "float32")
        if others := [name for name in self.field_names if name in features]:
            user["fields"] = self.fields(features, names=others)
        return user

    def embed_candidates(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        rows = candidate_rows({n: user[n] for n in ("fields",) if n in user}, items)
        of_items = [name for name in self.field_names if name in items]
        fields = self.fields(rows, names=of_items)
        query = self._query(fields, of_items)
        query = ops.reshape(query, (-1, ops.shape(items[of_items[0]])[1], query.shape[1]))
        fields = self.in_order(rows.get("fields"), fields, items)
        exists = ops.cast(user["history_exists"], "bool")
        attended = self.attend_candidates(query, user["history_keys"], exists)
        return ops.concatenate([fields, attended], axis=1)

    def _events(self, features: Mapping[str, Any]) -> tuple[Any, Any]:
        """The concatenated vectors `[B, L, H * D]` of events, and which exist, bool `[B, L]`."""
        histories, behaviours = self.behaviours.histories, self.behaviours.behaviours
        if self.oldest_first:
            ids = {name: features[name] for name in histories}
            exists = behaviours.exists(features)
        else:
            ids, exists = behaviours.latest_first(features)
        return self.fields.side_by_side(ids, names=histories), exists

    def _query(self, fields: Any, names: Sequence[str]) -> Any:
        """`[B, Q]` of the candidate, from the fields `names`."""
        candidate = self.behaviours.candidate
        return ops.concatenate([fields[:, names.index(name)] for name in candidate], axis=-1)

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        x = ops.reshape(embeddings, (-1, embeddings.shape[1] * embeddings.shape[2]))
        return self.deep(x, training=training)
