"""Configs of trainings."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tfctr.schema import Name, Strict


class Cosine(Strict):
    """Rises from 0 in `warmup_epochs`, then falls as a cosine to `final` of the learning rate."""

    name: Literal["cosine"] = "cosine"
    warmup_epochs: float = Field(0.0, ge=0)
    final: float = Field(0.0, ge=0, le=1)


class Linear(Strict):
    """Falls linearly to `final` of the learning rate at the last epoch."""

    name: Literal["linear"] = "linear"
    final: float = Field(0.0, ge=0, le=1)


class Exponential(Strict):
    """Falls at each step, by the factor `decay` per epoch."""

    name: Literal["exponential"] = "exponential"
    decay: float = Field(gt=0, le=1)


class Plateau(Strict):
    """Falls by `factor` after each epoch that is not the best so far (`chosen_by`)."""

    name: Literal["plateau"] = "plateau"
    factor: float = Field(0.1, gt=0, lt=1)


Schedule = Annotated[Cosine | Linear | Exponential | Plateau, Field(discriminator="name")]


class Optimizer(Strict):
    name: Literal["lazy_adam", "lazy_adagrad", "adam", "adagrad"] = "lazy_adam"
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Schedule | None = None
    embedding_l2: float = Field(0.0, ge=0)  # the lazy ones only
    compact_state: bool = False  # of tables, the lazy ones only: less memory
    encoder_rate: float = Field(1.0, gt=0)  # an encoder's learning rate, as a share of the others'
    clipvalue: float | None = Field(None, gt=0)  # of every number of a gradient
    clipnorm: float | None = Field(None, gt=0)  # of each variable's gradient
    global_clipnorm: float | None = Field(None, gt=0)  # of all gradients together

    @model_validator(mode="after")
    def _has_tables(self) -> "Optimizer":
        if self.embedding_l2 and not self.name.startswith("lazy_"):
            raise ValueError(f"embedding_l2 needs lazy_adam or lazy_adagrad, found {self.name!r}")
        if self.compact_state and not self.name.startswith("lazy_"):
            raise ValueError(f"compact_state needs lazy_adam or lazy_adagrad, found {self.name!r}")
        return self

    @model_validator(mode="after")
    def _clips_one_way(self) -> "Optimizer":
        ways = ("clipvalue", "clipnorm", "global_clipnorm")
        given = [way for way in ways if getattr(self, way) is not None]
        if len(given) > 1:
            raise ValueError(f"only one way of clipping is possible, found {' and '.join(given)}")
        return self


class Fold(Strict):
    """One of several parts of the training rows."""

    index: int = Field(ge=0)
    folds: int = Field(ge=2)

    @model_validator(mode="after")
    def _exists(self) -> "Fold":
        if self.index >= self.folds:
            raise ValueError(f"index: found {self.index}; {self.folds} folds count from 0")
        return self


class Training(Strict):
    """Each epoch ends with an evaluation on the validation rows; the best epoch's weights are kept.

    `chosen_by` is the measure: the greatest AUC or GAUC, or the least log loss. A model with
    another objective than clicks has its own measure.
    """

    rows: Literal["train", "pool"] = "train"  # the split to train on
    batch_size: int = Field(4096, ge=1)  # over all replicas
    epochs: int = Field(10, ge=1)
    patience: int = Field(2, ge=1)  # stops after this many epochs without a better one
    chosen_by: Literal["auc", "gauc", "log_loss"] = "auc"
    optimizer: Optimizer = Optimizer()
    seed: int = 1
    steps_per_epoch: int | None = Field(None, ge=1)  # each epoch continues with other rows
    in_memory: bool = False  # hold all training rows in memory and shuffle all of them
    checkpoint_steps: int = Field(1000, ge=1)  # a killed run resumes from the last checkpoint
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    positive_weight: float = Field(1.0, gt=0)  # weight of a row with a click in the loss
    keep_negatives: float = Field(1.0, gt=0, le=1)  # share of the others that an epoch reads
    # By feature, share of the training rows whose token the model reads as unknown.
    oov_rate: dict[Name, Annotated[float, Field(ge=0, le=1)]] = Field({})
    left_out: Fold | None = None  # rows that the model does not learn from
    refit: bool = False  # then train from the start again, on validation rows too
    strategy: Literal["one_device", "mirrored", "multi_worker"] = "one_device"
    tensorboard: bool = False  # write curves for TensorBoard

    def check_rows_weigh_the_same(self, why: str) -> None:
        """Raises a `ValueError`, which says `why`, where clicks weigh more than other rows."""
        for key in ("positive_weight", "keep_negatives"):
            if getattr(self, key) != 1:
                raise ValueError(f"training.{key}: found {getattr(self, key)}; {why}")

    @model_validator(mode="after")
    def _refits_on_training_rows(self) -> "Training":
        if self.refit and self.rows != "train":
            raise ValueError(
                "refit: adds validation rows to training rows, which needs rows: train, found "
                f"{self.rows!r}"
            )
        if self.refit and self.left_out:
            raise ValueError("refit: trains on all rows, and left_out leaves some out; give one")
        return self


class PartTraining(Training):
    """The training of what a student is made from, or of a rollout's model."""

    @model_validator(mode="after")
    def _is_not_of_a_student(self) -> "PartTraining":
        for key in ("refit", "oov_rate", "left_out"):
            if getattr(self, key):
                raise ValueError(f"{key}: found {getattr(self, key)}; only a run's student has it")
        return self
