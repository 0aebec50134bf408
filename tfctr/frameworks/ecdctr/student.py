"""A student that reads the snapshots of the user and the item (E-CDCTR)."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tfctr.data.snapshots import SIDES
from tfctr.layers.historical_fusion import HistoricalFusion
from tfctr.models.click_model import ClickModel, candidate_rows
from tfctr.models.student import Student, refuse_names

USER_HISTORY = "user_history"  # this student's part of `encode_user`


@keras.saving.register_keras_serializable("tfctr")
class EcdctrStudent(Student):
    """Adds two fields to any backbone (E-CDCTR, arXiv:2408.16238).

    One is of the user, one of the item. Each is the `HistoricalFusion` of the backbone's vector
    with the vectors in the snapshots. Further features hold these: `{side}_snapshots`
    `[B, n * d]`, latest first, and `{side}_snapshots_exist` `[B, n]`, 1 or 0.

    Args:
        backbone: a backbone, or a student around one; not built yet.
        user: name of the categorical feature that identifies users in the snapshots.
        item: the same for items.
        num_snapshots: int. Number `n` of snapshots that a row reads.
        snapshot_dim: int. Width `d` of their vectors.

    Raises:
        ValueError: the backbone does not read one of the two features, or reads a feature named
            `USER_HISTORY`.
    """

    own_tensors = (USER_HISTORY,)

    def __init__(
        self,
        backbone: ClickModel,
        user: str,
        item: str,
        num_snapshots: int,
        snapshot_dim: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        refuse_names(backbone.reads, [USER_HISTORY])
        for name in (user, item):
            if name not in backbone.reads:
                raise ValueError(
                    f"the backbone does not read {name}, whose snapshots are read; it reads "
                    f"{', '.join(backbone.reads)}"
                )
        self.user = user
        self.item = item
        self.num_snapshots = num_snapshots
        self.snapshot_dim = snapshot_dim
        self.fusions = {
            side: HistoricalFusion(backbone.field_dim, name=f"{side}_history") for side in SIDES
        }

    @property
    def reads(self) -> tuple[str, ...]:
        return (*super().reads, *(name for side in SIDES for name in snapshot_names(side)))

    @property
    def reads_of_item(self) -> tuple[str, ...]:
        return (*super().reads_of_item, *snapshot_names("item"), history_name("item"))

    @property
    def may_read(self) -> tuple[str, ...]:
        return (*super().may_read, *(history_name(side) for side in SIDES))

    def own_fields(self, features: Mapping[str, Any], training: bool) -> Any:
        return ops.stack([self._history(side, features) for side in SIDES], axis=1)

    def encode_user(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """The backbone's part, and `USER_HISTORY` `[B, D]`."""
        return super().encode_user(features) | {USER_HISTORY: self._history("user", features)}

    def embed_candidates(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        fields = super().embed_candidates(user, items)
        rows = candidate_rows({USER_HISTORY: user[USER_HISTORY]}, items)
        histories = [rows[USER_HISTORY], self._history("item", rows)]
        return self.add_fields(fields, ops.stack(histories, axis=1))

    def _history(self, side: str, features: Mapping[str, Any]) -> Any:
        """The field `[B, D]` of one side; a feature may hold it already (`history_name`)."""
        given = features.get(history_name(side))
        return self.fuse_snapshots(side, features) if given is None else given

    def fuse_snapshots(self, side: str, features: Mapping[str, Any]) -> Any:
        """The field `[B, D]` of one side, from its snapshots."""
        current = self.innermost().embed(features, names=[getattr(self, side)])[:, 0]
        vectors, exist = (features[name] for name in snapshot_names(side))
        vectors = ops.reshape(vectors, (-1, self.num_snapshots, self.snapshot_dim))
        return ops.cast(self.fusions[side](current, vectors, exist), current.dtype)

    def _empty_row(self) -> dict[str, np.ndarray]:
        n = self.num_snapshots
        shapes = {"snapshots": (n * self.snapshot_dim, "float32"), "snapshots_exist": (n, "int64")}
        return super()._empty_row() | {
            f"{side}_{name}": np.zeros((1, size), kind)
            for side in SIDES
            for name, (size, kind) in shapes.items()
        }


def history_name(side: str) -> str:
    """The feature that may hold the field `[B, D]` of one side in place of its snapshots."""
    return f"{side}_history_field"


def snapshot_names(side: str) -> tuple[str, str]:
    """The features of one side's snapshots: their vectors, and which of them exist."""
    return f"{side}_snapshots", f"{side}_snapshots_exist"
