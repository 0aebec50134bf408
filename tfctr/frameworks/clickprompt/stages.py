"""The stage before ClickPrompt's student: pre-training of the backbone with its encoder."""

from collections.abc import Mapping
from typing import Any

from tfctr.frameworks.clickprompt.config import ClickPrompt
from tfctr.stages.texts import TextPretraining, encoder_of


class PromptedPretraining(TextPretraining):
    """A backbone with its encoder and its prompt generator."""

    of_student = ("serves_language_model",)

    def create(self, data: Any) -> Any:
        return create_prompted_masked_lm(self.config, self.model.create(data.schema), self.texts)

    def objective(self, data: Any, model: Any) -> Any:
        from tfctr.training.masked_words import MaskedWordsObjective

        return MaskedWordsObjective(data, model.reads)

    def keep(self, model: Any) -> Any:
        return as_student(model)


def create_prompted_masked_lm(config: ClickPrompt, backbone: Any, stages: Mapping[str, Any]) -> Any:
    """The pre-training model around a backbone. `stages` are those of the texts."""
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
    """The student that keeps the language model, a preset or folder `where`."""
    from tfctr.frameworks.clickprompt.student import ClickPromptStudent
    from tfctr.language.create import create_encoder

    encoder = create_encoder(config.text, where, config.pretrained)
    name, template = next(iter(config.text.texts.items()))
    generator = _create_generator(config, encoder)
    return ClickPromptStudent(backbone, encoder, generator, name, template.max_tokens, pad_id)


def as_student(model: Any) -> Any:
    """The pre-trained model without the head of masked words."""
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
