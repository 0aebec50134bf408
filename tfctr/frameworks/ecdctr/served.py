"""The ads model as it is served: it contains the field of each user's and item's snapshots."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfctr.data.snapshots import SIDES
from tfctr.frameworks.ecdctr.student import EcdctrStudent, history_name, snapshot_names
from tfctr.models.click_model import ClickModel
from tfctr.models.student import Student
from tfctr.optimizers.rows import local_copy

IDS_PER_BATCH = 2**16  # whose fields are computed at a time


class EcdctrServed(ClickModel):
    """An `EcdctrStudent`, or a student around one, with a table of the fields of all snapshots.

    A field depends on the user's or item's id alone, and the student is not trained any more. So
    the fields of all ids are computed once, here, and a request looks them up. This model is only
    exported, never saved as a `.keras` file.

    Args:
        student: the trained student.
        tables: by side, for all ids of that side's feature: the snapshots' vectors, float32
            `[ids, n * d]`, and which of them exist, `[ids, n]`, 1 or 0.

    Raises:
        ValueError: a table does not have one row for each id; there is no `EcdctrStudent`.
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
        inner = _ecdctr_student(student)
        self.keys = {side: getattr(inner, side) for side in SIDES}
        self.histories = {}
        for side, (vectors, exist) in tables.items():
            ids = student.schema[self.keys[side]].num_ids
            if len(vectors) != ids or len(exist) != ids:
                raise ValueError(f"the table of the {side}s has {len(vectors)} rows, wanted {ids}")
            fields = _fields(inner, side, vectors, exist)
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
        """The fields `[..., D]` of ids `[...]`, by their features' names."""
        # Not `ops.take`, which would also check for negative ids.
        return {
            history_name(side): tf.gather(
                local_copy(self.histories[side]), features[self.keys[side]]
            )
            for side in sides
        }


def _ecdctr_student(model: ClickModel) -> EcdctrStudent:
    """The `EcdctrStudent` in a stack of students."""
    inner = model
    while not isinstance(inner, EcdctrStudent):
        if not isinstance(inner, Student):
            raise ValueError(f"student: {model.name} reads no snapshots")
        inner = inner.backbone
    return inner


def _fields(
    student: EcdctrStudent, side: str, vectors: np.ndarray, exist: np.ndarray
) -> np.ndarray:
    """The field of each id, float32 `[ids, D]`."""
    ids = np.arange(len(vectors))
    parts = [
        student.fuse_snapshots(
            side,
            {
                getattr(student, side): ids[batch],
                **dict(zip(snapshot_names(side), (vectors[batch], exist[batch]), strict=True)),
            },
        )
        for batch in (slice(i, i + IDS_PER_BATCH) for i in range(0, len(ids), IDS_PER_BATCH))
    ]
    return np.concatenate([np.asarray(part, np.float32) for part in parts])
