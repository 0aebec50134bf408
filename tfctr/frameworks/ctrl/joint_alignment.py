"""Alignment and clicks in one stage, which CTRL (arXiv:2306.02841) compares its two with."""

from collections.abc import Mapping
from typing import Any

from tfctr.frameworks.ctrl.alignment import Alignment
from tfctr.models.losses import LogLoss


class JointAlignment(Alignment):
    """An `Alignment` that learns clicks meanwhile: its loss is `L_ccl + clicks * L_log`.

    Called on features it gives the backbone's logits `[B]`, so that its best epoch can be that of
    the best validation measure. The backbone alone is kept.

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
