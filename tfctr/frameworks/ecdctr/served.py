"""The ads model as it is served: with the snapshots inside."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from tfctr.click_model import ClickModel
from tfctr.data.snapshots import SIDES
from tfctr.frameworks.ecdctr.student import EcdctrStudent, snapshot_names

OF_USER = "user_history"  # what is kept of a user, beside what the backbone keeps


class ServedModel(ClickModel):
    """An `EcdctrStudent` that finds the snapshots of a user and an item by their ids.

    The user's field is computed once a request, an item's once a candidate. Never trained and
    never saved as a `.keras` file: it is made to be exported.

    Args:
        student: the trained one.
        tables: by side, vectors float32 `[ids, n * d]` and which there are, `[ids, n]`, of all ids
            of that side's feature.

    Raises:
        ValueError: a table has not a row for each id; a feature has the name of what is kept of a
            user.
    """

    embeds_fields_apart = False

    def __init__(
        self,
        student: EcdctrStudent,
        tables: Mapping[str, tuple[np.ndarray, np.ndarray]],
        **kwargs: Any,
    ) -> None:
        super().__init__(student.schema, **kwargs)
        if OF_USER in student.reads:
            raise ValueError(f"schema: the name {OF_USER!r} is taken by what is kept of a user")
        self.student = student
        self.keys = {side: getattr(student, side) for side in SIDES}
        self.vectors, self.exist = {}, {}
        for side, (vectors, exist) in tables.items():
            ids = student.schema[self.keys[side]].num_ids
            if len(vectors) != ids or len(exist) != ids:
                raise ValueError(f"the table of the {side}s has {len(vectors)} rows, wanted {ids}")
            self.vectors[side] = self.add_weight(
                vectors.shape, initializer="zeros", trainable=False, name=f"{side}_vectors"
            )
            self.exist[side] = self.add_weight(
                exist.shape, initializer="zeros", trainable=False, name=f"{side}_exist"
            )
            self.vectors[side].assign(vectors)
            self.exist[side].assign(exist)

    @property
    def head(self) -> Any:
        return self.student.head

    def embed(self, features: Mapping[str, Any], names: Sequence[str] | None = None) -> Any:
        found = dict(features)
        for side in SIDES if names is None else ():
            found |= self._look_up(side, features)
        return self.student.embed(found, names=names)

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        return self.student.represent(embeddings, training=training)

    def predict_logits(self, representation: Any) -> Any:
        return self.student.predict_logits(representation)

    def encode_user(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """What the backbone takes once, and `OF_USER` `[B, D]`."""
        user = self.student.backbone.encode_user(features)
        return user | {OF_USER: self._history("user", features)}

    def embed_candidates(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        of_user = user[OF_USER]
        others = {name: value for name, value in user.items() if name != OF_USER}
        fields = self.student.backbone.embed_candidates(others, items)
        batch, number = ops.shape(items[self.keys["item"]])[:2]
        ids = {self.keys["item"]: ops.reshape(items[self.keys["item"]], (-1,))}
        of_item = self._history("item", ids)
        width = of_user.shape[-1]
        shape = (batch, number, width)
        of_user = ops.reshape(ops.broadcast_to(of_user[:, None], shape), (-1, width))
        return ops.concatenate([fields, of_user[:, None], of_item[:, None]], axis=1)

    def _history(self, side: str, features: Mapping[str, Any]) -> Any:
        return self.student.of_snapshots(side, {**features, **self._look_up(side, features)})

    def _look_up(self, side: str, features: Mapping[str, Any]) -> dict[str, Any]:
        ids = features[self.keys[side]]
        tables = (self.vectors[side], self.exist[side])
        found = [ops.take(table, ids, axis=0) for table in tables]
        return dict(zip(snapshot_names(side), found, strict=True))
