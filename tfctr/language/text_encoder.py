"""Vectors of texts, by any pretrained language model."""

from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from tfctr.language.pretrained import SEGMENTS
from tfctr.language.prompted_encoder import mean_pool

TEXTS_AT_A_TIME = 64


class TextEncoder:
    """A text's vector is the mean of a model's last layer over the text's tokens.

    The start and the end token count, padding does not.

    Args:
        backbone: of `tfctr.language.pretrained.load_text_backbone`.

    Examples:
        >>> encoder = TextEncoder(load_text_backbone("gpt2"))  # doctest: +SKIP
        >>> encoder.encode(texts.tokens, texts.lengths)  # doctest: +SKIP
    """

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone
        specs = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)]
        self._mean = tf.function(self._mean_of_last_layer, input_signature=specs, autograph=False)

    def encode(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Vectors float32 `[N, H]`.

        Args:
            tokens: int `[N, T]`; any number after a text's end.
            lengths: int `[N]`, of the texts in tokens; those that are longer than `T` were cut.
        """
        tokens = tokens.astype(np.int32)
        lengths = np.minimum(lengths, tokens.shape[1]).astype(np.int32)
        # A batch is computed up to the end of its longest text.
        order = np.argsort(lengths, kind="stable")
        parts = []
        for start in range(0, len(order), TEXTS_AT_A_TIME):
            rows = order[start : start + TEXTS_AT_A_TIME]
            longest = lengths[rows[-1]]
            parts.append(np.asarray(self._mean(tokens[rows, :longest], lengths[rows])))
        found: np.ndarray = np.concatenate(parts)
        return found[np.argsort(order)]

    def _mean_of_last_layer(self, tokens: Any, lengths: Any) -> Any:
        exists = ops.arange(ops.shape(tokens)[1]) < ops.expand_dims(lengths, 1)
        inputs = {"token_ids": tokens, "padding_mask": exists, SEGMENTS: ops.zeros_like(tokens)}
        found = self.backbone({name: inputs[name] for name in self.backbone.input}, training=False)
        vectors = found["sequence_output"] if isinstance(found, dict) else found
        return mean_pool(ops.cast(vectors, "float32"), exists)
