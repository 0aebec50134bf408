"""The stage before CTRL's student: a backbone aligned with texts."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from tfctr.frameworks.ctrl.config import Ctrl
from tfctr.stages.texts import TextPretraining, encoder_of


class Align(TextPretraining):
    """Aligns a backbone with the texts of its rows."""

    def create(self, data: Any) -> Any:
        return create_alignment(self.config, self.model.create(data.schema), data, self.texts)

    def objective(self, data: Any, model: Any) -> Any:
        from tfctr.frameworks.ctrl.alignment import AlignmentObjective

        return AlignmentObjective(data, self.training.batch_size, model.reads)

    def keep(self, model: Any) -> Any:
        return model.backbone


def create_alignment(ctrl: Ctrl, backbone: Any, data: Any, stages: Mapping[str, Any]) -> Any:
    """The alignment model around a backbone. `stages` are those of the texts."""
    from tfctr.frameworks.ctrl.alignment import Alignment
    from tfctr.frameworks.ctrl.joint_alignment import JointAlignment
    from tfctr.language.create import create_encoder

    # The encoder must be deterministic, see `Alignment`.
    encoder = create_encoder(
        ctrl.text, encoder_of(stages), ctrl.pretrained, ctrl.trained_layers, dropout=0.0
    )
    make = Alignment if ctrl.clicks is None else partial(JointAlignment, clicks=ctrl.clicks)
    model = make(
        backbone,
        encoder,
        {name: text.max_tokens for name, text in ctrl.text.texts.items()},
        stages["texts"].manifest()["special_tokens"]["pad"],
        ctrl.num_subspaces,
        ctrl.projection_dim,
        ctrl.subspace_dim,
        ctrl.temperature,
        ctrl.rows_at_a_time,
        ctrl.rows_at_a_time,
    )
    if not encoder.trainable_variables:
        model.remember(data)
    return model
