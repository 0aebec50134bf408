"""Pre-training of a sequence encoder: it predicts masked parts of events (SRP4CTR, FG-BERT)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from rich.console import Console

from tfctr.data.dataset import Dataset
from tfctr.frameworks.srp4ctr.sequence_encoder import SequenceEncoder
from tfctr.layers.attending_block import attention_mask
from tfctr.layers.flat_dense import FlatDense
from tfctr.models.masking import choose
from tfctr.models.schema_model import SchemaModel
from tfctr.models.transfer import carry_on
from tfctr.schema import FIRST_TOKEN_ID, MASK_ID, Schema
from tfctr.training.divergence import Diverged
from tfctr.training.objectives import Objective


@keras.saving.register_keras_serializable("tfctr")
class FgBert(SchemaModel):
    """Masks the items of some events and the outcomes of others, and predicts both (BERT4Rec,
    arXiv:1904.06690, with side information).

    The parts of an event that describe its item are one group, those that describe its outcome are
    another (`SequenceEncoder.groups`). In each window each group is masked at a share of the
    events, drawn independently, so that one can be predicted from the other; in some windows the
    item of the latest event is masked, as in next-item prediction. Each part has its own head:
    `logits = gelu(W h + c) E^T + b`, where `E` are the vectors of the part's tokens. The loss is
    the sum over parts of the mean over masked places. OOV tokens are not predicted.

    Args:
        schema: of the windows; its histories are one event longer than the encoder's.
        encoder: trained in place.
        mask_rate: float. Share of a window's events.
        last_rate: float. Share of the windows in which the latest event is always masked.
        sampled_tokens: int or None. Number of sampled negatives in training, drawn by frequency
            rank; logits have the logQ correction. None: the whole vocabulary.
    """

    def __init__(
        self,
        schema: Schema,
        encoder: SequenceEncoder,
        mask_rate: float,
        last_rate: float,
        sampled_tokens: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(schema, **kwargs)
        self.encoder = encoder
        self.mask_rate = mask_rate
        self.last_rate = last_rate
        self.sampled_tokens = sampled_tokens
        self.to_token = {
            part: FlatDense(encoder.dim, activation="gelu", name=f"to_{part}")
            for part in encoder.parts
        }
        self.frequencies = {
            part: self.add_weight(
                (self._num_tokens(part),), initializer="zeros", autocast=False, name=f"b_{part}"
            )
            for part in encoder.parts
        }
        self.seeds = keras.random.SeedGenerator()

    @property
    def reads(self) -> tuple[str, ...]:
        return self.encoder.parts

    def build(self, input_shape: Any = None) -> None:
        self.encoder.build()
        super().build(input_shape)

    def start_from(self, earlier: "FgBert") -> None:
        """Copies the weights of an earlier one, whose vocabularies may be shorter. New tokens keep
        their initial vectors, and are taken to be as rare as the rarest so far.

        Raises:
            ValueError: as `carry_on`.
        """
        carry_on(self, earlier, without=[*self.frequencies.values()])
        for part, variable in self.frequencies.items():
            known = np.asarray(earlier.frequencies[part])
            new = variable.shape[0] - len(known)
            variable.assign(np.pad(known, (0, new), constant_values=known.min(initial=0.0)))

    def call(self, features: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """By part: log likelihoods of masked tokens `[B, P]`, and bool `[B, P]`, false at padding.
        Outside of training the masked events of a batch are always the same."""
        ids, exists = self.encoder.behaviours.latest_first(features)
        ids = {part: ops.cast(values, "int32") for part, values in ids.items()}
        hidden, places, chosen = dict(ids), {}, {}
        for number, parts in enumerate(self.encoder.groups.values()):
            if not parts:
                continue
            seed = self.seeds if training else number
            draws = keras.random.uniform(ops.shape(exists), seed=seed)
            if number == 0:
                draws = self._with_last(draws, training)
            found, some, is_chosen = choose(exists, draws, self.mask_rate)
            for part in parts:
                hidden[part] = ops.where(is_chosen, MASK_ID, ids[part])
                places[part], chosen[part] = found, some
        x = self.encoder.embed(hidden, first_place=0, training=training)
        last = self.encoder(x, attention_mask(exists), training=training).last
        guessed = {}
        for part in self.encoder.parts:
            vectors = ops.take_along_axis(last, places[part][:, :, None], axis=1)
            targets = ops.take_along_axis(ids[part], places[part], axis=1)
            known = ops.logical_and(chosen[part], targets >= FIRST_TOKEN_ID)
            targets = ops.maximum(targets, FIRST_TOKEN_ID)
            guessed[part] = self._likelihoods(part, vectors, targets, training), known
        return guessed

    def queries(self, features: Mapping[str, Any], part: str) -> Any:
        """Vectors `[B, d + 1]` that predict the next event of histories, to compare with `vectors`.

        Args:
            features: ids `[B, L]` of each part, as in a dataset.
            part: an item-side history.
        """
        ids, exists = self.encoder.behaviours.latest_first(features)
        next_one = ops.full_like(exists[:, :1], MASK_ID, dtype="int64")
        asked = {
            name: ops.concatenate([next_one, ops.cast(values, "int64")], axis=1)
            for name, values in ids.items()
        }
        exists = ops.concatenate([ops.ones_like(exists[:, :1]), exists], axis=1)
        last = self.encoder(self.encoder.embed(asked, first_place=0), attention_mask(exists)).last
        query = ops.cast(self.to_token[part](last[:, 0]), "float32")
        return ops.concatenate([query, ops.ones_like(query[:, :1])], axis=1)

    def vectors(self, part: str) -> Any:
        """Vectors `[V, d + 1]` of a part's tokens, from `FIRST_TOKEN_ID`; their inner products with
        `queries` are the logits."""
        return ops.concatenate(
            [self._tokens(part), ops.expand_dims(self.frequencies[part], 1)], axis=1
        )

    def _with_last(self, draws: Any, training: bool) -> Any:
        """Draws that choose the latest event in some windows."""
        chance = keras.random.uniform(
            (ops.shape(draws)[0], 1), seed=self.seeds if training else len(self.encoder.parts)
        )
        first = ops.cast(ops.arange(draws.shape[1]) == 0, draws.dtype)
        return draws + first * ops.cast(chance < self.last_rate, draws.dtype)

    def _likelihoods(self, part: str, vectors: Any, targets: Any, training: bool) -> Any:
        vectors = ops.cast(self.to_token[part](vectors), "float32")
        places = targets - FIRST_TOKEN_ID
        if training and self.sampled_tokens and self.sampled_tokens < self._num_tokens(part):
            return self._sampled_likelihoods(part, vectors, places)
        logits = ops.matmul(vectors, ops.transpose(self._tokens(part))) + self.frequencies[part]
        right = ops.take_along_axis(logits, places[:, :, None], axis=2)[:, :, 0]
        return right - ops.logsumexp(logits, axis=2)

    def _sampled_likelihoods(self, part: str, vectors: Any, places: Any) -> Any:
        """Log likelihoods `[B, P]` among the right token and sampled negatives.

        The chance of token `k`, counted from the most frequent, is about `1 / k` (log-uniform), as
        in Zipf's law. (A negative that equals the right token is left out here; keras-rs 0.4's
        `RemoveAccidentalHits` would hardly lower its logit.)
        """
        size = self._num_tokens(part)
        draws = keras.random.uniform((self.sampled_tokens,), seed=self.seeds)
        drawn = ops.cast(ops.exp(draws * np.log(size + 1.0)), "int32") - 1
        drawn = ops.clip(drawn, 0, size - 1)

        def corrected(logits: Any, tokens: Any) -> Any:
            rank = ops.cast(tokens, "float32")
            chance = ops.log((rank + 2) / (rank + 1)) / np.log(size + 1.0)
            return logits - ops.log(chance * float(self.sampled_tokens or 1))

        biases = self.frequencies[part]
        right = ops.sum(vectors * self._tokens(part, places), axis=2) + ops.take(biases, places)
        others = ops.matmul(vectors, ops.transpose(self._tokens(part, drawn)))
        others = corrected(others + ops.take(biases, drawn), drawn)
        others = ops.where(ops.equal(places[:, :, None], drawn), -1e9, others)
        right = corrected(right, places)
        together = ops.concatenate([right[:, :, None], others], axis=2)
        return right - ops.logsumexp(together, axis=2)

    def _num_tokens(self, part: str) -> int:
        return self.schema[part].num_ids - FIRST_TOKEN_ID

    def _tokens(self, part: str, places: Any = None) -> Any:
        """Vectors of a part's tokens: all `[V, d]`, or those of `places` `[..., d]`."""
        if places is None:
            places = ops.arange(self._num_tokens(part), dtype="int32")
        return ops.cast(self.encoder.tokens.rows(part, places + FIRST_TOKEN_ID), "float32")

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        return sum(_mean_loss(*guessed) for guessed in y_pred.values())

    def get_config(self) -> dict[str, Any]:
        encoder = keras.saving.serialize_keras_object(self.encoder)
        return super().get_config() | {"encoder": encoder}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "FgBert":
        made = {
            "schema": Schema.model_validate(config["schema"]),
            "encoder": keras.saving.deserialize_keras_object(config["encoder"]),
        }
        return cls(**config | made)


def _mean_loss(likelihoods: Any, chosen: Any) -> Any:
    weights = ops.cast(chosen, likelihoods.dtype)
    return -ops.sum(likelihoods * weights) / ops.maximum(ops.sum(weights), 1)


class MaskedPartsObjective(Objective):
    """The best epoch has the greatest likelihood of validation windows' masked parts."""

    chosen_by = "valid_log_likelihood"
    title = "validation log likelihood of an event's hidden parts"
    batch: ClassVar[int] = 512

    def __init__(self, data: Dataset, reads: Sequence[str]) -> None:
        self.batches = data.valid(self.batch, features=reads)

    def measure(self, model: FgBert, console: Console) -> dict[str, float]:
        """`valid_log_likelihood`: the sum over parts of the mean per token, in nats; and each."""
        model._catch_up()
        call = tf.function(
            lambda features: model(features, training=False), autograph=False, reduce_retracing=True
        )
        total, count = dict.fromkeys(model.reads, 0.0), dict.fromkeys(model.reads, 0)
        for features, _ in self.batches:
            for part, (likelihoods, chosen) in call(features).items():
                found = likelihoods.numpy()[chosen.numpy()]
                total[part] += float(found.sum(dtype=np.float64))
                count[part] += len(found)
        means = {part: total[part] / max(count[part], 1) for part in model.reads}
        if not np.isfinite(list(means.values())).all():
            raise Diverged("the likelihoods of masked events")
        each = {f"valid_log_likelihood_{part}": mean for part, mean in means.items()}
        return {"valid_log_likelihood": sum(means.values()), **each}
