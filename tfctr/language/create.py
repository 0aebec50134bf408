"""Creates the encoders of text configs for training."""

from typing import Any

import numpy as np

from tfctr.language.config import MASK_RATE, TextConfig
from tfctr.language.masked_lm import MaskedLM
from tfctr.language.pretrained import load_encoder, refuse_longer_text
from tfctr.language.prompted_encoder import PromptedEncoder
from tfctr.schema import Schema


def create_encoder(
    text: TextConfig,
    where: str,
    pretrained: bool,
    trained_layers: int | None = None,
    **settings: Any,
) -> PromptedEncoder:
    """The encoder of a text config.

    Args:
        text: of the texts that it reads.
        where: its preset or folder.
        pretrained: bool. Whether to load its weights; else they are random.
        trained_layers: int. Number of last layers that are trained. Defaults to all.
        **settings: of keras-hub's encoder, instead of the saved ones.

    Raises:
        ConfigError: a text may be longer than the encoder allows.
    """
    encoder = load_encoder(where, pretrained, **settings)
    _refuse_longer_texts(text, encoder)
    return PromptedEncoder(encoder, trained_layers, name="encoder")


def create_masked_lm(
    task: Any, text: TextConfig, schema: Schema, described: dict[str, Any]
) -> MaskedLM:
    """The masked-LM training model of a `keras_hub.models.BertMaskedLM`. `described` is the
    manifest of the texts."""
    _refuse_longer_texts(text, task.backbone)
    return MaskedLM(
        schema,
        PromptedEncoder(task.backbone),
        task.masked_lm_head,
        {name: template.max_tokens for name, template in text.texts.items()},
        described["special_tokens"],
        used_tokens(described),
        MASK_RATE,
    )


def used_tokens(described: dict[str, Any]) -> np.ndarray:
    """The tokens of the training rows' texts, int `[V']` ascending, without special ones."""
    texts = described["splits"]["train"]["texts"].values()
    used = {token for text in texts for token in text["used_tokens"]}
    return np.array(sorted(used - {*described["special_tokens"].values()}))


def _refuse_longer_texts(text: TextConfig, encoder: Any) -> None:
    for name in text.texts:
        refuse_longer_text(text, name, encoder)
