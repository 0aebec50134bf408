"""A backbone with a knowledge base (ROK, arXiv:2404.18304)."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfctr.frameworks.rok.knowledge_base import KnowledgeBase
from tfctr.models.click_model import ClickModel, candidate_rows
from tfctr.models.student import Student, refuse_names

USES = ("instance", "feature")
OF_USER = ("known_fields", "known_layer")  # the knowledge base's part of `encode_user`


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

    A request's user is read once, by both: `embed` returns the fields, and after them the knowledge
    base's first layer before its bias, cut into rows of width `D`: `[B, F + ceil(H / D), D]`. With
    `names` it returns these fields only. `represent` returns `[q ; h]`, or `q`.

    Args:
        backbone: an untrained backbone or student.
        knowledge: a knowledge base; its fields are among the backbone's.
        use: at least one of `"instance"` and `"feature"`.
        tuned: bool. Whether the knowledge base is trained further.

    Raises:
        ValueError: no such use; the backbone lacks a field of the knowledge base.
    """

    own_tensors = OF_USER

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
        refuse_names([feature.name for feature in backbone.schema], OF_USER)
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
        if "feature" in self.use:
            self.to_field.build((None, len(self.known), self.knowledge.embedding_dim))
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
        if not known:
            return fields
        of_fields, layer = self._decompose(features, known)
        if of_fields is not None:
            fields = _add(fields, of_fields, known, self._places(fields, names))
        return fields if layer is None or names is not None else _append(fields, layer)

    def add_fields(self, embeddings: Any, fields: Any) -> Any:
        if "instance" not in self.use:
            return self.backbone.add_fields(embeddings, fields)
        of_backbone, layer = self._cut(embeddings)
        return ops.concatenate([self.backbone.add_fields(of_backbone, fields), layer], axis=1)

    def encode_user(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """The backbone's part, and of the user's features:

        - `known_fields`: `W_i k_i`, `[B, n, D]`, if feature-wise;
        - `known_layer`: their part of the knowledge base's first layer `[B, H]`, if instance-wise.
        """
        user = super().encode_user(features)
        known = [name for name in self.known if name in features]
        ours = zip(OF_USER, self._decompose(features, known) if known else (), strict=False)
        return user | {name: value for name, value in ours if value is not None}

    def embed_candidates(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        fields = super().embed_candidates(user, items)
        rows = candidate_rows({n: user[n] for n in OF_USER if n in user}, items)
        of_items = [name for name in self.known if name in items]
        found = self._decompose(rows, of_items) if of_items else (None, None)
        known_fields, layer = (
            [part for part in (rows.get(name), of_item) if part is not None]
            for name, of_item in zip(OF_USER, found, strict=True)
        )
        if known_fields:
            known = [*(name for name in self.known if name not in items), *of_items]
            together = ops.concatenate(known_fields, axis=1)
            fields = _add(fields, together, known, self._places(fields))
        return _append(fields, sum(layer[1:], layer[0])) if layer else fields

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        if "instance" not in self.use:
            return self.backbone.represent(embeddings, training=training)
        fields, layer = self._cut(embeddings)
        representation = self.backbone.represent(fields, training=training)
        width = self.knowledge.hidden_units[0]
        projected = ops.reshape(layer, (-1, layer.shape[1] * layer.shape[2]))[:, :width]
        encoded = self.knowledge.encode(projected, training=training and self.tuned)
        return ops.concatenate([representation, ops.cast(encoded, representation.dtype)], axis=1)

    def predict_logits(self, representation: Any) -> Any:
        if "instance" not in self.use:
            return self.backbone.predict_logits(representation)
        hint, weights = self.knowledge.output_layer, self.of_knowledge.kernel
        width = hint.kernel.shape[0]
        logits = self.backbone.predict_logits(representation[:, :-width])
        # In float32, as logits are, whatever the precision of the layers.
        kernel, bias = (ops.cast(w @ weights, "float32") for w in (hint.kernel, hint.bias))
        of_hint = ops.cast(representation[:, -width:], "float32") @ kernel + bias
        return logits + ops.squeeze(of_hint, axis=-1)

    def _decompose(self, features: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, Any]:
        """`W_i k_i` and the part of the first layer, of the fields `names`; None: not used."""
        vectors = self.knowledge.decompose(features, names=names)
        of_fields = layer = None
        if "feature" in self.use:
            at = [i for i, name in enumerate(self.known) if name in names]
            kernel = self.to_field.kernel
            kernel = kernel if len(at) == len(self.known) else ops.take(kernel, at, axis=0)
            of_fields = ops.einsum("bfr,frd->bfd", vectors, ops.cast(kernel, vectors.dtype))
        if "instance" in self.use:
            layer = self.knowledge.project(vectors, names)
        return of_fields, layer

    def _cut(self, embeddings: Any) -> tuple[Any, Any]:
        """The backbone's embeddings, and the rows of the knowledge base's first layer."""
        rows = -(-self.knowledge.hidden_units[0] // embeddings.shape[2])
        return embeddings[:, :-rows], embeddings[:, -rows:]

    def _places(self, fields: Any, names: Sequence[str] | None = None) -> list[str]:
        """The feature of the field at each place; "" if it is of none."""
        found = [name for name in self.field_names if names is None or name in names]
        return found + [""] * (fields.shape[1] - len(found))


def _add(fields: Any, vectors: Any, names: Sequence[str], places: Sequence[str]) -> Any:
    """Adds vectors `[B, n, D]` of `names` to the fields `[B, F, D]` at `places`."""
    if [*names] != [*places]:
        if not {*places} <= {*names}:
            vectors = ops.pad(vectors, ((0, 0), (0, 1), (0, 0)))  # zeros for the other fields
        order = [names.index(name) if name in names else len(names) for name in places]
        vectors = ops.take(vectors, order, axis=1)
    return fields + ops.cast(vectors, fields.dtype)


def _append(fields: Any, layer: Any) -> Any:
    """`[B, F, D]` and `[B, H]` to `[B, F + ceil(H / D), D]`, the last row filled with zeros."""
    dim = fields.shape[2]
    number = -(-layer.shape[1] // dim)
    if lacking := number * dim - layer.shape[1]:
        layer = ops.pad(layer, ((0, 0), (0, lacking)))
    rows = ops.reshape(layer, (-1, number, dim))
    return ops.concatenate([fields, ops.cast(rows, fields.dtype)], axis=1)
