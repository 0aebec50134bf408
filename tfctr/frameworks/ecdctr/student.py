"""A backbone that reads what a long-term model knew of the user and the item (E-CDCTR)."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfctr.data.snapshots import SIDES
from tfctr.layers.historical_fusion import HistoricalFusion
from tfctr.models.click_model import ClickModel, candidate_rows
from tfctr.models.student import Student

OF_USER = "user_history"  # what is kept of a user, beside what the backbone keeps


@keras.saving.register_keras_serializable("tfctr")
class EcdctrStudent(Student):
    """Any backbone, with two further fields (E-CDCTR, arXiv:2408.16238).

    Each is a `HistoricalFusion` of the backbone's own vector of the user, or of the item, with the
    vectors that snapshots have of it. It is called with those beside the features:
    `{side}_snapshots` `[B, n * d]`, latest first, and `{side}_snapshots_exist` `[B, n]`.

    Args:
        backbone: a backbone, or a student around one; not built yet.
        user: name of the categorical feature whose snapshots are kept.
        item: the same of items.
        num_snapshots: int. `n`.
        snapshot_dim: int. `d`.

    Raises:
        ValueError: the backbone does not read one of the two features.
    """

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
        if OF_USER in backbone.reads:
            raise ValueError(f"schema: the name {OF_USER!r} is taken by what is kept of a user")
        for name in (user, item):
            if name not in backbone.reads:
                raise ValueError(
                    f"the backbone does not read {name}, whose snapshots are kept; it reads "
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

    def embed(
        self,
        features: Mapping[str, Any],
        names: Sequence[str] | None = None,
        training: bool = False,
    ) -> Any:
        """`[B, F + 2, D]`; with `names` the backbone's fields of these alone."""
        fields = self.backbone.embed(features, names=names, training=training)
        if names is not None:
            return fields
        histories = [self._history(side, features) for side in SIDES]
        return self.add_fields(fields, ops.stack(histories, axis=1))

    def encode_user(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """What the backbone keeps, and `OF_USER` `[B, D]`."""
        return super().encode_user(features) | {OF_USER: self._history("user", features)}

    def embed_candidates(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        of_backbone = {name: value for name, value in user.items() if name != OF_USER}
        fields = super().embed_candidates(of_backbone, items)
        rows = candidate_rows({OF_USER: user[OF_USER]}, items)
        histories = [rows[OF_USER], self._history("item", rows)]
        return self.add_fields(fields, ops.stack(histories, axis=1))

    def _history(self, side: str, features: Mapping[str, Any]) -> Any:
        """The field of one side, which may be given as it is (`history_name`)."""
        given = features.get(history_name(side))
        return self.of_snapshots(side, features) if given is None else given

    def of_snapshots(self, side: str, features: Mapping[str, Any]) -> Any:
        """The field `[B, D]` of one side's snapshots."""
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
    """What may be given in place of one side's snapshots: the field `[B, D]` that they make."""
    return f"{side}_history_field"


def snapshot_names(side: str) -> tuple[str, str]:
    """What a row holds of one side's snapshots: the vectors, and which there are."""
    return f"{side}_snapshots", f"{side}_snapshots_exist"
