"""The models that CTRL and ClickPrompt train, as configs describe them."""

from functools import partial
from typing import Any

import numpy as np
from keras import ops

from tfctr.backbones.backbone import Backbone
from tfctr.config import ClickPrompt, ConfigError, Ctrl, RunConfig, TextConfig
from tfctr.frameworks.clickprompt import (
    ClickPromptStudent,
    PromptedMaskedLM,
    PromptGenerator,
)
from tfctr.frameworks.create import create_model
from tfctr.frameworks.ctrl import Alignment, JointAlignment
from tfctr.frameworks.transfer import start_from
from tfctr.language import load_encoder, load_masked_lm_head
from tfctr.language.masked_lm import MaskedLM
from tfctr.language.prompted_encoder import PromptedEncoder
from tfctr.schema import Schema


def create_alignment(
    config: RunConfig, ctrl: Ctrl, data: Any, described: dict[str, Any], where: str
) -> Alignment:
    """CTRL's first stage, or its only one. `described` is the manifest of the texts, `where` their
    encoder is."""
    # The encoder must give the same vectors twice, see `Alignment`.
    encoder = _encoder(ctrl.text, where, ctrl.pretrained, ctrl.trained_layers, dropout=0.0)
    make = Alignment if ctrl.clicks is None else partial(JointAlignment, clicks=ctrl.clicks)
    model = make(
        _backbone(config, data.schema),
        encoder,
        {name: text.max_tokens for name, text in ctrl.text.texts.items()},
        described["special_tokens"]["pad"],
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


def create_masked_lm(
    config: RunConfig,
    clickprompt: ClickPrompt,
    schema: Schema,
    described: dict[str, Any],
    where: str,
) -> PromptedMaskedLM:
    """ClickPrompt's first stage. `described` is the manifest of the texts, `where` their encoder
    is."""
    encoder = _encoder(clickprompt.text, where, clickprompt.pretrained)
    name, template = next(iter(clickprompt.text.texts.items()))
    return PromptedMaskedLM(
        _backbone(config, schema),
        encoder,
        _generator(clickprompt, encoder),
        load_masked_lm_head(where if clickprompt.pretrained else None, encoder.encoder),
        name,
        template.max_tokens,
        described["special_tokens"],
        _candidates(described),
        clickprompt.mask_rate,
    )


def create_plain_masked_lm(
    task: Any, text: TextConfig, schema: Schema, described: dict[str, Any]
) -> MaskedLM:
    """What trains the encoder and the head of a `keras_hub.models.BertMaskedLM`."""
    _refuse_longer_texts(text, task.backbone)
    return MaskedLM(
        schema,
        PromptedEncoder(task.backbone),
        task.masked_lm_head,
        {name: template.max_tokens for name, template in text.texts.items()},
        described["special_tokens"],
        _candidates(described),
    )


def as_student(model: PromptedMaskedLM) -> ClickPromptStudent:
    """What is kept of the first stage: all but the head that guesses."""
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


def create_student(
    config: RunConfig,
    clickprompt: ClickPrompt,
    schema: Schema,
    described: dict[str, Any],
    where: str,
) -> ClickPromptStudent:
    """The student that keeps the language model."""
    encoder = _encoder(clickprompt.text, where, clickprompt.pretrained)
    name, template = next(iter(clickprompt.text.texts.items()))
    return ClickPromptStudent(
        _backbone(config, schema),
        encoder,
        _generator(clickprompt, encoder),
        name,
        template.max_tokens,
        described["special_tokens"]["pad"],
    )


def continue_from(student: ClickPromptStudent, pretrained: ClickPromptStudent) -> None:
    """Gives a student what the first stage left; its heads stay new."""
    start_from(student.backbone, pretrained.backbone)
    for part in ("encoder", "generator"):
        own, theirs = getattr(student, part), getattr(pretrained, part)
        if own is not None:
            for weight, source in zip(own.weights, theirs.weights, strict=True):
                weight.assign(ops.convert_to_numpy(source))


def _backbone(config: RunConfig, schema: Schema) -> Backbone:
    backbone = create_model(config.model_copy(update={"framework": None}), schema)
    assert isinstance(backbone, Backbone)
    return backbone


def _generator(clickprompt: ClickPrompt, encoder: PromptedEncoder) -> PromptGenerator | None:
    if clickprompt.prompts == "none":
        return None
    return PromptGenerator(
        clickprompt.num_prompts,
        encoder.num_layers,
        encoder.num_heads,
        encoder.width,
        clickprompt.prompts,
        name="generator",
    )


def _candidates(described: dict[str, Any]) -> np.ndarray:
    """The tokens of the training rows' texts."""
    texts = described["splits"]["train"]["texts"].values()
    used = {token for text in texts for token in text["used_tokens"]}
    return np.array(sorted(used - {*described["special_tokens"].values()}))


def _encoder(
    text: TextConfig,
    where: str,
    pretrained: bool,
    trained_layers: int | None = None,
    **settings: Any,
) -> PromptedEncoder:
    encoder = load_encoder(where, pretrained, **settings)
    _refuse_longer_texts(text, encoder)
    return PromptedEncoder(encoder, trained_layers, name="encoder")


def _refuse_longer_texts(text: TextConfig, encoder: Any) -> None:
    most = encoder.max_sequence_length
    for name, template in text.texts.items():
        if template.max_tokens > most:
            raise ConfigError(
                f"texts.{name}.max_tokens: found {template.max_tokens}; the encoder reads at most "
                f"{most} tokens"
            )
