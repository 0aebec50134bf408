"""The ads model as it is served: with what snapshots say of each id inside."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfctr.data.snapshots import SIDES
from tfctr.frameworks.ecdctr.student import EcdctrStudent, history_name, snapshot_names
from tfctr.models.click_model import ClickModel
from tfctr.models.student import Student
from tfctr.optimizers.rows import local_copy

AT_ONCE = 2**16  # ids whose snapshots are looked at


class EcdctrServed(ClickModel):
    """An `EcdctrStudent`, or a student around one, that knows the snapshots of users and items.

    What the student makes of an id's snapshots depends on the id alone, and nothing is trained any
    more: it is computed here, once for each id, and looked up. Never saved as a `.keras` file: it
    is made to be exported.

    Args:
        student: the trained one.
        tables: by side, vectors float32 `[ids, n * d]` and which there are, `[ids, n]`, of all ids
            of that side's feature.

    Raises:
        ValueError: a table has not a row for each id; there is no `EcdctrStudent`.
    """

    def __init__(
        self,
        student: ClickModel,
        tables: Mapping[str, tuple[np.ndarray, np.ndarray]],
        **kwargs: Any,
    ) -> None:
        super().__init__(student.schema, **kwargs)
        self.student = student
        self.embeds_fields_apart = student.embeds_fields_apart
        self.folds = student.folds
        inner = _of_snapshots(student)
        self.keys = {side: getattr(inner, side) for side in SIDES}
        self.histories = {}
        for side, (vectors, exist) in tables.items():
            ids = student.schema[self.keys[side]].num_ids
            if len(vectors) != ids or len(exist) != ids:
                raise ValueError(f"the table of the {side}s has {len(vectors)} rows, wanted {ids}")
            fields = _of_all(inner, side, vectors, exist)
            self.histories[side] = self.add_weight(
                fields.shape, initializer="zeros", trainable=False, name=f"{side}_histories"
            )
            self.histories[side].assign(fields)

    @property
    def head(self) -> Any:
        return self.student.head

    def embed(
        self,
        features: Mapping[str, Any],
        names: Sequence[str] | None = None,
        training: bool = False,
    ) -> Any:
        sides = SIDES if names is None else ()
        found = {**features, **self._look_up(sides, features)}
        return self.student.embed(found, names=names, training=training)

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        return self.student.represent(embeddings, training=training)

    def predict_logits(self, representation: Any) -> Any:
        return self.student.predict_logits(representation)

    def encode_user(self, features: Mapping[str, Any]) -> dict[str, Any]:
        return self.student.encode_user({**features, **self._look_up(["user"], features)})

    def embed_candidates(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        return self.student.embed_candidates(user, {**items, **self._look_up(["item"], items)})

    def _look_up(self, sides: Sequence[str], features: Mapping[str, Any]) -> dict[str, Any]:
        """The fields `[..., D]` of ids `[...]`."""
        # Reads only these rows; `ops.take` would also ask which ids are negative.
        return {
            history_name(side): tf.gather(
                local_copy(self.histories[side]), features[self.keys[side]]
            )
            for side in sides
        }


def _of_snapshots(model: ClickModel) -> EcdctrStudent:
    """The one among students around one another."""
    inner = model
    while not isinstance(inner, EcdctrStudent):
        if not isinstance(inner, Student):
            raise ValueError(f"student: {model.name} reads no snapshots")
        inner = inner.backbone
    return inner


def _of_all(
    student: EcdctrStudent, side: str, vectors: np.ndarray, exist: np.ndarray
) -> np.ndarray:
    """The student's field of each id's snapshots, `[ids, D]`."""
    ids = np.arange(len(vectors))
    parts = [
        student.of_snapshots(
            side,
            {
                getattr(student, side): ids[some],
                **dict(zip(snapshot_names(side), (vectors[some], exist[some]), strict=True)),
            },
        )
        for some in (slice(i, i + AT_ONCE) for i in range(0, len(ids), AT_ONCE))
    ]
    return np.concatenate([np.asarray(part, np.float32) for part in parts])
