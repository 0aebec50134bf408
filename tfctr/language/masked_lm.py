"""Masked language modelling of rows' texts (Devlin et al., 2019, arXiv:1810.04805)."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tfctr.language.config import text_fields
from tfctr.language.masking import mask_tokens
from tfctr.language.prompted_encoder import PromptedEncoder
from tfctr.models.schema_model import SchemaModel
from tfctr.schema import Schema


class MaskedLM(SchemaModel):
    """Trains an encoder to predict masked tokens of rows' texts.

    A share of each text's tokens is masked (`mask_tokens`); the encoder reads the masked text, and
    a head predicts the masked tokens. No label is read.

    Args:
        schema: of the dataset.
        encoder: trained in place.
        head: `keras_hub.layers.MaskedLMHead` on the encoder's token table.
        texts: names of the row's texts, and their numbers of tokens.
        special: ids of the tokens `pad`, `start`, `end` and `mask`.
        candidates: int `[V']`, ascending: the tokens of the softmax, which are those of the
            dataset's texts.
        mask_rate: float. Share of a text's tokens.
    """

    def __init__(
        self,
        schema: Schema,
        encoder: PromptedEncoder,
        head: Any,
        texts: Mapping[str, int],
        special: Mapping[str, int],
        candidates: np.ndarray,
        mask_rate: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, **kwargs)
        self.encoder = encoder
        self.lm_head = head
        self.texts = dict(texts)
        self.special = dict(special)
        self.candidates = np.asarray(candidates, np.int32)
        # The place of each token among the candidates; 0 for tokens that are none.
        self._places = np.zeros(encoder.encoder.vocabulary_size, np.int32)
        self._places[self.candidates] = np.arange(len(self.candidates))
        self.mask_rate = mask_rate
        self.seeds = keras.random.SeedGenerator()

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(text_fields(text)[0] for text in self.texts)

    def prompts(self, features: Mapping[str, Any], training: bool) -> dict[str, Any]:
        """Additional inputs of the encoder: arguments of its call."""
        return {}

    def call(self, features: Mapping[str, Any], training: bool = False) -> Any:
        """Log likelihoods of masked tokens `[B, P]`, and bool `[B, P]`, false at padding.

        Outside of training the masked tokens of a batch are always the same.
        """
        prompts = self.prompts(features, training)
        found = [
            self._likelihoods(features[text_fields(text)[0]], prompts, training)
            for text in self.texts
        ]
        likelihoods, chosen = zip(*found, strict=True)
        return ops.concatenate(likelihoods, axis=1), ops.concatenate(chosen, axis=1)

    def _likelihoods(self, tokens: Any, prompts: dict[str, Any], training: bool) -> Any:
        tokens = ops.cast(tokens, "int32")
        seed = self.seeds if training else 0
        hidden, places, chosen = mask_tokens(
            tokens, self.special, self.candidates, self.mask_rate, seed
        )
        exists = ops.not_equal(tokens, self.special["pad"])
        vectors = self.encoder(hidden, exists, **prompts, training=training)
        logits = self._head_logits(ops.take_along_axis(vectors, places[:, :, None], axis=1))
        own = ops.take_along_axis(tokens, places, axis=1)
        targets = ops.take(self._places, own, axis=0)
        found = ops.take_along_axis(logits, targets[:, :, None], axis=2)[:, :, 0]
        return found - ops.logsumexp(logits, axis=2), chosen

    def _head_logits(self, vectors: Any) -> Any:
        """The head's logits `[B, P, V']` of vectors `[B, P, H]`, for the candidates only."""
        head = self.lm_head
        x = head._intermediate_layer_norm(head._intermediate_dense(vectors))
        table = ops.take(self.encoder.encoder.token_embedding.embeddings, self.candidates, axis=0)
        bias = ops.take(head._bias, self.candidates, axis=0)
        return ops.matmul(x, ops.transpose(ops.cast(table, x.dtype))) + ops.cast(bias, x.dtype)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        likelihoods, chosen = y_pred
        weights = ops.cast(chosen, likelihoods.dtype)
        return -ops.sum(likelihoods * weights) / ops.maximum(ops.sum(weights), 1)

    def _empty_row(self) -> dict[str, np.ndarray]:
        return super()._empty_row() | {
            text_fields(text)[0]: np.full((1, size), self.special["pad"], "int64")
            for text, size in self.texts.items()
        }
