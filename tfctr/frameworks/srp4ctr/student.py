"""A backbone with an encoder of the user's events that is paid once a request (SRP4CTR)."""

from collections.abc import Mapping
from typing import Any, Literal

import keras
from keras import ops

from tfctr.backbones.backbone import Backbone
from tfctr.click_model import ClickModel
from tfctr.frameworks.srp4ctr.querying_transformer import QueryingTransformer
from tfctr.frameworks.srp4ctr.sequence_encoder import Encoded, SequenceEncoder
from tfctr.layers.attending_block import AttendingBlock
from tfctr.schema import Schema
from tfctr.schema import Sequence as TokenSequence

FROZEN = ("none", "embeddings", "all")
KEPT = ("fields", "interests", "model_key")  # of a user, with those of the events
OF_EVENTS = ("event_keys", "event_values", "event_exists")


@keras.saving.register_keras_serializable("tfctr")
class Srp4ctrStudent(ClickModel):
    """Any backbone, with two further kinds of fields (SRP4CTR, arXiv:2407.19658).

    - Uni cross-attention: the candidate, as the event that would come next, looks at the events in
      each of the encoder's layers, and at itself; events never look at the candidate. Keys and
      values are the encoder's, the queries and all behind them the candidate's own, which start as
      the encoder's (`start_from`). `ceil(d / D)` fields.
    - Querying transformer: learned questions to the events; `num_queries` fields.

    Both kinds are zero at first: the student begins as its backbone. The encoder's values are many
    times larger than new embeddings; given to the backbone as they are, they keep these from being
    learned.

    What is of the user alone is computed once a request, `encode_user`, and is the same for all
    candidates, `score`. A call is the two, with one candidate a row.

    Args:
        schema: all features that backbone and encoder read.
        backbone: one not built yet.
        encoder: its histories are features of the schema.
        cross_attention: bool. Defaults to True.
        num_queries: int. 0: no querying transformer. Defaults to 4.
        num_query_blocks: int. Defaults to 1.
        frozen: what of the encoder is not trained: `"none"`, `"embeddings"`, `"all"`. Defaults to
            `"none"`.

    Raises:
        ValueError: another `frozen`; neither cross-attention nor queries; a feature of a name that
            `encode_user` needs.
    """

    folds = True
    embeds_fields_apart = False

    def __init__(
        self,
        schema: Schema,
        backbone: Backbone,
        encoder: SequenceEncoder,
        cross_attention: bool = True,
        num_queries: int = 4,
        num_query_blocks: int = 1,
        frozen: Literal["none", "embeddings", "all"] = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, **kwargs)
        if frozen not in FROZEN:
            raise ValueError(f"frozen: found {frozen!r}; allowed: {', '.join(FROZEN)}")
        if not cross_attention and not num_queries:
            raise ValueError("num_queries: found 0, and no cross_attention: nothing is carried")
        taken = [f.name for f in schema if f.name in (*KEPT, *OF_EVENTS)]
        if taken:
            raise ValueError(f"schema: the name {taken[0]!r} is taken by what is kept of a user")
        self.backbone = backbone
        self.encoder = encoder
        self.cross_attention = cross_attention
        self.num_queries = num_queries
        self.num_query_blocks = num_query_blocks
        self.frozen = frozen
        if frozen == "all":
            encoder.trainable = False
        elif frozen == "embeddings":
            encoder.tokens.trainable = False
        width = backbone.field_dim
        self.blocks = []
        if cross_attention:
            self.blocks = [
                AttendingBlock(encoder.num_heads, encoder.dropout, name=f"candidate_{i}")
                for i in range(encoder.num_layers)
            ]
            self.num_candidate_fields = -(-encoder.dim // width)
            self.of_candidate = keras.layers.Dense(
                self.num_candidate_fields * width, kernel_initializer="zeros", name="of_candidate"
            )
        self.queries = None
        if num_queries:
            self.queries = QueryingTransformer(
                num_queries,
                encoder.dim,
                encoder.num_heads,
                num_query_blocks,
                encoder.dropout,
                name="queries",
            )
            self.of_interests = keras.layers.Dense(
                width, kernel_initializer="zeros", name="of_interests"
            )
        shared = backbone.schema.side("user", "context")
        self._shared = [f.name for f in shared]
        self._about_user = [f.name for f in shared if not isinstance(f, TokenSequence)]

    def build(self, input_shape: Any = None) -> None:
        self.encoder.build()
        super().build(input_shape)
        self.backbone.built = True  # its steps were called, never itself

    @property
    def head(self) -> Any:
        return self.backbone.head

    @property
    def encoder_variables(self) -> list[Any]:
        return self.encoder.trainable_variables

    def encode_user(self, features: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """What is computed once a request, from the features of user and context.

        - `event_keys`, `event_values`: `[B, layers, L, d]`, and `event_exists` `[B, L]`, 1 or 0;
        - `interests`: `[B, num_queries, D]`;
        - what the backbone takes once: `fields`, or its features as they are.
        """
        ids, exists = self.encoder.behaviours.latest_first(features)
        events = self.encoder.embed(ids, first_place=1, training=training)
        encoded = self.encoder(events, exists, training=training)
        if self.frozen == "all":  # TensorFlow would go back to what is not trained as well
            encoded = Encoded(*keras.tree.map_structure(ops.stop_gradient, tuple(encoded)))
        of_backbone = {name: features[name] for name in self._shared}
        user = self.backbone.encode_user(of_backbone)
        if self.cross_attention:
            keys, values = ops.stack(encoded.keys, axis=1), ops.stack(encoded.values, axis=1)
            kept = (keys, values, ops.cast(exists, "float32"))
            user |= dict(zip(OF_EVENTS, kept, strict=True))
        if self.queries is not None:
            fields = self.backbone.embed(of_backbone, names=self._about_user)
            about = ops.reshape(fields, (-1, fields.shape[1] * fields.shape[2]))
            interests = self.queries(about, encoded.last, exists, training=training)
            user["interests"] = self.of_interests(interests)
        return user

    def score(
        self, user: Mapping[str, Any], items: Mapping[str, Any], training: bool = False
    ) -> Any:
        fields = [self.backbone.embed_candidates(*self._of_backbone(user, items))]
        batch, number = ops.shape(next(iter(items.values())))[:2]
        if self.cross_attention:
            seen = self.of_candidate(self._look(user, items, training))
            shape = (-1, self.num_candidate_fields, self.backbone.field_dim)
            fields.append(ops.reshape(seen, shape))
        if self.queries is not None:
            fields.append(ops.repeat(user["interests"], number, axis=0))
        together = ops.concatenate([ops.cast(f, fields[0].dtype) for f in fields], axis=1)
        logits = self.predict_logits(self.represent(together, training=training))
        return ops.reshape(logits, (batch, number))

    def call(self, features: Mapping[str, Any], training: bool = False) -> Any:
        items = {f.name: features[f.name][:, None] for f in self.schema.side("item")}
        user = self.encode_user(features, training=training)
        return self.score(user, items, training=training)[:, 0]

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        return self.backbone.represent(embeddings, training=training)

    def predict_logits(self, representation: Any) -> Any:
        return self.backbone.predict_logits(representation)

    def _of_backbone(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> tuple[Any, Any]:
        ours = {*OF_EVENTS, "interests"}
        names = {f.name for f in self.backbone.schema.side("item")}
        return (
            {name: value for name, value in user.items() if name not in ours},
            {name: value for name, value in items.items() if name in names},
        )

    def _look(self, user: Mapping[str, Any], items: Mapping[str, Any], training: bool) -> Any:
        """What candidates find in the events: `[B, N, d]`."""
        # Not slices: the gradient of a slice is a whole tensor of zeros around it.
        keys, values = (ops.unstack(user[name], axis=1) for name in OF_EVENTS[:2])
        exists = ops.cast(user[OF_EVENTS[2]], "bool")
        x = self.encoder.candidates(items)
        for i, block in enumerate(self.blocks):
            own = self.encoder.of_key[i](x), self.encoder.of_value[i](x)
            x = block(x, keys[i], values[i], exists, own, training=training)
        return x

    def start_from(self, encoder: SequenceEncoder) -> None:
        """Takes the weights of a pre-trained encoder; so do the candidate's own blocks.

        Raises:
            ValueError: the encoder is of another make.
        """
        shapes = [[w.shape for w in layer.weights] for layer in (encoder, self.encoder)]
        if encoder.parts != self.encoder.parts or shapes[0] != shapes[1]:
            raise ValueError("`encoder` should be of the student's encoder's make")
        self.encoder.set_weights(encoder.get_weights())
        for own, block in zip(self.blocks, encoder.blocks, strict=False):
            own.set_weights(block.get_weights())

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        parts = {
            name: keras.saving.serialize_keras_object(getattr(self, name))
            for name in ("backbone", "encoder")
        }
        return config | parts

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Srp4ctrStudent":
        made: dict[str, Any] = {"schema": Schema.model_validate(config["schema"])}
        for name in ("backbone", "encoder"):
            made[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config | made)
