"""How a knowledge base learns what its teacher knows (ROK, arXiv:2404.18304)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops
from rich.console import Console

from tfctr.data.dataset import Dataset
from tfctr.data.manifest import DataError
from tfctr.frameworks.rok.knowledge_base import KnowledgeBase
from tfctr.retrieval.similar_rows import HINT
from tfctr.schema_model import SchemaModel
from tfctr.training import EVALUATION_BATCH, predict


class Imitation(SchemaModel):
    """Trains a knowledge base; the loss is `imitation * L_KI + contrastive * L_CR`.

    - `L_KI`: the mean square of `r̂ - (r - mean) / std`, `r` the teacher's hint: 1 for a knowledge
      base that says the same of all rows, 0 for one that says what the teacher says.
    - `L_CR`: rows are told apart. Of each row there is a second view, some of its fields hidden
      behind a learned vector; `-log softmax` of the cosine of a row's two views over those of the
      first with the batch's other rows, divided by a temperature, both ways.

    Args:
        knowledge: trained in place.
        mean: float32 `[V * D]`, of hints over the training rows.
        std: float32 `[V * D]`.
        imitation: float. Weight of `L_KI`.
        contrastive: float. Weight of `L_CR`.
        mask_rate: float. Share of the fields that the second view hides.
        temperature: float.
    """

    def __init__(
        self,
        knowledge: KnowledgeBase,
        mean: np.ndarray,
        std: np.ndarray,
        imitation: float = 1.0,
        contrastive: float = 0.1,
        mask_rate: float = 0.2,
        temperature: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(knowledge.schema, **kwargs)
        self.knowledge = knowledge
        self.mean = np.asarray(mean, np.float32)
        self.std = np.asarray(std, np.float32)
        self.imitation = imitation
        self.contrastive = contrastive
        self.mask_rate = mask_rate
        self.temperature = temperature
        self.seeds = keras.random.SeedGenerator()
        if contrastive:
            num_fields = len(knowledge.schema.inputs)
            self.hidden_fields = self.add_weight(
                (num_fields, knowledge.embedding_dim), name="hidden_fields"
            )

    def build(self, input_shape: Any = None) -> None:
        self.knowledge.build()  # whose steps are called, never itself
        super().build(input_shape)

    @property
    def reads(self) -> tuple[str, ...]:
        return (*super().reads, HINT)

    def call(self, features: Mapping[str, Any], training: bool = False) -> Any:
        """What is compared in `compute_loss`: two views in training, else `L_KI` a row, `[B]`."""
        fields = self.knowledge.decompose(features)
        first = self.knowledge.reconstruct(fields, training=training)
        if not training:
            return ops.mean(ops.square(_flat(first) - self._standardised(features)), axis=1)
        if not self.contrastive:
            return first, None
        hidden = keras.random.uniform(ops.shape(fields)[:2], seed=self.seeds) < self.mask_rate
        view = ops.where(ops.expand_dims(hidden, 2), self.hidden_fields, fields)
        return first, self.knowledge.reconstruct(view, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        first, second = (part if part is None else _flat(part) for part in y_pred)
        loss = self.imitation * ops.mean(ops.square(first - self._standardised(x)))
        if second is not None:
            loss += self.contrastive * contrastive_loss(first, second, self.temperature)
        return loss

    def _standardised(self, features: Mapping[str, Any]) -> Any:
        return (features[HINT] - self.mean) / self.std

    def _empty_row(self) -> dict[str, np.ndarray]:
        return super()._empty_row() | {HINT: np.zeros((1, len(self.mean)), "float32")}


class Imitating:
    """The best epoch is the one that explains most of the hints of the validation rows."""

    chosen_by: ClassVar[str] = "valid_explained"
    title: ClassVar[str] = "validation share explained"

    def __init__(self, data: Dataset, reads: Sequence[str]) -> None:
        self.batches = data.valid(EVALUATION_BATCH, features=reads)

    def compile(self, model: Imitation, optimizer: Any) -> None:
        model.compile(optimizer)

    def measure(self, model: Imitation, console: Console) -> dict[str, float]:
        """`valid_explained`: 1 less the mean `L_KI`."""
        losses = predict(model, self.batches, "validation", console)
        if not np.isfinite(losses).all():
            raise DataError(
                "what the knowledge base says is no longer finite; lower "
                "training.optimizer.learning_rate"
            )
        return {"valid_explained": 1.0 - float(losses.mean(dtype=np.float64))}

    def finish(self, model: Imitation) -> None:
        pass


def contrastive_loss(first: Any, second: Any, temperature: float) -> Any:
    """InfoNCE of two views `[B, n]`, both ways: each row's own other view among all rows'."""
    similarities = ops.matmul(_unit(first), ops.transpose(_unit(second))) / temperature
    own = ops.diagonal(similarities)
    each_way = (ops.logsumexp(similarities, axis=axis) - own for axis in (0, 1))
    return sum(ops.mean(loss) for loss in each_way) / 2


def _unit(rows: Any) -> Any:
    return rows * ops.rsqrt(ops.sum(ops.square(rows), axis=1, keepdims=True) + 1e-12)


def _flat(vectors: Any) -> Any:
    return ops.reshape(vectors, (-1, vectors.shape[1] * vectors.shape[2]))
