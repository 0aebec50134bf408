"""What CTRL builds before its student: a backbone that is aligned with texts."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from rich.console import Console

from tfctr.config import digest
from tfctr.frameworks.ctrl.config import Ctrl
from tfctr.stages import Run, TrainingStage
from tfctr.stages.texts import encoder_of


class Align(TrainingStage):
    """`pretrained.keras`, a backbone. Runs that differ in their students alone share it: the folder
    is `<work>/<the text's name>-ctrl-<key>`."""

    name = "train"

    def __init__(self, config: Ctrl, texts: Mapping[str, Any], run: Run) -> None:
        assert config.pretraining is not None
        self.config = config
        self.training = config.pretraining
        self.model = run.config.model
        self.texts = texts
        self.reads = tuple(texts.values())
        self.folder = run.work / f"{config.text.name}-ctrl-{self.key()}"
        self.path = self.folder / "pretrained.keras"

    @property
    def made_from(self) -> Any:
        return [digest(self.config, without=["text"]), digest(self.model)]

    def make(self, console: Console) -> None:
        from tfctr.data.dataset import Dataset
        from tfctr.frameworks.ctrl.alignment import Aligning

        self.config.import_models()

        texts = self.texts["texts"]
        data = Dataset.open(texts.dataset.path, [texts.path])
        console.print(f"[bold]pretrain[/] {self.model.backbone} -> {self.path}", soft_wrap=True)
        self.train(
            lambda: create_alignment(self.config, self.model.create(data.schema), data, self.texts),
            data,
            {"framework": self.config.model_dump(mode="json", exclude={"text"})},
            console,
            save=lambda model, path: model.backbone.save(path),
            objective=lambda model: Aligning(data, self.training.batch_size, model.reads),
        )

    def load(self) -> Any:
        import keras

        return keras.models.load_model(self.path, compile=False)


def create_alignment(ctrl: Ctrl, backbone: Any, data: Any, stages: Mapping[str, Any]) -> Any:
    """CTRL's first stage, or its only one, around a backbone. `stages` are those of the texts."""
    from tfctr.frameworks.ctrl.alignment import Alignment
    from tfctr.frameworks.ctrl.joint_alignment import JointAlignment
    from tfctr.language.create import create_encoder

    # The encoder must give the same vectors twice, see `Alignment`.
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
