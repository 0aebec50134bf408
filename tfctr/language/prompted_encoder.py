"""A pretrained encoder with prompts (prefix tuning; Li and Liang, 2021, arXiv:2101.00190)."""

from typing import Any

import keras
from keras import ops

from tfctr.language.libraries import keras_hub


@keras.saving.register_keras_serializable("tfctr")
class PromptedEncoder(keras.layers.Layer):
    """A BERT or RoBERTa encoder, run layer by layer with its own weights.

    In the attention of every layer, keys and values of `K` prompts precede those of the text.
    Prompts have no queries and no positions, so texts keep their positions. Without prompts the
    output is the encoder's.

    Args:
        encoder: `keras_hub.models.BertBackbone` or `RobertaBackbone`. It is shared, not copied.
        trained_layers: int or None. Number of last layers that are trained; 0: none of the
            encoder; None: all, with the token embeddings. Defaults to None.
    """

    def __init__(self, encoder: Any, trained_layers: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoder = encoder
        self.trained_layers = trained_layers
        if trained_layers is not None:
            first = len(encoder.transformer_layers) - trained_layers
            if first < 0:
                raise ValueError(
                    f"`trained_layers` should be at most {len(encoder.transformer_layers)}, the "
                    f"encoder's layers. Received: {trained_layers}"
                )
            for layer in encoder.layers:
                layer.trainable = layer in encoder.transformer_layers[first:]

    @property
    def num_layers(self) -> int:
        return len(self.encoder.transformer_layers)

    @property
    def num_heads(self) -> int:
        return self.encoder.num_heads

    @property
    def width(self) -> int:
        """`H`."""
        return self.encoder.hidden_dim

    def build(self, input_shape: Any = None) -> None:
        self.built = True  # the encoder was built when it was created

    def call(
        self,
        token_ids: Any,
        exists: Any,
        prefixes: Any = None,
        prompts: Any = None,
        training: bool = False,
    ) -> Any:
        """The last layer's vectors `[B, T, H]` of the tokens; zeros after the end of the longest
        text, where nothing is computed.

        Args:
            token_ids: int `[B, T]`.
            exists: bool `[B, T]`, false at padding, which is after the text.
            prefixes: `[B, L, 2, K, heads, H / heads]`: keys and values for each of `L` layers; or
                None.
            prompts: `[B, K, H]`, vectors that precede the tokens' in the first layer and are
                processed like tokens; or None.
        """
        size = ops.shape(token_ids)[1]
        longest = ops.max(ops.sum(ops.cast(exists, "int32"), axis=1))
        longest = ops.clip(longest, ops.minimum(2, size), size)  # Keras warns of a softmax over one
        token_ids, exists = token_ids[:, :longest], exists[:, :longest]
        x = self._embed(token_ids, training)
        num_prompts = 0
        if prompts is not None:
            num_prompts = prompts.shape[1]
            x = ops.concatenate([ops.cast(prompts, x.dtype), x], axis=1)
            exists = _with_prompts(exists, num_prompts)
        for i, layer in enumerate(self.encoder.transformer_layers):
            prefix = None if prefixes is None else prefixes[:, i]
            x = self._layer(layer, x, exists, prefix, training)
        return ops.pad(x[:, num_prompts:], ((0, 0), (0, size - longest), (0, 0)))

    def _embed(self, token_ids: Any, training: bool) -> Any:
        encoder = self.encoder
        if isinstance(encoder, keras_hub.models.BertBackbone):
            tokens = encoder.token_embedding(token_ids)
            segments = encoder.segment_embedding(ops.zeros_like(token_ids))
            x = tokens + encoder.position_embedding(tokens) + segments
        else:
            x = encoder.embeddings(token_ids)
        return encoder.embeddings_dropout(encoder.embeddings_layer_norm(x), training=training)

    def _layer(self, layer: Any, x: Any, exists: Any, prefix: Any, training: bool) -> Any:
        """`TransformerEncoder.call` of keras-hub, with a prefix."""
        attended = _attend(layer._self_attention_layer, x, exists, prefix, training)
        attended = layer._self_attention_dropout(attended, training=training)
        x = layer._self_attention_layer_norm(x + attended)
        inner = layer._feedforward_output_dense(layer._feedforward_intermediate_dense(x))
        inner = layer._feedforward_dropout(inner, training=training)
        return layer._feedforward_layer_norm(x + inner)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "trained_layers": self.trained_layers,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PromptedEncoder":
        return cls(keras.saving.deserialize_keras_object(config.pop("encoder")), **config)


def mean_pool(vectors: Any, exists: Any) -> Any:
    """The mean `[B, H]` of the vectors `[B, T, H]` of the tokens that exist, bool `[B, T]`."""
    weights = ops.cast(ops.expand_dims(exists, 2), vectors.dtype)
    return ops.sum(vectors * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1)


def _attend(attention: Any, x: Any, exists: Any, prefix: Any, training: bool) -> Any:
    """Self-attention `[B, T, H]` of a `keras.layers.MultiHeadAttention`, with a prefix.

    Args:
        x: `[B, T, H]`.
        exists: bool `[B, T]`.
        prefix: `[B, 2, K, heads, H / heads]` or None.
    """
    query = attention.query_dense(x)
    key, value = attention.key_dense(x), attention.value_dense(x)
    if prefix is not None:
        prefix = ops.cast(prefix, key.dtype)
        key = ops.concatenate([prefix[:, 0], key], axis=1)
        value = ops.concatenate([prefix[:, 1], value], axis=1)
        exists = _with_prompts(exists, prefix.shape[2])
    scores = ops.einsum("bthd,bshd->bhts", query, key) / query.shape[-1] ** 0.5
    scores = ops.where(exists[:, None, None, :], scores, -3e4)  # within float16
    weights = ops.softmax(scores, axis=-1)
    weights = attention._dropout_layer(weights, training=training)
    return attention.output_dense(ops.einsum("bhts,bshd->bthd", weights, value))


def _with_prompts(exists: Any, num_prompts: int) -> Any:
    return ops.pad(exists, ((0, 0), (num_prompts, 0)), constant_values=True)
