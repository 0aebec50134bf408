"""A backbone with an encoder of the user's events, which runs once per request (SRP4CTR)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
from keras import ops

from tfctr.frameworks.srp4ctr.querying_transformer import QueryingTransformer
from tfctr.frameworks.srp4ctr.sequence_encoder import Encoded, SequenceEncoder
from tfctr.layers.attending_block import AttendingBlock, attention_mask, by_heads
from tfctr.layers.flat_dense import FlatDense
from tfctr.models.click_model import ClickModel, for_each
from tfctr.models.student import Student, refuse_names
from tfctr.schema import Schema
from tfctr.schema import Sequence as TokenSequence

FROZEN = ("none", "embeddings", "all")
KEPT = ("fields", "interests", "model_key")  # tensors of `encode_user`, with those of the events
OF_EVENTS = ("event_keys", "event_values", "event_exists")


@keras.saving.register_keras_serializable("tfctr")
class Srp4ctrStudent(Student):
    """Any backbone, with two kinds of additional fields (SRP4CTR, arXiv:2407.19658).

    - Uni cross-attention: the candidate, as the next event, attends to the events in each of the
      encoder's layers, and to itself; events never attend to the candidate. Keys and values are the
      encoder's. The queries and the later layers are the candidate's own; they start as the
      encoder's (`start_from`). `ceil(d / D)` fields.
    - Querying transformer: attention of learned queries to the events; `num_queries` fields.

    Both kinds are zero at first, so the student starts with its backbone's output. The encoder's
    values are much larger than new embeddings, and would keep the backbone from learning these.

    `encode_user` computes the user's part once per request, for all candidates of `score`. A call
    is both, with one candidate per row.

    Args:
        schema: all features that backbone and encoder read.
        backbone: not built yet.
        encoder: its histories are features of the schema.
        cross_attention: bool.
        num_queries: int. 0: no querying transformer.
        num_query_blocks: int.
        frozen: the part of the encoder that is not trained: `"none"`, `"embeddings"`, `"all"`.
        refreshed: bool. Whether that part is exchanged for a later encoder's (`data_variables`).

    Raises:
        ValueError: another `frozen`; neither cross-attention nor queries; a feature has the
            name of a tensor of `encode_user`.
    """

    own_tensors = (*OF_EVENTS, "interests")

    def __init__(
        self,
        schema: Schema,
        backbone: ClickModel,
        encoder: SequenceEncoder,
        cross_attention: bool,
        num_queries: int,
        num_query_blocks: int,
        frozen: Literal["none", "embeddings", "all"],
        refreshed: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, schema, **kwargs)
        self.folds = True
        self.embeds_fields_apart = False  # a candidate attends to the events
        if frozen not in FROZEN:
            raise ValueError(f"frozen: found {frozen!r}; allowed: {', '.join(FROZEN)}")
        if not cross_attention and not num_queries:
            raise ValueError("num_queries: found 0, and no cross_attention: nothing is carried")
        refuse_names([feature.name for feature in schema], (*KEPT, *OF_EVENTS))
        self.encoder = encoder
        self.cross_attention = cross_attention
        self.num_queries = num_queries
        self.num_query_blocks = num_query_blocks
        self.frozen = frozen
        self.refreshed = refreshed
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
            self.of_interests = FlatDense(width, kernel_initializer="zeros", name="of_interests")
        shared = backbone.schema.side("user", "context")
        self._about_candidate = {*encoder.behaviours.of_item.values()}
        self._about_user = [f.name for f in shared if not isinstance(f, TokenSequence)]

    def build_parts(self) -> None:
        super().build_parts()
        self.encoder.build()
        if self.frozen == "all":  # only now: blocks create some of their layers when they are built
            self.encoder.trainable = False
        elif self.frozen == "embeddings":
            self.encoder.tokens.trainable = False

    @property
    def encoder_variables(self) -> list[Any]:
        return [*super().encoder_variables, *self.encoder.trainable_variables]

    @property
    def data_variables(self) -> list[Any]:
        own = self._frozen_weights() if self.refreshed else []
        return [*super().data_variables, *own]

    def embed(
        self,
        features: Mapping[str, Any],
        names: Sequence[str] | None = None,
        training: bool = False,
    ) -> Any:
        """The backbone's fields, then those of the candidate and of the user's interests, as in a
        request with one candidate; with `names` only the backbone's fields."""
        if names is not None:
            return self.backbone.embed(features, names=names, training=training)
        user = self._of_user(features, training)
        fields = self.backbone.embed(features, training=training)
        items = {n: features[n][:, None] for n in self.reads_of_item if n in features}
        return self.add_fields(fields, self._further_fields(user, items, training))

    def encode_user(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """The part that is computed once per request, from the features of user and context.

        - `event_keys`, `event_values`: `[B, layers, heads, L, d / heads]`, and `event_exists`
          `[B, L]`, 1 or 0;
        - `interests`: `[B, num_queries, D]`;
        - the backbone's part: `fields`, or its features unchanged.
        """
        return super().encode_user(self._shared(features)) | self._of_user(features, training=False)

    def embed_candidates(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        fields = super().embed_candidates(user, items)
        return self.add_fields(fields, self._further_fields(user, items, training=False))

    def _shared(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """The features that all candidates share."""
        item = self.reads_of_item
        return {name: value for name, value in features.items() if name not in item}

    def _of_user(self, features: Mapping[str, Any], training: bool) -> dict[str, Any]:
        """This student's part of `encode_user`."""
        ids, exists = self.encoder.behaviours.latest_first(features)
        events = self.encoder.embed(ids, first_place=1, training=training)
        events_mask = attention_mask(exists)
        encoded = self.encoder(events, events_mask, training=training)
        if self.frozen == "all":  # TensorFlow would also compute the gradients of frozen parts
            encoded = Encoded(*keras.tree.map_structure(ops.stop_gradient, tuple(encoded)))
        user: dict[str, Any] = {}
        if self.cross_attention:
            keys, values = ops.stack(encoded.keys, axis=1), ops.stack(encoded.values, axis=1)
            kept = (keys, values, ops.cast(exists, "float32"))
            user |= dict(zip(OF_EVENTS, kept, strict=True))
        if self.queries is not None:
            fields = self.backbone.embed(self._shared(features), names=self._about_user)
            about = ops.reshape(fields, (-1, fields.shape[1] * fields.shape[2]))
            interests = self.queries(about, encoded.last, events_mask, training=training)
            user["interests"] = self.of_interests(interests)
        return user

    def _further_fields(
        self, user: Mapping[str, Any], items: Mapping[str, Any], training: bool
    ) -> Any:
        """The fields `[B * N, n, D]` of candidates that the student adds."""
        number = ops.shape(next(iter(items.values())))[1]
        further = []
        if self.cross_attention:
            found = self.of_candidate(self._cross_attend(user, items, training))
            shape = (-1, self.num_candidate_fields, self.backbone.field_dim)
            further.append(ops.reshape(found, shape))
        if self.queries is not None:
            further.append(for_each(user["interests"], number))
        return ops.concatenate(further, axis=1)

    def _cross_attend(
        self, user: Mapping[str, Any], items: Mapping[str, Any], training: bool
    ) -> Any:
        """Attention of the candidates to the events: `[B * N, d]`."""
        # No slices, because the gradient of a slice is a whole tensor padded with zeros.
        keys, values = (ops.unstack(user[name], axis=1) for name in OF_EVENTS[:2])
        events_mask = attention_mask(user[OF_EVENTS[2]])
        shape = ops.shape(next(iter(items.values())))[:2]
        about = {name: ops.reshape(items[name], (-1, 1)) for name in self._about_candidate}
        x = ops.reshape(self.encoder.candidates(about), (-1, self.encoder.dim))
        for i, block in enumerate(self.blocks):
            if not block.built:  # only now: the order of layers determines their initial weights
                block.build(x.shape)
            layers = (block.query, self.encoder.of_key[i], self.encoder.of_value[i])
            query, *own = by_heads(x, shape, self.encoder.num_heads, layers)
            x = block(x, query, keys[i], values[i], events_mask, own, training=training)
        return x

    def start_from(self, encoder: SequenceEncoder) -> None:
        """Copies the weights of a pre-trained encoder, also to the candidate's own blocks.

        Raises:
            ValueError: the encoder has another class or other arguments.
        """
        self.encoder.set_weights(self.encoder.as_own(encoder))
        for own, block in zip(self.blocks, encoder.blocks, strict=False):
            own.set_weights(block.get_weights())

    def exchange(self, encoder: SequenceEncoder) -> None:
        """Sets the frozen weights to those of a later encoder; the candidate's own blocks, which
        clicks have trained, stay as they are.

        Raises:
            ValueError: as for `start_from`.
        """
        later = zip(self.encoder.weights, self.encoder.as_own(encoder), strict=True)
        exchanged = {id(weight) for weight in self._frozen_weights()}
        for weight, values in later:
            if id(weight) in exchanged:
                weight.assign(values)

    def _frozen_weights(self) -> list[Any]:
        of = {"none": [], "embeddings": self.encoder.tokens.weights, "all": self.encoder.weights}
        return [*of[self.frozen]]
