"""A backbone with a knowledge base (ROK, arXiv:2404.18304)."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfctr.frameworks.rok.knowledge_base import KnowledgeBase
from tfctr.models.click_model import ClickModel, candidate_rows
from tfctr.models.student import Student

USES = ("instance", "feature")
OF_USER = "known_fields"  # the knowledge base's part of `encode_user`


@keras.saving.register_keras_serializable("tfctr")
class RokStudent(Student):
    """Any backbone, with a knowledge base that predicts the result of retrieval.

    - feature-wise: each field's vector is `e_i + W_i k_i`, where `k_i` is its vector in the
      knowledge base: `[e_i ; k_i]` projected to the backbone's width, so that the backbone costs
      the same.
    - instance-wise: the last layer reads `[q ; r̂]`: the backbone's representation and the
      predicted hint. `r̂ = W h + b` is a linear function of the knowledge base's last layer `h`,
      and the logit one of `r̂`. So `r̂` itself is never computed: the logit reads `h`, by the
      product of both weights.

    `embed` returns `[e_i ; k_i]`, with zeros for `k_i` if the knowledge base has no such field:
    `[B, F, D + R]`. `represent` returns `[q ; h]`, or `q`.

    Args:
        backbone: an untrained backbone or student.
        knowledge: a knowledge base; its fields are among the backbone's.
        use: at least one of `"instance"` and `"feature"`.
        tuned: bool. Whether the knowledge base is trained further.

    Raises:
        ValueError: no such use; the backbone lacks a field of the knowledge base.
    """

    def __init__(
        self,
        backbone: ClickModel,
        knowledge: KnowledgeBase,
        use: Sequence[str],
        tuned: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if not use or not {*use} <= {*USES}:
            raise ValueError(f"use: found {list(use)}; allowed: {', '.join(USES)}")
        lacking = [f.name for f in knowledge.schema.inputs if f.name not in backbone.reads]
        if lacking:
            raise ValueError(
                f"the knowledge base reads {', '.join(lacking)}, which the backbone does not"
            )
        self.knowledge = knowledge
        self.use = tuple(use)
        self.tuned = tuned
        self.knowledge.trainable = tuned
        self.known = [feature.name for feature in knowledge.schema.inputs]
        if "feature" in use:
            self.to_field = keras.layers.EinsumDense(
                "bfr,frd->bfd", (len(self.known), backbone.field_dim), name="to_field"
            )
        if "instance" in use:
            self.of_knowledge = keras.layers.Dense(
                1, use_bias=False, dtype="float32", name="of_knowledge"
            )

    def build_parts(self) -> None:
        super().build_parts()
        self.knowledge.build()
        if "instance" in self.use:
            self.of_knowledge.build((None, self.knowledge.num_vectors * self.knowledge.vector_dim))

    def embed(
        self,
        features: Mapping[str, Any],
        names: Sequence[str] | None = None,
        training: bool = False,
    ) -> Any:
        fields = self.backbone.embed(features, names=names, training=training)
        known = [name for name in self.known if names is None or name in names]
        vectors = self.knowledge.decompose(features, names=known) if known else None
        return self._concatenate(fields, vectors, known, self._places(fields, names))

    def add_fields(self, embeddings: Any, fields: Any) -> Any:
        width = self.knowledge.embedding_dim
        inner = self.backbone.add_fields(embeddings[:, :, :-width], fields)
        added = inner.shape[1] - embeddings.shape[1]
        vectors = ops.pad(embeddings[:, :, -width:], ((0, 0), (0, added), (0, 0)))
        return ops.concatenate([inner, vectors], axis=2)

    def encode_user(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """The backbone's part, and `OF_USER` `[B, n, R]`."""
        user = super().encode_user(features)
        known = [name for name in self.known if name in features]
        return user | ({OF_USER: self.knowledge.decompose(features, names=known)} if known else {})

    def embed_candidates(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        of_backbone = {name: value for name, value in user.items() if name != OF_USER}
        fields = super().embed_candidates(of_backbone, items)
        kept = {name: value for name, value in user.items() if name == OF_USER}
        rows = candidate_rows(kept, items)
        of_items = [name for name in self.known if name in items]
        of_user = [name for name in self.known if name not in items]
        vectors = [rows[OF_USER]] if OF_USER in rows else []
        if of_items:
            vectors.append(self.knowledge.decompose(rows, names=of_items))
        together = ops.concatenate(vectors, axis=1) if vectors[1:] else vectors[0]
        return self._concatenate(fields, together, [*of_user, *of_items], self._places(fields))

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        width = self.knowledge.embedding_dim
        fields, places = embeddings[:, :, :-width], self._places(embeddings)
        vectors = _placed(embeddings[:, :, -width:], places, self.known)
        if "feature" in self.use:
            fields = fields + _placed(self.to_field(vectors), self.known, places)
        representation = self.backbone.represent(fields, training=training)
        if "instance" not in self.use:
            return representation
        encoded = self.knowledge.encode(vectors, training=training and self.tuned)
        return ops.concatenate([representation, ops.cast(encoded, representation.dtype)], axis=1)

    def predict_logits(self, representation: Any) -> Any:
        if "instance" not in self.use:
            return self.backbone.predict_logits(representation)
        hint, weights = self.knowledge.output_layer, self.of_knowledge.kernel
        width = hint.kernel.shape[0]
        logits = self.backbone.predict_logits(representation[:, :-width])
        encoded = ops.cast(representation[:, -width:], weights.dtype)
        of_hint = encoded @ (hint.kernel @ weights) + hint.bias @ weights
        return logits + ops.squeeze(of_hint, axis=-1)

    def _concatenate(
        self, fields: Any, vectors: Any, known: Sequence[str], places: Sequence[str]
    ) -> Any:
        """`[B, F, D + R]`: each field, concatenated with its vector of `vectors [B, n, R]`."""
        if vectors is None:
            vectors = ops.zeros_like(fields[:, :, :1]) * ops.zeros(self.knowledge.embedding_dim)
        else:
            vectors = ops.cast(_placed(vectors, known, places), fields.dtype)
        return ops.concatenate([fields, vectors], axis=2)

    def _places(self, fields: Any, names: Sequence[str] | None = None) -> list[str]:
        """The feature of the field at each place; "" if it is of none."""
        found = [name for name in self.field_names if names is None or name in names]
        return found + [""] * (fields.shape[1] - len(found))


def _placed(vectors: Any, names: Sequence[str], places: Sequence[str]) -> Any:
    """Puts vectors `[B, n, d]` of `names` at `places`; zeros elsewhere."""
    if [*names] == [*places]:
        return vectors
    if not {*places} <= {*names}:
        vectors = ops.pad(vectors, ((0, 0), (0, 1), (0, 0)))
    order = [names.index(name) if name in names else len(names) for name in places]
    return ops.take(vectors, order, axis=1)
