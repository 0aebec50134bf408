"""A student that keeps its language model (ClickPrompt, arXiv:2310.09234)."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfctr.backbones.backbone import Backbone
from tfctr.frameworks.clickprompt.prompt_generator import PromptGenerator
from tfctr.language.config import text_fields
from tfctr.language.prompted_encoder import PromptedEncoder, mean_pool
from tfctr.models.click_model import ClickModel, candidate_rows
from tfctr.models.transfer import start_from
from tfctr.schema import Tokens


@keras.saving.register_keras_serializable("tfctr")
class ClickPromptStudent(ClickModel):
    """A backbone and the language model that reads its prompts: `α z_ctr + (1 - α) z_plm`.

    `z_plm`: two dense layers on the mean of the text's tokens. `α` is learned and starts at 0.5.

    Args:
        backbone: prompts are generated from its representation.
        encoder: of the text.
        generator: of prompts. None: no prompts.
        text: name of the row's text.
        max_tokens: int. `T`.
        pad_id: int. The encoder's padding token.
    """

    def __init__(
        self,
        backbone: Backbone,
        encoder: PromptedEncoder,
        generator: PromptGenerator | None,
        text: str,
        max_tokens: int,
        pad_id: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone.schema, **kwargs)
        self.backbone = backbone
        self.encoder = encoder
        self.generator = generator
        self.text = text
        self.max_tokens = max_tokens
        self.pad_id = pad_id
        self.embeds_fields_apart = False  # a candidate's text depends on all fields
        self.of_text = [
            keras.layers.Dense(encoder.width, activation="tanh", name="of_text"),
            keras.layers.Dense(1, dtype="float32", name="text_head"),
        ]
        half = keras.initializers.Constant(0.5)
        self.share = self.add_weight((), initializer=half, autocast=False, name="share")

    def build(self, input_shape: Any = None) -> None:
        self.backbone.build()  # only its steps are called, never the model itself
        super().build(input_shape)

    @property
    def reads(self) -> tuple[str, ...]:
        return (*super().reads, text_fields(self.text)[0])

    @property
    def of_requests(self) -> tuple[Any, ...]:
        tokens = Tokens(
            name=text_fields(self.text)[0],
            side="item",
            max_length=self.max_tokens,
            pad_id=self.pad_id,
        )
        return (tokens,)

    @property
    def encoder_variables(self) -> list[Any]:
        return self.encoder.trainable_variables

    @property
    def head(self) -> Any:
        raise AttributeError("its logits are a mix of two; no bias is a constant in all of them")

    def embed(
        self,
        features: Mapping[str, Any],
        names: Sequence[str] | None = None,
        training: bool = False,
    ) -> Any:
        return self.backbone.embed(features, names=names)

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        return self.backbone.represent(embeddings, training=training)

    def predict_logits(self, representation: Any) -> Any:
        """The backbone's logits only."""
        return self.backbone.predict_logits(representation)

    def call(self, features: Mapping[str, Any], training: bool = False) -> Any:
        represented = self.represent(self.embed(features), training=training)
        of_text = self.text_logits(represented, features[text_fields(self.text)[0]], training)
        return self.share * self.predict_logits(represented) + (1 - self.share) * of_text

    def score(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        """Scores whole rows, because the text depends on all fields."""
        logits = self(candidate_rows(user, items), training=False)
        return ops.reshape(logits, ops.shape(next(iter(items.values())))[:2])

    def start_from(self, pretrained: "ClickPromptStudent") -> None:
        """Copies the pre-trained weights; the heads stay new."""
        start_from(self.backbone, pretrained.backbone)
        for part in ("encoder", "generator"):
            own, theirs = getattr(self, part), getattr(pretrained, part)
            if own is not None:
                for weight, source in zip(own.weights, theirs.weights, strict=True):
                    weight.assign(ops.convert_to_numpy(source))

    def text_logits(self, representation: Any, tokens: Any, training: bool = False) -> Any:
        """Logits `[B]` of texts `[B, T]`, prompted by representations `[B, q]`."""
        exists = ops.not_equal(tokens, self.pad_id)
        prompts = self.generator.prompt(representation) if self.generator else {}
        x = mean_pool(self.encoder(tokens, exists, **prompts, training=training), exists)
        for layer in self.of_text:
            x = layer(x)
        return ops.cast(ops.squeeze(x, axis=1), "float32")

    def _empty_row(self) -> dict[str, np.ndarray]:
        tokens = np.full((1, self.max_tokens), self.pad_id, "int64")
        return super()._empty_row() | {text_fields(self.text)[0]: tokens}

    def get_config(self) -> dict[str, Any]:
        parts = {
            name: keras.saving.serialize_keras_object(getattr(self, name))
            for name in ("backbone", "encoder", "generator")
        }
        plain = {name: getattr(self, name) for name in ("text", "max_tokens", "pad_id")}
        return {"name": self.name} | parts | plain

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "ClickPromptStudent":
        parts = ("backbone", "encoder", "generator")
        made = {name: keras.saving.deserialize_keras_object(config[name]) for name in parts}
        return cls(**config | made)
