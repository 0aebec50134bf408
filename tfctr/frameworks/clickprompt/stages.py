"""What ClickPrompt builds before its student: a backbone that writes prompts, with its encoder."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from tfctr.config import digest
from tfctr.frameworks.clickprompt.config import ClickPrompt
from tfctr.stages import Run, TrainingStage
from tfctr.stages.texts import encoder_of


class PromptedPretraining(TrainingStage):
    """`pretrained.keras`, a backbone with its encoder and what writes the prompts. Runs that differ
    in their students alone share it: the folder is `<work>/<the text's name>-clickprompt-<key>`."""

    name = "train"

    def __init__(self, config: ClickPrompt, texts: Mapping[str, Any], run: Run) -> None:
        assert config.pretraining is not None
        self.config = config
        self.training = config.pretraining
        self.model = run.config.model
        self.texts = texts
        self.reads = tuple(texts.values())
        self.folder = run.work / f"{config.text.name}-clickprompt-{self.key()}"
        self.path = self.folder / "pretrained.keras"

    @property
    def made_from(self) -> Any:
        # Whether the student serves the language model is the student's.
        own = digest(self.config, without=["text", "serves_language_model"])
        return [own, digest(self.model)]

    def make(self, console: Console) -> None:
        from tfctr.data.dataset import Dataset
        from tfctr.language.masked_lm import GuessingWords

        self.config.import_models()

        texts = self.texts["texts"]
        data = Dataset.open(texts.dataset.path, [texts.path])
        console.print(f"[bold]pretrain[/] {self.model.backbone} -> {self.path}", soft_wrap=True)
        self.train(
            lambda: create_prompted_masked_lm(
                self.config, self.model.create(data.schema), self.texts
            ),
            data,
            {"framework": self.config.model_dump(mode="json", exclude={"text"})},
            console,
            save=lambda model, path: as_student(model).save(path),
            objective=lambda model: GuessingWords(data, model.reads),
        )

    def load(self) -> Any:
        import keras

        import tfctr.frameworks.clickprompt.student  # noqa: F401

        return keras.models.load_model(self.path, compile=False)


def create_prompted_masked_lm(config: ClickPrompt, backbone: Any, stages: Mapping[str, Any]) -> Any:
    """ClickPrompt's first stage around a backbone. `stages` are those of the texts."""
    from tfctr.frameworks.clickprompt.masked_lm import PromptedMaskedLM
    from tfctr.language.create import create_encoder, used_tokens
    from tfctr.language.pretrained import load_masked_lm_head

    where, described = encoder_of(stages), stages["texts"].manifest()
    encoder = create_encoder(config.text, where, config.pretrained)
    name, template = next(iter(config.text.texts.items()))
    return PromptedMaskedLM(
        backbone,
        encoder,
        _create_generator(config, encoder),
        load_masked_lm_head(where if config.pretrained else None, encoder.encoder),
        name,
        template.max_tokens,
        described["special_tokens"],
        used_tokens(described),
        config.mask_rate,
    )


def create_student(config: ClickPrompt, backbone: Any, where: str, pad_id: int) -> Any:
    """The student that keeps the language model, which lies at `where`."""
    from tfctr.frameworks.clickprompt.student import ClickPromptStudent
    from tfctr.language.create import create_encoder

    encoder = create_encoder(config.text, where, config.pretrained)
    name, template = next(iter(config.text.texts.items()))
    generator = _create_generator(config, encoder)
    return ClickPromptStudent(backbone, encoder, generator, name, template.max_tokens, pad_id)


def as_student(model: Any) -> Any:
    """What is kept of the first stage: all but the head that guesses."""
    from tfctr.frameworks.clickprompt.student import ClickPromptStudent

    model.backbone.trainable = True
    student = ClickPromptStudent(
        model.backbone,
        model.encoder,
        model.generator,
        model.text,
        model.max_tokens,
        model.special["pad"],
    )
    student.build()
    return student


def _create_generator(config: ClickPrompt, encoder: Any) -> Any:
    from tfctr.frameworks.clickprompt.prompt_generator import PromptGenerator

    if config.prompts == "none":
        return None
    return PromptGenerator(
        config.num_prompts,
        encoder.num_layers,
        encoder.num_heads,
        encoder.width,
        config.prompts,
        name="generator",
    )
