"""The candidate and the user's earlier events, as vectors of one width."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tfctr.layers.flat_dense import FlatDense
from tfctr.schema import PAD_ID, Categorical, Schema, Sequence


class Behaviours:
    """The histories of a schema.

    The histories are the schema's sequences of the user or the context. Index `i` is the same
    event in each of them, oldest first, padded at the end. Item-side histories share an item
    feature (`of_item`); an event exists where any of them is not `PAD_ID`. The others are
    attributes that the candidate does not have, such as the stars that the user gave.

    Args:
        schema: a `tfctr.schema.Schema`.

    Raises:
        ValueError: no history shares a categorical feature of the item; histories differ in
            `max_length`.
    """

    def __init__(self, schema: Schema) -> None:
        found = [f for f in schema.side("user", "context") if isinstance(f, Sequence)]
        items = {f.name: f for f in schema.side("item")}
        of_item = [f for f in found if f.shares in items]
        if not any(isinstance(items[f.shares], Categorical) for f in of_item):
            raise ValueError(_nothing_to_compare(schema))
        if len({f.max_length for f in found}) > 1:
            lengths = ", ".join(f"{f.name}: {f.max_length}" for f in found)
            raise ValueError(
                "sequences must have one max_length, as they hold the same events; found "
                f"{lengths}. List the features of the model without those of other events"
            )
        self.histories = tuple(f.name for f in found)
        # history -> the item feature it shares
        self.of_item: dict[str, str] = {f.name: str(f.shares) for f in of_item}
        self.max_length = found[0].max_length

    def exists(self, features: Mapping[str, Any]) -> Any:
        """Bool `[B, L]`: where ids `[B, L]` belong to an event."""
        found = [ops.not_equal(features[name], PAD_ID) for name in self.of_item]
        return ops.any(ops.stack(found), axis=0)

    def latest_first(self, features: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        """Ids `[B, L]` of each history with the latest event at 0, and bool `[B, L]`, `exists`."""
        exists = self.exists(features)
        number = count(exists)
        ids = {name: latest_first(features[name], number) for name in self.histories}
        return ids, latest_first(exists, number)


@keras.saving.register_keras_serializable("tfctr")
class BehaviourSequence(keras.layers.Layer):
    """Vectors of one width `Q` for the candidate and for each event of a history (`Behaviours`).

    - query: the candidate's vectors of the shared item features, concatenated: `Q = n * D`.
    - keys: the event's vectors of all histories, concatenated; if the candidate lacks one of them,
      a dense layer projects them to `Q`.

    Args:
        schema: a `tfctr.schema.Schema`.
        dim: int. Width `D` of a field's vector.

    Raises:
        ValueError: as for `Behaviours`.
    """

    def __init__(self, schema: Schema, dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.schema = schema
        self.dim = dim
        self.behaviours = Behaviours(schema)
        self.candidate = tuple(dict.fromkeys(self.behaviours.of_item.values()))
        self.projection = None
        names = [*self.behaviours.histories]
        if tuple(self.behaviours.of_item.get(name) for name in names) != self.candidate:
            self.projection = FlatDense(self.width, name="projection")

    @property
    def histories(self) -> tuple[str, ...]:
        return self.behaviours.histories

    @property
    def width(self) -> int:
        """`Q`."""
        return len(self.candidate) * self.dim

    def build(self, candidate_shape: Any, events_shape: tuple[int | None, ...]) -> None:
        if self.projection is not None:
            self.projection.build(events_shape)

    def call(self, candidate: Any, events: Any) -> tuple[Any, Any]:
        """Query `[B, Q]` and keys `[B, L, Q]`.

        Args:
            candidate: `[B, n * D]`, the concatenated vectors of `self.candidate`.
            events: `[B, L, H * D]`, the concatenated vectors of `self.histories`.
        """
        return candidate, self.keys(events)

    def keys(self, events: Any) -> Any:
        """The keys alone."""
        return events if self.projection is None else self.projection(events)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "schema": self.schema.model_dump(mode="json"),
            "dim": self.dim,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BehaviourSequence":
        return cls(**config | {"schema": Schema.model_validate(config["schema"])})


def count(exists: Any) -> Any:
    """The length `[B]` of each history in `[B, L]`, up to its latest event."""
    places = ops.arange(1, exists.shape[1] + 1, dtype="int32")
    return ops.max(ops.where(exists, places, 0), axis=1)


def latest_first(values: Any, number: Any) -> Any:
    """`[B, L]` with the first `number [B]` reversed: the latest event at 0, padding at the end.

    So an index counts events back from the latest, whatever the history's length.
    """
    return tf.reverse_sequence(values, number, seq_axis=1)


def _nothing_to_compare(schema: Schema) -> str:
    sequences = [
        f"{f.name} (side {f.side}, shares {f.shares or 'nothing'})"
        for f in schema.inputs
        if isinstance(f, Sequence)
    ]
    items = [f.name for f in schema.side("item") if isinstance(f, Categorical)]
    return (
        "a sequence of side user that shares a categorical feature of side item is needed, e.g. "
        f"shares: {items[0] if items else 'item_id'}; found sequences: "
        f"{', '.join(sequences) or 'none'}; categorical features of side item: "
        f"{', '.join(items) or 'none'}"
    )
