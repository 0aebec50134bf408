"""Alignment and clicks in one stage, an ablation of CTRL (arXiv:2306.02841)."""

from collections.abc import Mapping
from typing import Any

from tfctr.frameworks.ctrl.alignment import Alignment
from tfctr.models.losses import LogLoss


class JointAlignment(Alignment):
    """An `Alignment` that also learns clicks: its loss is `L_ccl + clicks * L_log`.

    A call on features returns the backbone's logits `[B]`, so that the validation measure chooses
    the best epoch. Only the backbone is kept.

    Args:
        clicks: float. Weight of the log loss.
    """

    def __init__(self, *args: Any, clicks: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clicks = clicks
        self.backbone.head.trainable = True

    def build(self, input_shape: Any = None) -> None:
        if not self.built:
            self.built = True  # before the calls, which would build again
            self.backbone.build()
            super().call(self._empty_row())

    def call(self, features: Mapping[str, Any], training: bool = False) -> Any:
        return self.backbone(features, training=training)

    def further_losses(self, represented: Any, labels: Any) -> list[Any]:
        return [self.clicks * LogLoss()(labels, self.backbone.predict_logits(represented))]
