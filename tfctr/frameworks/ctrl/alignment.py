"""Alignment of a tabular and a language model (CTRL, arXiv:2306.02841)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from rich.console import Console

from tfctr.backbones.backbone import Backbone
from tfctr.data.dataset import Dataset
from tfctr.frameworks.ctrl.similarity import max_similarity, tiled_gradients
from tfctr.language.config import text_fields
from tfctr.language.prompted_encoder import PromptedEncoder, mean_pool
from tfctr.language.text import joined_keys
from tfctr.language.text_tower import distinct_texts, encode_in_parts, gradients_in_parts
from tfctr.models.schema_model import SchemaModel
from tfctr.training.objectives import Objective


class Alignment(SchemaModel):
    """Aligns a backbone's representations of rows with an encoder's of their texts; reads no label.

    The row and the text each have `h = W x + b` of width `projection_dim`, then `M` sub-vectors of
    length 1 from separate dense layers. The loss is `InfoNCE` in both directions over the batch,
    with the similarity of `max_similarity`. A text's vector is the mean over its tokens; those of
    several texts (a user's and an item's) are concatenated. Repeated texts of a batch are encoded
    once.

    The batch may be large: scores are in memory for `tile` rows at a time, and texts are encoded
    twice, `part` at a time, first for their vectors, then for the gradients (gradient caching).
    So the encoder must be deterministic, and runs without dropout.

    Args:
        backbone: trained in place.
        encoder: its `trained_layers` are trained in place.
        texts: names of the row's texts.
        pad_id: int. The encoder's padding token.
        num_subspaces: int. `M`. 1 is the plain cosine.
        projection_dim: int.
        subspace_dim: int.
        temperature: float.
        part: int. Number of texts in memory at a time.
        tile: int. Number of rows whose scores are in memory at a time.
    """

    def __init__(
        self,
        backbone: Backbone,
        encoder: PromptedEncoder,
        texts: Mapping[str, int],
        pad_id: int,
        num_subspaces: int,
        projection_dim: int,
        subspace_dim: int,
        temperature: float,
        part: int,
        tile: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone.schema, **kwargs)
        self.backbone = backbone
        backbone.head.trainable = False  # the head of clicks, which are not learned here
        self.encoder = encoder
        self.texts = dict(texts)
        self.pad_id = pad_id
        self.num_subspaces = num_subspaces
        self.temperature = temperature
        self.known: dict[str, Any] = {}  # by text: keys, ascending, and their vectors
        self.part = part
        self.tile = tile
        width = num_subspaces * subspace_dim
        self.of_row = [keras.layers.Dense(n, name=f"of_row_{n}") for n in (projection_dim, width)]
        self.of_text = [keras.layers.Dense(n, name=f"of_text_{n}") for n in (projection_dim, width)]

    def build(self, input_shape: Any = None) -> None:
        self.backbone.build()  # only its steps are called, never the model itself
        super().build(input_shape)

    @property
    def reads(self) -> tuple[str, ...]:
        fields = (_key,) if self.known else (_key, _tokens)
        return (*super().reads, *(field(text) for text in self.texts for field in fields))

    def remember(self, data: Dataset) -> int:
        """Encodes each distinct text of training and validation rows once; returns their number.

        For a frozen encoder: no training step then encodes a text.
        """
        encode = tf.function(lambda t: encode_in_parts(self.encode, t, self.part), autograph=False)
        for text in self.texts:
            columns = [data.columns(s, [_key(text), _tokens(text)]) for s in ("train", "valid")]
            keys = np.concatenate([joined_keys(found[_key(text)]) for found in columns])
            tokens = np.concatenate([found[_tokens(text)] for found in columns])
            distinct, first = np.unique(keys, return_index=True)
            tokens = tokens[first]
            order = np.argsort((tokens != self.pad_id).sum(axis=1), kind="stable")
            vectors = np.empty((len(distinct), self.encoder.width), np.float32)
            vectors[order] = encode(tf.constant(tokens[order]))
            self.known[text] = (tf.constant(distinct), tf.constant(vectors))
        return sum(len(keys) for keys, _ in self.known.values())

    @property
    def encoder_variables(self) -> list[Any]:
        return self.encoder.trainable_variables

    def call(self, features: Mapping[str, Any], training: bool = False) -> Any:
        """The sub-vectors of the rows and of their texts, `[B, M, d]` both."""
        vectors = [self.encode(features[_tokens(text)]) for text in self.texts]
        return self.row_vectors(features, training), self.text_vectors(vectors)

    def row_vectors(self, features: Mapping[str, Any], training: bool = False) -> Any:
        """`[B, M, d]`."""
        represented = self.backbone.represent(self.backbone.embed(features), training=training)
        return self._sub_vectors(self.of_row, represented)

    def encode(self, tokens: Any) -> Any:
        """float32 `[n, H]` of tokens `[n, T]`."""
        exists = ops.not_equal(tokens, self.pad_id)
        return ops.cast(mean_pool(self.encoder(tokens, exists), exists), "float32")

    def text_vectors(self, vectors: Sequence[Any]) -> Any:
        """`[B, M, d]` from the vectors `[B, H]` of the rows' texts."""
        return self._sub_vectors(self.of_text, ops.concatenate(vectors, axis=1))

    def _sub_vectors(self, layers: list[Any], x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        found = ops.cast(x, "float32")  # similarities are differences of nearly equal numbers
        found = ops.reshape(found, (-1, self.num_subspaces, x.shape[-1] // self.num_subspaces))
        length = ops.sqrt(ops.sum(ops.square(found), axis=-1, keepdims=True) + 1e-12)
        return found / length

    def train_step(self, data: Any) -> Any:
        features, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        texts = {text: self._distinct(features, text) for text in self.texts}
        slow = self.encoder_variables
        of_language = {id(v) for v in slow}
        own = [v for v in self.trainable_variables if id(v) not in of_language]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([vectors for _, vectors, _ in texts.values()])
            represented = self.backbone.represent(self.backbone.embed(features), training=True)
            of_row = self._sub_vectors(self.of_row, represented)
            further = self.further_losses(represented, labels)
            of_text = self.text_vectors([tf.gather(v, at) for _, v, at in texts.values()])
        loss, *upstream = tiled_gradients(
            of_row, of_text, self._keys(features), self.temperature, self.tile
        )
        targets = [of_row, of_text, *further]
        upstream += [tf.ones_like(other) for other in further]
        # For an optimizer that scales losses, as in float16.
        upstream = [self.optimizer.scale_loss(gradient) for gradient in upstream]
        found = tape.gradient(targets, [v.value for v in own], upstream)
        gradients = {id(v): g for v, g in zip(own, found, strict=True)}
        for tokens, vectors, _ in texts.values() if slow else ():
            of_vectors = tf.convert_to_tensor(tape.gradient(targets, vectors, upstream))
            parts = gradients_in_parts(
                self.encode, [v.value for v in slow], tokens, of_vectors, self.part
            )
            for variable, part in zip(slow, parts, strict=True):
                gradients[id(variable)] = gradients.get(id(variable), 0) + part
        variables = self.trainable_variables
        self.optimizer.apply([gradients[id(v)] for v in variables], variables)
        self._loss_tracker.update_state(loss + sum(further), sample_weight=tf.shape(of_row)[0])
        return self._reducible({"loss": self._loss_tracker.result()})

    def further_losses(self, represented: Any, labels: Any) -> list[Any]:
        """Additional losses, scalars of the rows' representations `[B, q]`."""
        return []

    def _distinct(self, features: Mapping[str, Any], text: str) -> tuple[Any, Any, Any]:
        """A batch's distinct texts: tokens, vectors `[n, H]`, and each row's index `[B]`."""
        keys = joined_keys(features[_key(text)])
        if text in self.known:
            known, vectors = self.known[text]
            distinct, places = tf.unique(keys)
            return None, tf.gather(vectors, tf.searchsorted(known, distinct)), places
        tokens, places = distinct_texts(features[_tokens(text)], keys, self.pad_id)
        vectors = encode_in_parts(self.encode, tokens, self.part)
        vectors.set_shape((None, self.encoder.width))
        return tokens, vectors, places

    def matched(self, features: Mapping[str, Any]) -> tuple[Any, Any]:
        """Whether each row's own text is the most similar one, and each text's own row.

        Two bools `[B]`. Other rows with the same text do not count.
        """
        found = [self._distinct(features, text) for text in self.texts]
        texts = self.text_vectors([tf.gather(vectors, places) for _, vectors, places in found])
        rows = self.row_vectors(features)
        keys = self._keys(features)
        same = keys[:, None] == keys[None, :]
        both = []
        for of, to in ((rows, texts), (texts, rows)):
            scores = max_similarity(of, to)
            own = tf.linalg.diag_part(scores)[:, None]
            both.append(tf.reduce_all((scores <= own) | same, axis=1))
        return both[0], both[1]

    def _keys(self, features: Mapping[str, Any]) -> Any:
        """int64 `[B]`: equal for rows with equal texts."""
        keys = 0
        for text in self.texts:
            keys = keys * 1_000_003 + joined_keys(features[_key(text)])  # wraps around
        return keys

    def _empty_row(self) -> dict[str, np.ndarray]:
        row = super()._empty_row()
        for text, size in self.texts.items():
            row |= {
                _tokens(text): np.zeros((1, size), "int64"),
                _key(text): np.zeros((1, 2), "int64"),
            }
        return row


class AlignmentObjective(Objective):
    """The best epoch matches most rows and texts of validation batches correctly."""

    chosen_by = "valid_matched"
    title = "validation share matched"
    batches: ClassVar[int] = 8  # batches to measure, each as large as a training batch

    def __init__(self, data: Dataset, batch_size: int, reads: Sequence[str]) -> None:
        self.rows = data.valid(batch_size, features=reads).take(self.batches)

    def measure(self, model: Alignment, console: Console) -> dict[str, float]:
        """`valid_matched`: the mean of both shares."""
        model._catch_up()
        matched = tf.function(model.matched, autograph=False, reduce_retracing=True)
        found = [np.stack(matched(features)) for features, _ in self.rows]
        return {"valid_matched": float(np.concatenate(found, axis=1).mean())}


def _tokens(text: str) -> str:
    return text_fields(text)[0]


def _key(text: str) -> str:
    return text_fields(text)[2]
