"""A model of clicks in three steps."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from keras import ops

from tfctr.models.from_logits import check_loss, check_metrics
from tfctr.models.losses import LogLoss
from tfctr.models.schema_model import SchemaModel
from tfctr.optimizers.rows import RowOptimizer
from tfctr.schema import Schema


class ClickModel(SchemaModel):
    """A CTR model in three steps: `embed`, `represent`, `predict_logits`.

    A call on `{feature: values}` returns logits `[B]`, and so does `predict`; `tfctr.predict` gives
    probabilities. `compile` needs only an optimizer: the loss is log loss of logits. Losses and
    metrics get labels and logits `[B, 1]`, since Keras' own take the mean over the last axis:

        model.compile(tfctr.optimizers.LazyAdam(1e-3), metrics=[tfctr.metrics.AUC()])

    Raises:
        ValueError: from `compile`, a loss or metric of Keras' that takes probabilities, such as
            "binary_crossentropy" or "auc"; `jit_compile=True` with a lazy optimizer.
    """

    head: Any  # a dense layer whose bias is added to all logits
    embeds_fields_apart: bool = True  # whether `embed` can embed some fields only
    reads_side_outputs: ClassVar[bool] = False  # of a job; they cannot be served
    folds: bool = False  # whether caching a user between requests saves much

    @property
    def of_requests(self) -> tuple[Any, ...]:
        """The features that requests have, and rows of a dataset do not (`REQUEST_KINDS`)."""
        return ()

    @property
    def served_schema(self) -> Schema:
        """The features of a request."""
        return Schema(features=(*self.schema.features, *self.of_requests))

    @property
    def field_dim(self) -> int:
        """`D`, the width of fields for `add_fields`."""
        raise NotImplementedError

    @property
    def may_read(self) -> tuple[str, ...]:
        """`reads`, and features that may replace some of them."""
        return (*self.reads, *(feature.name for feature in self.of_requests))

    @property
    def reads_of_item(self) -> tuple[str, ...]:
        """The features of `may_read` that differ between the candidates of a request."""
        return tuple(feature.name for feature in self.served_schema.side("item"))

    @property
    def field_names(self) -> tuple[str, ...]:
        """The features of the first fields of `embed`, in order; others may follow."""
        return tuple(feature.name for feature in self.schema.inputs)

    @property
    def encoder_variables(self) -> list[Any]:
        """The variables of a pre-trained encoder, which may have their own learning rate."""
        return []

    def innermost(self) -> "ClickModel":  # no property: Keras walks those when it saves
        """The plain backbone, inside all students."""
        return self

    def embed(
        self,
        features: Mapping[str, Any],
        names: Sequence[str] | None = None,
        training: bool = False,
    ) -> Any:
        """Vectors `[B, F, D]` of the fields in the schema's order; of `names` only, if given."""
        raise NotImplementedError

    def add_fields(self, embeddings: Any, fields: Any) -> Any:
        """Appends fields `[B, n, field_dim]` to those of `embed`: `[B, F + n, D]`."""
        return ops.concatenate([embeddings, ops.cast(fields, embeddings.dtype)], axis=1)

    def represent(self, embeddings: Any, training: bool = False) -> Any:
        """The input of the last layer: `[B, F, D] -> [B, q]`."""
        raise NotImplementedError

    def predict_logits(self, representation: Any) -> Any:
        """Logits `[B]` from `[B, q]`. (In Keras `predict` is batch inference.)"""
        raise NotImplementedError

    def encode_user(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a request that all candidates share: tensors `[B, ...]` by name.

        Args:
            features: of the user and the context, `[B]` or `[B, M]`.
        """
        if not self.embeds_fields_apart or not features:
            return dict(features)
        return {"fields": self.embed(features, names=list(features))}

    def embed_candidates(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        """`embed` of candidates, `[B * N, F, D]`, from `encode_user` and the item features.

        Args:
            user: `[B, ...]`.
            items: features of the item `[B, N]` or `[B, N, M]`.
        """
        rows = candidate_rows(user, items)
        if not self.embeds_fields_apart:
            return self.embed(rows)
        return self.in_order(rows.get("fields"), self.embed(rows, names=list(items)), items)

    def in_order(self, once: Any, of_items: Any, items: Mapping[str, Any]) -> Any:
        """The fields of `field_names`, from those of the user and the context, which may be None,
        and those of `items`."""
        if once is None:
            return of_items
        here = [name for name in self.field_names if name not in items]
        here += [name for name in self.field_names if name in items]
        order = [here.index(name) for name in self.field_names]
        fields = ops.concatenate([once, of_items], axis=1)
        return fields if order == sorted(order) else ops.take(fields, order, axis=1)

    def score(self, user: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
        """Logits `[B, N]` of candidates; arguments as for `embed_candidates`."""
        embeddings = self.embed_candidates(user, items)
        logits = self.predict_logits(self.represent(embeddings, training=False))
        return ops.reshape(logits, ops.shape(next(iter(items.values())))[:2])

    def call(self, features: Mapping[str, Any], training: bool = False) -> Any:
        embeddings = self.embed(features, training=training)
        return self.predict_logits(self.represent(embeddings, training=training))

    def compile(self, optimizer: Any = "adam", loss: Any = None, **kwargs: Any) -> None:
        if kwargs.get("jit_compile") is True and isinstance(optimizer, RowOptimizer):
            raise ValueError(
                f"jit_compile: XLA cannot compile the row updates of {type(optimizer).__name__}; "
                "leave jit_compile out, or give a dense optimizer such as keras.optimizers.Adam"
            )
        check_loss(loss)
        for argument in ("metrics", "weighted_metrics"):
            check_metrics(kwargs.get(argument), argument)
        super().compile(optimizer=optimizer, loss=LogLoss() if loss is None else loss, **kwargs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        y, y_pred = ops.reshape(y, (-1, 1)), ops.reshape(y_pred, (-1, 1))
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        y, y_pred = ops.reshape(y, (-1, 1)), ops.reshape(y_pred, (-1, 1))
        return super().compute_metrics(x, y, y_pred, sample_weight)


def candidate_rows(user: Mapping[str, Any], items: Mapping[str, Any]) -> dict[str, Any]:
    """A row for each candidate, `[B * N, ...]`, from tensors `[B, ...]` and `[B, N, ...]`."""
    number = ops.shape(next(iter(items.values())))[1]
    rows = {name: for_each(values, number) for name, values in user.items()}
    return rows | {name: ops.reshape(v, (-1, *v.shape[2:])) for name, v in items.items()}


def for_each(values: Any, number: Any) -> Any:
    """`[B, ...]` to `[B * number, ...]`: repeats each row.

    This is one broadcast; `ops.repeat` needs more operations to compute shapes.
    """
    inner = values.shape[1:]
    shape = (ops.shape(values)[0], number, *inner)
    return ops.reshape(ops.broadcast_to(values[:, None], shape), (-1, *inner))
