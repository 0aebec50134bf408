"""The training of a knowledge base (ROK, arXiv:2404.18304)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from rich.console import Console

from tfctr.data.dataset import Dataset
from tfctr.frameworks.rok.history_knowledge import HistoryKnowledge
from tfctr.frameworks.rok.knowledge_base import KnowledgeBase
from tfctr.models.losses import LogLoss
from tfctr.models.schema_model import SchemaModel
from tfctr.retrieval.similar_rows import HINT
from tfctr.schema import LARGEST_SCALED
from tfctr.training.divergence import Diverged
from tfctr.training.objectives import Objective
from tfctr.training.predict import EVALUATION_BATCH, predict


class Imitation(SchemaModel):
    """Trains a knowledge base: `imitation * L_KI + contrastive * L_CR + clicks * L_CTR`.

    - `L_KI`: the mean square of `r̂ - (r - mean) / std`, where `r` is the teacher's hint: 1 for a
      constant prediction of the mean, 0 for a perfect one. Standardised hints are clipped to
      `LARGEST_SCALED`, as standardised features are.
    - `L_CR`: a contrastive loss. A row's second view has some fields masked by a learned vector;
      the loss is `-log softmax` of the cosine of a row's two views among those with the batch's
      other rows, divided by a temperature, in both directions.
    - `L_CTR`: log loss of a dense layer on `r̂`, which is not kept. The paper does not have it:
      alone, it trains a knowledge base on the same rows without a teacher.

    Without imitation, a call on rows returns logits `[B]`.

    Args:
        knowledge: trained in place: `KnowledgeBase`, or `HistoryKnowledge`, which has no `L_CR`.
        mean: float32 `[V * D]`, of hints over the training rows.
        std: float32 `[V * D]`.
        imitation: float. Weight of `L_KI`.
        contrastive: float. Weight of `L_CR`.
        clicks: float. Weight of `L_CTR`.
        mask_rate: float. Share of the fields that the second view masks.
        temperature: float.
    """

    def __init__(
        self,
        knowledge: KnowledgeBase | HistoryKnowledge,
        mean: np.ndarray,
        std: np.ndarray,
        imitation: float,
        contrastive: float,
        clicks: float,
        mask_rate: float,
        temperature: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(knowledge.schema, **kwargs)
        self.knowledge = knowledge
        self.mean = np.asarray(mean, np.float32)
        self.std = np.asarray(std, np.float32)
        self.imitation = imitation
        self.contrastive = contrastive
        self.clicks = clicks
        self.mask_rate = mask_rate
        self.temperature = temperature
        self.seeds = keras.random.SeedGenerator()
        if contrastive:
            num_fields = len(knowledge.schema.inputs)
            self.hidden_fields = self.add_weight(
                (num_fields, knowledge.embedding_dim), name="hidden_fields"
            )
        if clicks:
            self.head = keras.layers.Dense(1, dtype="float32", name="head")

    def build(self, input_shape: Any = None) -> None:
        self.knowledge.build()  # only its steps are called, never the model itself
        super().build(input_shape)

    @property
    def reads(self) -> tuple[str, ...]:
        return (*super().reads, HINT)

    def call(self, features: Mapping[str, Any], training: bool = False) -> Any:
        """`L_KI` per row, or logits, `[B]`; in training the input of `compute_loss`."""
        fields = of_view = None
        if training and self.contrastive:
            fields = self.knowledge.decompose(features)
            predicted = _flat(self.knowledge.reconstruct(fields, training=training))
        else:
            predicted = _flat(self.knowledge.call(features, training=training))
        logits = ops.squeeze(self.head(predicted), axis=-1) if self.clicks else None
        if not training:
            if logits is not None and not self.imitation:
                return logits
            return ops.mean(ops.square(predicted - self._standardised(features)), axis=1)
        if fields is not None:
            hidden = keras.random.uniform(ops.shape(fields)[:2], seed=self.seeds) < self.mask_rate
            view = ops.where(ops.expand_dims(hidden, 2), self.hidden_fields, fields)
            of_view = _flat(self.knowledge.reconstruct(view, training=training))
        return predicted, of_view, logits

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        predicted, of_view, logits = y_pred
        loss = self.imitation * ops.mean(ops.square(predicted - self._standardised(x)))
        if of_view is not None:
            loss += self.contrastive * contrastive_loss(predicted, of_view, self.temperature)
        if logits is not None:
            loss += self.clicks * LogLoss()(y, logits)
        return loss

    def _standardised(self, features: Mapping[str, Any]) -> Any:
        return standardised(features[HINT], self.mean, self.std)

    def _empty_row(self) -> dict[str, np.ndarray]:
        return super()._empty_row() | {HINT: np.zeros((1, len(self.mean)), "float32")}


class ImitationObjective(Objective):
    """The best epoch has the greatest explained variance of the validation rows' hints."""

    chosen_by = "valid_explained"
    title = "validation share explained"

    def __init__(self, data: Dataset, reads: Sequence[str]) -> None:
        self.batches = data.valid(EVALUATION_BATCH, features=reads)

    def measure(self, model: Imitation, console: Console) -> dict[str, float]:
        """`valid_explained`: 1 minus the mean `L_KI`."""
        losses = predict(model, self.batches, "validation", console)
        if not np.isfinite(losses).all():
            raise Diverged("the knowledge base's predictions")
        return {"valid_explained": 1.0 - float(losses.mean(dtype=np.float64))}


def standardised(hints: Any, mean: Any, std: Any) -> Any:
    """`(hint - mean) / std`, clipped: `[B, n]`."""
    largest = LARGEST_SCALED["standardize"]
    return ops.clip((hints - mean) / std, -largest, largest)


def contrastive_loss(first: Any, second: Any, temperature: float) -> Any:
    """InfoNCE of two views `[B, n]` in both directions; other rows are the negatives."""
    similarities = ops.matmul(_unit(first), ops.transpose(_unit(second))) / temperature
    own = ops.diagonal(similarities)
    each_way = (ops.logsumexp(similarities, axis=axis) - own for axis in (0, 1))
    return sum(ops.mean(loss) for loss in each_way) / 2


def _unit(rows: Any) -> Any:
    return rows * ops.rsqrt(ops.sum(ops.square(rows), axis=1, keepdims=True) + 1e-12)


def _flat(vectors: Any) -> Any:
    """float32, as losses are, whatever the precision of the layers."""
    return ops.cast(ops.reshape(vectors, (-1, math.prod(vectors.shape[1:]))), "float32")
