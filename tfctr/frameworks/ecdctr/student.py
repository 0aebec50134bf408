"""A backbone that reads what a long-term model knew of the user and the item (E-CDCTR)."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfctr.backbones.backbone import Backbone
from tfctr.click_model import ClickModel
from tfctr.data.snapshots import SIDES
from tfctr.layers.historical_fusion import HistoricalFusion


@keras.saving.register_keras_serializable("tfctr")
class EcdctrStudent(ClickModel):
    """Any backbone, with two further fields (E-CDCTR, arXiv:2408.16238).

    Each is a `HistoricalFusion` of the backbone's own vector of the user, or of the item, with the
    vectors that snapshots have of it. It is called with those beside the features:
    `{side}_snapshots` `[B, n * d]`, latest first, and `{side}_snapshots_exist` `[B, n]`.

    Args:
        backbone: one not built yet.
        user: name of the categorical feature whose snapshots are kept.
        item: the same of items.
        num_snapshots: int. `n`.
        snapshot_dim: int. `d`.

    Raises:
        ValueError: the backbone does not read one of the two features.
    """

    embeds_fields_apart = False

    def __init__(
        self,
        backbone: Backbone,
        user: str,
        item: str,
        num_snapshots: int,
        snapshot_dim: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone.schema, **kwargs)
        for name in (user, item):
            if name not in backbone.reads:
                raise ValueError(
                    f"the backbone does not read {name}, whose snapshots are kept; it reads "
                    f"{', '.join(backbone.reads)}"
                )
        self.backbone = backbone
        self.user = user
        self.item = item
        self.num_snapshots = num_snapshots
        self.snapshot_dim = snapshot_dim
        self.fusions = {
            side: HistoricalFusion(backbone.field_dim, name=f"{side}_history") for side in SIDES
        }

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        self.backbone.built = True  # its steps were called, never itself

    @property
    def head(self) -> Any:
        return self.backbone.head

    @property
    def reads(self) -> tuple[str, ...]:
        return (*super().reads, *(name for side in SIDES for name in snapshot_names(side)))

    def embed(self, features: Mapping[str, Any], names: Sequence[str] | None = None) -> Any:
        """`[B, F + 2, D]`; with `names` the backbone's fields of these alone."""
        fields = self.backbone.embed(features, names=names)
        if names is not None:
            return fields
        histories = [self.of_snapshots(side, features) for side in SIDES]
        return ops.concatenate([fields, *(h[:, None] for h in histories)], axis=1)

    def of_snapshots(self, side: str, features: Mapping[str, Any]) -> Any:
        """The field `[B, D]` of one side's snapshots."""
        current = self.backbone.fields(features, names=[getattr(self, side)])[:, 0]
        vectors, exist = (features[name] for name in snapshot_names(side))
        vectors = ops.reshape(vectors, (-1, self.num_snapshots, self.snapshot_dim))
        return ops.cast(self.fusions[side](current, vectors, exist), current.dtype)

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        return self.backbone.represent(embeddings, training=training)

    def predict_logits(self, representation: Any) -> Any:
        return self.backbone.predict_logits(representation)

    def _empty_row(self) -> dict[str, np.ndarray]:
        n = self.num_snapshots
        shapes = {"snapshots": (n * self.snapshot_dim, "float32"), "snapshots_exist": (n, "int64")}
        return super()._empty_row() | {
            f"{side}_{name}": np.zeros((1, size), kind)
            for side in SIDES
            for name, (size, kind) in shapes.items()
        }

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            **{k: getattr(self, k) for k in ("user", "item", "num_snapshots", "snapshot_dim")},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "EcdctrStudent":
        backbone = keras.saving.deserialize_keras_object(config["backbone"])
        return cls(**config | {"backbone": backbone})


def snapshot_names(side: str) -> tuple[str, str]:
    """What a row holds of one side's snapshots: the vectors, and which there are."""
    return f"{side}_snapshots", f"{side}_snapshots_exist"
