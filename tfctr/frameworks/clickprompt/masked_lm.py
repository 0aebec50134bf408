"""Prompt-augmented masked language modelling (ClickPrompt, arXiv:2310.09234)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfctr.backbones.backbone import Backbone
from tfctr.frameworks.clickprompt.prompt_generator import PromptGenerator
from tfctr.language.masked_lm import MaskedLM
from tfctr.language.prompted_encoder import PromptedEncoder


class PromptedMaskedLM(MaskedLM):
    """Trains a backbone, a prompt generator and an encoder to predict masked words of texts.

    The encoder reads a row's masked text and prompts generated from the backbone's representation
    of the row. The ids are never masked, so the backbone learns what they say about the text.

    Args:
        backbone: trained in place.
        encoder: trained in place.
        generator: of prompts. None: no prompts, and the backbone is not trained.
        head, special, candidates, mask_rate: as for `MaskedLM`.
        text: name of the row's text.
        max_tokens: int. `T`.
    """

    def __init__(
        self,
        backbone: Backbone,
        encoder: PromptedEncoder,
        generator: PromptGenerator | None,
        head: Any,
        text: str,
        max_tokens: int,
        special: Mapping[str, int],
        candidates: np.ndarray,
        mask_rate: float,
        **kwargs: Any,
    ) -> None:
        texts = {text: max_tokens}
        super().__init__(
            backbone.schema, encoder, head, texts, special, candidates, mask_rate, **kwargs
        )
        self.backbone = backbone
        self.generator = generator
        self.text = text
        self.max_tokens = max_tokens

    def build(self, input_shape: Any = None) -> None:
        self.backbone.build()  # only its steps are called, never the model itself
        # Here all layers exist: some are created when others are built.
        self.backbone.trainable = self.generator is not None
        self.backbone.head.trainable = False  # the head of clicks, which are not learned here
        super().build(input_shape)

    @property
    def reads(self) -> tuple[str, ...]:
        return (*self.backbone.reads, *super().reads)

    @property
    def encoder_variables(self) -> list[Any]:
        return [*self.encoder.trainable_variables, *self.lm_head.trainable_variables]

    def prompts(self, features: Mapping[str, Any], training: bool) -> dict[str, Any]:
        if self.generator is None:
            return {}
        fields = self.backbone.embed(features)
        return self.generator.prompt(self.backbone.represent(fields, training=training))
