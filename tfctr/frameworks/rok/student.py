"""A backbone that carries a knowledge base (ROK, arXiv:2404.18304)."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfctr.backbones.backbone import Backbone
from tfctr.click_model import ClickModel
from tfctr.frameworks.rok.knowledge_base import KnowledgeBase
from tfctr.schema import Sequence as TokenSequence

USES = ("instance", "feature")


@keras.saving.register_keras_serializable("tfctr")
class RokStudent(ClickModel):
    """Any backbone, with what retrieval would have said of the row.

    - feature-wise: each field's vector is `e_i + W_i k_i`, `k_i` its vector in the knowledge base:
      `[e_i ; k_i]` brought back to the backbone's width, so that its cost stays as it was.
    - instance-wise: the last layer sees `[q ; r̂]`, `q` the backbone's representation, `r̂` what the
      knowledge base makes of the row.

    `embed` gives `[e_i ; k_i]`, zeros in the place of `k_i` where the knowledge base has no such
    field: `[B, F, D + R]`. `represent` gives `[q ; r̂]`, or `q`.

    Args:
        backbone: one not trained yet.
        knowledge: a knowledge base; its fields are among the backbone's.
        use: of `"instance"` and `"feature"` at least one. Defaults to both.
        tuned: bool. Whether the knowledge base learns on, or stays as it is. Defaults to False.

    Raises:
        ValueError: no such use; the backbone lacks a field of the knowledge base.
    """

    def __init__(
        self,
        backbone: Backbone,
        knowledge: KnowledgeBase,
        use: Sequence[str] = USES,
        tuned: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone.schema, **kwargs)
        if not use or not {*use} <= {*USES}:
            raise ValueError(f"use: found {list(use)}; allowed: {', '.join(USES)}")
        lacking = [f.name for f in knowledge.schema.inputs if f.name not in backbone.reads]
        if lacking:
            raise ValueError(
                f"the knowledge base reads {', '.join(lacking)}, which the backbone does not"
            )
        self.backbone = backbone
        self.knowledge = knowledge
        self.use = tuple(use)
        self.tuned = tuned
        self.knowledge.trainable = tuned
        self.embeds_fields_apart = backbone.embeds_fields_apart
        self.known = [feature.name for feature in knowledge.schema.inputs]
        if "feature" in use:
            self.to_field = keras.layers.EinsumDense(
                "bfr,frd->bfd", (len(self.known), backbone.field_dim), name="to_field"
            )
        if "instance" in use:
            self.of_knowledge = keras.layers.Dense(
                1, use_bias=False, dtype="float32", name="of_knowledge"
            )

    def build(self, input_shape: Any = None) -> None:
        for part in (self.backbone, self.knowledge):  # whose steps are called, never themselves
            part.build()
        super().build(input_shape)

    @property
    def head(self) -> Any:
        return self.backbone.head

    def embed(self, features: Mapping[str, Any], names: Sequence[str] | None = None) -> Any:
        fields = self.backbone.embed(features, names=names)
        known = [name for name in self.known if names is None or name in names]
        if known:
            vectors = self.knowledge.decompose(features, names=known)
            vectors = ops.cast(_placed(vectors, known, self._places(fields, names)), fields.dtype)
        else:
            vectors = ops.zeros_like(fields[:, :, :1]) * ops.zeros(self.knowledge.embedding_dim)
        return ops.concatenate([fields, vectors], axis=2)

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        width, places = self.backbone.field_dim, self._places(embeddings)
        fields = embeddings[:, :, :width]
        vectors = _placed(embeddings[:, :, width:], places, self.known)
        if "feature" in self.use:
            fields = fields + _placed(self.to_field(vectors), self.known, places)
        representation = self.backbone.represent(fields, training=training)
        if "instance" not in self.use:
            return representation
        found = self.knowledge.reconstruct(vectors, training=training and self.tuned)
        found = ops.reshape(found, (-1, self._size))
        return ops.concatenate([representation, ops.cast(found, representation.dtype)], axis=1)

    def predict_logits(self, representation: Any) -> Any:
        if "instance" not in self.use:
            return self.backbone.predict_logits(representation)
        of_backbone, found = representation[:, : -self._size], representation[:, -self._size :]
        logits = self.backbone.predict_logits(of_backbone)
        return logits + ops.squeeze(self.of_knowledge(found), axis=-1)

    @property
    def _size(self) -> int:
        return self.knowledge.num_vectors * self.knowledge.vector_dim

    def _places(self, fields: Any, names: Sequence[str] | None = None) -> list[str]:
        """Which field stands at each place of the backbone's `embed`; none at the last ones, maybe:
        there stands what a backbone makes of a history."""
        found = [f for f in self.schema.inputs if names is None or f.name in names]
        if not self.embeds_fields_apart:
            found = [f for f in found if not isinstance(f, TokenSequence)]
        return [f.name for f in found] + [""] * (fields.shape[1] - len(found))

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "knowledge": keras.saving.serialize_keras_object(self.knowledge),
            "use": list(self.use),
            "tuned": self.tuned,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "RokStudent":
        parts = ("backbone", "knowledge")
        made = {name: keras.saving.deserialize_keras_object(config[name]) for name in parts}
        return cls(**config | made)


def _placed(vectors: Any, names: Sequence[str], places: Sequence[str]) -> Any:
    """Vectors `[B, n, d]` of these names at these places; zeros where there is none."""
    if [*names] == [*places]:
        return vectors
    if not {*places} <= {*names}:
        vectors = ops.pad(vectors, ((0, 0), (0, 1), (0, 0)))
    order = [names.index(name) if name in names else len(names) for name in places]
    return ops.take(vectors, order, axis=1)
