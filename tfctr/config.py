"""What a run is: a data set, a model, its training and its export, as validated YAML.

A mistake is a `ConfigError` whose text has one line a mistake: file, key, what was found and what
is allowed.
"""

import hashlib
import json
import os
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from tfctr.schema import (
    Categorical,
    Features,
    History,
    MultiValued,
    Name,
    Schema,
    Side,
    Strict,
    Tokens,
)

Model = TypeVar("Model", bound=BaseModel)
HOME_VARIABLE = "TFCTR_DATA_HOME"
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class ConfigError(ValueError):
    """A config file that cannot be used; the text says where and why."""


class _KeepsDigest(Strict):
    """Some keys are left out where they stand at their default, so that a config which was written
    before there were such keys keeps its digest."""

    unsaid: ClassVar[tuple[str, ...]]

    @model_serializer(mode="wrap")
    def _without_what_says_nothing(self, serialize: SerializerFunctionWrapHandler) -> Any:
        content = serialize(self)
        for key in self.unsaid:
            if getattr(self, key) == type(self).model_fields[key].default:
                content.pop(key, None)
        return content


class Table(Strict):
    """A table of users or items, joined to the events on `key`."""

    path: str
    key: str
    columns: list[str] | None = None  # names, for a delimited file without a header line


class FileSource(Strict):
    """Events, and tables joined to them, from files of one format.

    Paths are relative to the config file, or to `TFCTR_DATA_HOME`; globs and lists name several
    files.
    A CSV file has one record a line: text with line breaks belongs in JSON Lines or Parquet.
    """

    format: Literal["csv", "jsonl", "parquet"]
    events: str | tuple[str, ...]
    users: Table | None = None
    items: Table | None = None
    columns: list[str] | None = None  # names, for a delimited file without a header line
    separator: str = Field(",", max_length=4, pattern=r'^[^"\r\n]+$')
    encoding: Literal["utf-8", "latin-1"] = "utf-8"


class TwoDomains(Strict):
    """MovieLens as organic rows and ads, day by day (`tfctr.data.two_domains`)."""

    days: int = Field(96, ge=1)  # with equally many rows
    ads_items: float = Field(0.2, ge=0, le=1)  # share of the movies that are advertised
    ads_share: float = Field(0.15, ge=0, le=1)  # of their ratings: those are ads


class MovieLensSource(_KeepsDigest):
    """MovieLens 1M or 100K: a zip as published, or the folder unpacked from it."""

    unsaid: ClassVar[tuple[str, ...]] = ("two_domains",)

    format: Literal["movielens"]
    path: str = "ml-1m.zip"
    two_domains: TwoDomains | None = None  # adds the columns domain, click and day_time


class WorldSource(_KeepsDigest):
    """The generated world (`tfctr.data.World`)."""

    unsaid: ClassVar[tuple[str, ...]] = ("ads_share", "drift")

    format: Literal["world"]
    users: int = Field(2_000, ge=1)
    items: int = Field(1_000, ge=1)
    events: int = Field(100_000, ge=1)
    days: int = Field(60, ge=1)
    seed: int = 1
    domain: Literal["organic", "ads"] | None = None  # None: both
    ads_share: float = Field(0.2, ge=0, le=1)  # of the rows
    drift: float = Field(0.4, ge=0, le=1)
    extra_fields: int = Field(0, ge=0)


Source = Annotated[FileSource | MovieLensSource | WorldSource, Field(discriminator="format")]


class Label(Strict):
    """A click. Without `positive_above` the column holds 0 and 1."""

    column: str
    positive_above: float | None = None
    drop: tuple[float, ...] = ()  # values whose rows are left out, e.g. 3 of 5 stars


class Time(Strict):
    """When a row happened, as int64 in the dataset, in `unit`."""

    column: str
    unit: Literal["s", "ms", "us"] = "s"


class Split(_KeepsDigest):
    """Shares of the rows (of each user's rows, for `user_time`) in validation and test.

    A pool is the first rows by time. They are not trained on, but vocabularies know them, and they
    are there to be found for later rows.
    """

    unsaid: ClassVar[tuple[str, ...]] = ("pool",)

    by: Literal["global_time", "user_time", "random"] = "global_time"
    valid: float = Field(0.1, ge=0, lt=1)
    test: float = Field(0.1, ge=0, lt=1)
    pool: float = Field(0.0, ge=0, lt=1)  # of global_time
    seed: int = 0  # of the random split

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> "Split":
        if self.pool and self.by != "global_time":
            raise ValueError(f"pool: needs by: global_time, found {self.by!r}")
        if self.pool and self.pool + self.valid + self.test >= 1:
            found = f"{self.pool} + {self.valid} + {self.test}"
            raise ValueError(f"pool + valid + test must be below 1, found {found}")
        if self.valid + self.test >= 1:
            raise ValueError(f"valid + test must be below 1, found {self.valid} + {self.test}")
        return self


class DataConfig(Strict):
    """From raw logs to a dataset directory."""

    name: FolderName
    source: Source
    label: Label
    time: Time
    user: str | None = None  # the feature that tells users apart (GAUC, unseen users)
    item: str | None = None
    features: Features
    history_events: Literal["all", "clicks"] = "all"  # which earlier rows enter a history
    split: Split = Split()
    max_bad_share: float = Field(0.01, ge=0, le=1)  # of all rows; more stops the run
    compression: Literal["none", "gzip"] = "none"
    directory: str = Field(".", exclude=True)  # of the file it came from

    @property
    def feature_schema(self) -> Schema:
        return Schema(features=self.features)

    @model_validator(mode="after")
    def _names_exist(self) -> "DataConfig":
        schema = self.feature_schema
        sides: tuple[Side, ...] = ("user", "item")
        for side in sides:
            name = getattr(self, side)
            if name is None:
                continue
            feature = next((f for f in schema if f.name == name), None)
            if not isinstance(feature, Categorical) or feature.side != side:
                names = [f.name for f in schema.side(side) if isinstance(f, Categorical)]
                raise ValueError(
                    f"{side}: {name!r} is not a categorical feature of side {side!r}; "
                    f"those are: {', '.join(names) or 'none'}"
                )
        if self.split.by == "user_time" and self.user is None:
            raise ValueError("split.by: 'user_time' needs the key 'user'")
        for feature in schema:
            if isinstance(feature, Tokens):
                raise ValueError(
                    f"feature {feature.name!r}: tokens are made of other features, by a text config"
                )
            if isinstance(feature, History):
                if self.user is None:
                    raise ValueError(f"feature {feature.name!r}: a history needs the key 'user'")
                continue  # of earlier rows it may read even the label
            if feature.source_column == self.label.column:
                raise ValueError(
                    f"feature {feature.name!r} reads the label's column {self.label.column!r}"
                )
        return self

    @model_serializer(mode="wrap")
    def _without_what_says_nothing(self, serialize: SerializerFunctionWrapHandler) -> Any:
        """`history_events` only where there are histories: others keep the digest they had."""
        content = serialize(self)
        if not any(isinstance(feature, History) for feature in self.features):
            content.pop("history_events", None)
        return content


class Cosine(Strict):
    """Up from 0 in `warmup_epochs`, then down along a cosine to `final` of the learning rate."""

    name: Literal["cosine"] = "cosine"
    warmup_epochs: float = Field(0.0, ge=0)
    final: float = Field(0.0, ge=0, le=1)


class Linear(Strict):
    """Down in a line to `final` of the learning rate at the last epoch."""

    name: Literal["linear"] = "linear"
    final: float = Field(0.0, ge=0, le=1)


class Exponential(Strict):
    """Down by the factor `decay` an epoch, step by step."""

    name: Literal["exponential"] = "exponential"
    decay: float = Field(gt=0, le=1)


class Plateau(Strict):
    """Down by `factor` after each epoch that is not the best so far (`chosen_by`)."""

    name: Literal["plateau"] = "plateau"
    factor: float = Field(0.1, gt=0, lt=1)


Schedule = Annotated[Cosine | Linear | Exponential | Plateau, Field(discriminator="name")]


class Optimizer(_KeepsDigest):
    unsaid: ClassVar[tuple[str, ...]] = ("encoder_rate",)

    name: Literal["lazy_adam", "lazy_adagrad", "adam", "adagrad"] = "lazy_adam"
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Schedule | None = None
    embedding_l2: float = Field(0.0, ge=0)  # the lazy ones only
    encoder_rate: float = Field(1.0, gt=0)  # of an encoder's variables: times the others'
    clipvalue: float | None = Field(None, gt=0)  # of every number of a gradient
    clipnorm: float | None = Field(None, gt=0)  # of each variable's gradient
    global_clipnorm: float | None = Field(None, gt=0)  # of all gradients together

    @model_validator(mode="after")
    def _l2_has_a_home(self) -> "Optimizer":
        if self.embedding_l2 and not self.name.startswith("lazy_"):
            raise ValueError(f"embedding_l2 needs lazy_adam or lazy_adagrad, found {self.name!r}")
        return self

    @model_validator(mode="after")
    def _clips_one_way(self) -> "Optimizer":
        ways = ("clipvalue", "clipnorm", "global_clipnorm")
        given = [way for way in ways if getattr(self, way) is not None]
        if len(given) > 1:
            raise ValueError(f"gradients are clipped in one way, found {' and '.join(given)}")
        return self


class Training(_KeepsDigest):
    """Epochs end with the validation rows; the weights of the best epoch are kept.

    Which is the best, the validation rows' `chosen_by` says: the greatest AUC or GAUC, or the least
    log loss. What is trained for something else than clicks has a measure of its own.
    """

    unsaid: ClassVar[tuple[str, ...]] = ("rows", "steps_per_epoch", "chosen_by")

    rows: Literal["train", "pool"] = "train"  # the split whose rows are learned from
    batch_size: int = Field(4096, ge=1)  # of all replicas together
    epochs: int = Field(10, ge=1)
    patience: int = Field(2, ge=1)  # epochs without a better one before it stops
    chosen_by: Literal["auc", "gauc", "log_loss"] = "auc"
    optimizer: Optimizer = Optimizer()
    seed: int = 1
    steps_per_epoch: int | None = Field(None, ge=1)  # an epoch is so many, of other rows each
    in_memory: bool = False  # hold the training rows in memory and shuffle them whole
    checkpoint_steps: int = Field(1000, ge=1)  # a killed run goes on from the last of these
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    positive_weight: float = Field(1.0, gt=0)  # of a row with a click, in the loss
    keep_negatives: float = Field(1.0, gt=0, le=1)  # share of the other rows that an epoch reads
    strategy: Literal["one_device", "mirrored", "multi_worker"] = "one_device"
    tensorboard: bool = False  # write what TensorBoard shows


class BackboneConfig(Strict):
    """A backbone by its registered name; every other key is an argument of its class."""

    model_config = Strict.model_config | {"extra": "allow"}

    backbone: str
    features: list[str] | None = None  # those it reads; all if not given

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        return values  # the backbone's own signature says which keys there are

    @property
    def arguments(self) -> dict[str, Any]:
        return self.model_extra or {}


class Export(Strict):
    """Where versions of the served model go, a folder a name."""

    directory: str = "saved_models"
    keep: int | None = Field(None, ge=1)  # the latest versions; older ones are deleted


class RetrievalConfig(Strict):
    """Similar earlier rows for every row of a dataset: `tfctr retrieve FILE`."""

    name: FolderName
    data: DataConfig
    method: Literal["bm25", "dense", "random"] = "bm25"  # random: any rows, to compare with
    fields: tuple[str, ...] = ()  # in which rows are compared, by bm25
    encoder: "RunConfig | None" = None  # whose vectors of fields are compared, by dense
    k: int = Field(10, ge=1)  # rows found for each
    pool: float = Field(1.0, gt=0, le=1)  # the first share of the rows, by time; 1: all before

    @model_validator(mode="after")
    def _fields_can_be_compared(self) -> "RetrievalConfig":
        _check_names(self.name, data=self.data)
        if bool(self.fields) != (self.method == "bm25"):
            needs = "needs the fields to compare" if self.method == "bm25" else "compares none"
            raise ValueError(f"fields: found {list(self.fields)}; {self.method} {needs}")
        if bool(self.encoder) != (self.method == "dense"):
            needs = "needs a run config" if self.method == "dense" else "reads none"
            raise ValueError(f"encoder: {self.method} {needs}")
        if self.encoder and (self.encoder.similar or self.encoder.framework):
            raise ValueError(f"encoder: {self.encoder.name} is no run of a plain backbone")
        if self.encoder and digest(self.encoder.data) != digest(self.data):
            raise ValueError(f"encoder: {self.encoder.name} is a run of other data")
        known = {
            feature.name: feature
            for feature in self.data.feature_schema
            if isinstance(feature, Categorical | MultiValued)
        }
        for name in self.fields:
            if name not in known:
                raise ValueError(
                    f"fields: {name!r} is not a categorical or multi-valued feature; those are: "
                    f"{', '.join(known) or 'none'}"
                )
        if len(set(self.fields)) < len(self.fields):
            raise ValueError(f"fields: must differ, found {', '.join(self.fields)}")
        return self


class SmallEncoder(Strict):
    """A BERT that learns a vocabulary and its weights of the training rows' texts alone."""

    vocabulary_size: int = Field(4000, ge=100)
    num_layers: int = Field(2, ge=1)
    hidden_dim: int = Field(128, ge=1)
    num_heads: int = Field(2, ge=1)
    max_tokens: int = Field(512, ge=4)
    training: Training = Training()


class EncoderConfig(Strict):
    """A language model that reads text: a preset by name, a folder, a folder in a package, or a
    small one that is trained here.

    A folder is beside the config file or in the `data_home`; with `package` it is within that
    Python package, which need not be one that can be imported.
    """

    preset: str | None = None  # of keras-nlp, e.g. bert_tiny_en_uncased
    folder: str | None = None
    package: str | None = None
    trained: SmallEncoder | None = None
    directory: str = Field(".", exclude=True)  # of the config file

    @model_validator(mode="after")
    def _is_one(self) -> "EncoderConfig":
        kinds = (self.preset, self.folder or self.package, self.trained)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError(
                "an encoder is either a preset, or a folder, maybe of a package, or trained here"
            )
        return self


class TextTemplate(Strict):
    """A sentence a row: `{feature}` stands for its value or values."""

    template: str
    max_tokens: int = Field(64, ge=4)  # the sentence's ends included

    @property
    def places(self) -> list[tuple[str, str | None]]:
        """Words, and the feature that stands behind them, if any, in order."""
        return [(words, name) for words, name, _, _ in string.Formatter().parse(self.template)]

    @property
    def features(self) -> list[str]:
        return [name for _, name in self.places if name is not None]

    @model_validator(mode="after")
    def _can_be_parsed(self) -> "TextTemplate":
        try:
            names = self.features
        except ValueError as error:
            raise ValueError(f"template: {error}; braces stand around a feature's name") from None
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"template: {{{name}}} stands in it twice")
        if not names:
            raise ValueError("template: no {feature} in it, so all rows would have one text")
        return self


class TextConfig(Strict):
    """Rows as sentences, in an encoder's tokens: `tfctr textify FILE`."""

    name: FolderName
    data: DataConfig
    encoder: EncoderConfig
    texts: dict[Name, TextTemplate] = Field(min_length=1)
    words: dict[str, dict[str, str]] = Field({})  # by feature: what to write for a value
    missing: str = Field("unknown", min_length=1)  # for no value, and for one out of vocabulary
    separator: str = Field("|", min_length=1)  # between the values of a list

    @model_validator(mode="after")
    def _features_exist(self) -> "TextConfig":
        _check_names(self.name, data=self.data)
        schema = self.data.feature_schema
        known = [feature.name for feature in schema]
        asked = {f"texts.{name}.template": text.features for name, text in self.texts.items()}
        for key, names in (asked | {"words": list(self.words)}).items():
            for name in names:
                if name not in known:
                    raise ValueError(f"{key}: no feature {name!r}; there are: {', '.join(known)}")
        for text in self.texts:
            for field in text_fields(text):
                if field in known:
                    raise ValueError(f"texts: {text!r} makes {field!r}, which is a feature's name")
        return self


def text_fields(text: str) -> tuple[str, str, str, str]:
    """What a text of this name leaves of a row: its tokens, where in them each feature stands, a
    key that equal texts share, and the text itself."""
    return (f"{text}_tokens", f"{text}_spans", f"{text}_text_key", f"{text}_text")


class KnowledgeConfig(Strict):
    """ROK's knowledge base: what a teacher makes of similar rows, from the row alone."""

    name: FolderName
    teacher: "RunConfig"
    embedding_dim: int = Field(16, ge=1)
    hidden_units: tuple[int, ...] = (256, 256)
    dropout: float = Field(0.1, ge=0, lt=1)
    imitation: float = Field(1.0, ge=0)  # weight of the teacher's hints in the loss
    contrastive: float = Field(0.1, ge=0)  # weight of telling rows apart with some fields hidden
    clicks: float = Field(0.0, ge=0)  # weight of the rows' own clicks
    mask_rate: float = Field(0.2, gt=0, lt=1)  # share of the fields hidden
    temperature: float = Field(0.2, gt=0)
    training: Training = Training()

    @property
    def data(self) -> DataConfig:
        return self.teacher.data

    @property
    def is_pretrained(self) -> bool:
        return bool(self.imitation or self.contrastive or self.clicks)

    @model_validator(mode="after")
    def _has_a_teacher(self) -> "KnowledgeConfig":
        if self.teacher.similar is None:
            raise ValueError(
                f"teacher: {self.teacher.name} is no teacher; a run with the key 'similar' is"
            )
        _check_names(self.name, data=self.data, similar=self.teacher.similar, teacher=self.teacher)
        return self


class SequencesConfig(Strict):
    """Windows of users' events, those of the training rows' time: `tfctr sequences FILE`."""

    name: FolderName
    data: DataConfig
    stride: int | None = Field(None, ge=1)  # events between the ends of windows; None: a window's
    held_out: float = Field(0.05, gt=0, lt=1)  # share of the users, for validation

    @model_validator(mode="after")
    def _has_histories(self) -> "SequencesConfig":
        _check_names(self.name, data=self.data)
        if not any(isinstance(feature, History) for feature in self.data.features):
            raise ValueError(f"data: {self.data.name!r} has no feature of kind history")
        return self


class SequenceEncoderConfig(_KeepsDigest):
    """An encoder of users' events that learned to infer hidden parts of them (FG-BERT)."""

    unsaid: ClassVar[tuple[str, ...]] = ("histories", "sampled_tokens")

    name: FolderName
    sequences: SequencesConfig
    histories: tuple[str, ...] | None = None  # what it reads of an event; all if not given
    dim: int = Field(32, ge=1)
    num_layers: int = Field(2, ge=1)
    num_heads: int = Field(2, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    mask_rate: float = Field(0.2, gt=0, lt=1)  # share of the events, for either group of parts
    last_rate: float = Field(0.1, ge=0, le=1)  # share of the windows whose last event is hidden
    sampled_tokens: int | None = Field(None, ge=1)  # told from the right one; None: all there are
    training: Training = Training()

    @property
    def data(self) -> DataConfig:
        return self.sequences.data

    @model_validator(mode="after")
    def _histories_exist(self) -> "SequenceEncoderConfig":
        _check_names(self.name, data=self.data, sequences=self.sequences)
        known = [f.name for f in self.data.features if isinstance(f, History)]
        for name in self.histories or ():
            if name not in known:
                raise ValueError(
                    f"histories: {name!r} is not a feature of kind history; those are: "
                    f"{', '.join(known)}"
                )
        if self.dim % self.num_heads:
            raise ValueError(f"dim: {self.dim} is not a multiple of num_heads, {self.num_heads}")
        return self


class Rok(Strict):
    """A student that carries a knowledge base (ROK, arXiv:2404.18304)."""

    name: Literal["rok"]
    knowledge: KnowledgeConfig
    use: tuple[Literal["instance", "feature"], ...] = Field(("instance", "feature"), min_length=1)
    tuned: bool = False  # the knowledge base is trained on, with the rest


class Ctrl(_KeepsDigest):
    """A student that started from a row's likeness to its text (CTRL, arXiv:2306.02841).

    Or one that learned both at once: with `clicks`, its training is that of the alignment too, and
    there is no `pretraining`.
    """

    unsaid: ClassVar[tuple[str, ...]] = ("clicks",)

    name: Literal["ctrl"]
    text: TextConfig
    pretrained: bool = True  # else the encoder starts at random
    trained_layers: int | None = Field(None, ge=0)  # of the encoder, the last ones; None: all of it
    num_subspaces: int = Field(4, ge=1)  # 1: the cosine
    projection_dim: int = Field(128, ge=1)
    subspace_dim: int = Field(32, ge=1)
    temperature: float = Field(0.1, gt=0)
    rows_at_a_time: int = Field(256, ge=1)  # whose scores, or texts, are in memory
    clicks: float | None = Field(None, gt=0)  # weight of the clicks, learned in the same stage
    pretraining: Training | None = Training()  # None: in the same stage

    @model_validator(mode="after")
    def _in_one_stage_or_two(self) -> "Ctrl":
        if (self.clicks is None) == (self.pretraining is None):
            raise ValueError(
                "a stage of its own aligns (pretraining, no clicks), or clicks are learned in the "
                f"same (clicks, pretraining: null); found clicks: {self.clicks} and pretraining: "
                f"{'null' if self.pretraining is None else 'given'}"
            )
        return self


class ClickPrompt(Strict):
    """A student that wrote prompts for a language model (ClickPrompt, arXiv:2310.09234)."""

    name: Literal["clickprompt"]
    text: TextConfig
    pretrained: bool = True  # else the encoder starts at random
    prompts: Literal["layers", "input", "none"] = "layers"  # where the encoder reads them
    num_prompts: int = Field(3, ge=1)
    mask_rate: float = Field(0.15, gt=0, lt=1)  # share of a text's tokens that are guessed
    pretraining: Training | None = Training()  # None: none
    serves_language_model: bool = False  # the student reads the text as well

    @model_validator(mode="after")
    def _has_one_text(self) -> "ClickPrompt":
        if len(self.text.texts) != 1:
            raise ValueError(f"text: a row needs one text, found {', '.join(self.text.texts)}")
        return self


class Srp4ctr(Strict):
    """A student with an encoder of the user's events (SRP4CTR, arXiv:2407.19658)."""

    name: Literal["srp4ctr"]
    encoder: SequenceEncoderConfig
    pretrained: bool = True  # else the encoder starts at random
    cross_attention: bool = True  # the candidate looks at each layer of the events
    num_queries: int = Field(4, ge=0)  # of the querying transformer; 0: none
    num_query_blocks: int = Field(1, ge=1)
    frozen: Literal["none", "embeddings", "all"] = "none"  # of the encoder


Framework = Annotated[Rok | Ctrl | ClickPrompt | Srp4ctr, Field(discriminator="name")]


class RunConfig(Strict):
    """One run: `tfctr run FILE`."""

    name: FolderName
    data: DataConfig
    similar: RetrievalConfig | None = None  # rows that the model reads beside each row
    framework: Framework | None = None  # around the model
    model: BackboneConfig
    starts_from: "RunConfig | Path | None" = None  # an earlier run, or the model.keras of one
    training: Training = Training()
    export: Export = Export()

    @model_validator(mode="after")
    def _start_is_open(self) -> "RunConfig":
        if self.starts_from is not None and self.text is not None:
            raise ValueError(
                f"starts_from: {self.framework.name} trains what its student starts from itself; "  # type: ignore[union-attr]
                "to train a finished one on, leave framework out"
            )
        return self

    @model_validator(mode="after")
    def _has_users_to_choose_by(self) -> "RunConfig":
        if self.training.chosen_by == "gauc" and self.data.user is None:
            raise ValueError("training.chosen_by: 'gauc' needs the key 'user' in data")
        return self

    @model_validator(mode="after")
    def _folders_differ(self) -> "RunConfig":
        knowledge, text, encoder = self.knowledge, self.text, self.sequence_encoder
        others = {
            "similar": self.similar,
            "framework.knowledge": knowledge,
            "framework.text": text,
            "framework.encoder": encoder,
        }
        for key, other in others.items():
            if other and digest(other.data) != digest(self.data):
                raise ValueError(
                    f"data: {self.data.name!r} is not the data of {key}, {other.data.name!r}"
                )
        _check_names(
            self.name,
            data=self.data,
            similar=self.similar,
            knowledge=knowledge,
            text=text,
            encoder=encoder,
            sequences=encoder and encoder.sequences,
            starts_from=self.starts_from if isinstance(self.starts_from, RunConfig) else None,
        )
        return self

    @property
    def knowledge(self) -> KnowledgeConfig | None:
        """What the model carries, of ROK."""
        return self.framework.knowledge if isinstance(self.framework, Rok) else None

    @property
    def text(self) -> TextConfig | None:
        """What a language model reads of the rows."""
        return self.framework.text if isinstance(self.framework, Ctrl | ClickPrompt) else None

    @property
    def sequence_encoder(self) -> SequenceEncoderConfig | None:
        """What the model carries, of SRP4CTR."""
        return self.framework.encoder if isinstance(self.framework, Srp4ctr) else None


RetrievalConfig.model_rebuild()
KnowledgeConfig.model_rebuild()
RunConfig.model_rebuild()


def _check_names(name: str, **others: Any) -> None:
    """Each has a folder of its own."""
    for what, other in others.items():
        if other is not None and other.name == name:
            raise ValueError(f"name: {name!r} is the {what}'s name too; they share a folder")


def load_retrieval(path: str | Path) -> RetrievalConfig:
    """A retrieval config; its `data` is a mapping or the path of a data config beside it, its
    `encoder` the path of a run config."""
    path = Path(path)
    content = with_data(path)
    if isinstance(content.get("encoder"), str):
        content["encoder"] = load_run(path.parent / content["encoder"])
    return validate(path, RetrievalConfig, content)


def load_text(path: str | Path) -> TextConfig:
    """A text config; its `data` is a mapping or the path of a data config beside it, and so are its
    `words`, of a file of nothing else."""
    path = Path(path)
    content = with_data(path)
    if isinstance(content.get("words"), str):
        content["words"] = read_yaml(path.parent / content["words"])
    if isinstance(content.get("encoder"), dict):
        content["encoder"] = content["encoder"] | {"directory": str(path.parent)}
    return validate(path, TextConfig, content)


def load_data(path: str | Path) -> DataConfig:
    """A data config: the file's own content, or the `data` of a run config."""
    path = Path(path)
    content = read_yaml(path)
    if "model" in content:
        return load_run(path).data
    return validate(path, DataConfig, content | {"directory": str(path.parent)})


def load_knowledge(path: str | Path) -> KnowledgeConfig:
    """The config of a knowledge base; its `teacher` is the path of a run config beside it."""
    path = Path(path)
    content = read_yaml(path)
    if isinstance(content.get("teacher"), str):
        content["teacher"] = load_run(path.parent / content["teacher"])
    return validate(path, KnowledgeConfig, content)


def load_sequences(path: str | Path) -> SequencesConfig:
    """A sequences config; its `data` is a mapping or the path of a data config beside it."""
    path = Path(path)
    return validate(path, SequencesConfig, with_data(path))


def load_sequence_encoder(path: str | Path) -> SequenceEncoderConfig:
    """The config of a sequence encoder; its `sequences` is the path of a config beside it."""
    path = Path(path)
    content = read_yaml(path)
    if isinstance(content.get("sequences"), str):
        content["sequences"] = load_sequences(path.parent / content["sequences"])
    return validate(path, SequenceEncoderConfig, content)


def load_run(path: str | Path) -> RunConfig:
    """A run config. What it is made from (`data`, `similar`, `starts_from`, the framework's
    `knowledge`, `text` or `encoder`) may be the path of another config beside it; `data` is theirs
    if not given, but for `starts_from`, which has its own."""
    path = Path(path)
    return validate(path, RunConfig, read_run(path))


def read_run(path: Path) -> dict[str, Any]:
    """The content of a run config, with the configs that it names in their places."""
    content = with_data(path)
    similar, framework = content.get("similar"), content.get("framework")
    if (start := content.get("starts_from")) is not None:
        if not isinstance(start, str) or not start.endswith((".yaml", ".yml", ".keras")):
            raise ConfigError(
                f"{path}: starts_from: found {start!r}; allowed: the path of a run config (.yaml), "
                "or of the model.keras of a run"
            )
        beside = path.parent / start
        content["starts_from"] = beside if start.endswith(".keras") else load_run(beside)
    if isinstance(similar, str):
        content["similar"] = load_retrieval(path.parent / similar)
        content.setdefault("data", content["similar"].data)
    loaders = (
        ("knowledge", load_knowledge),
        ("text", load_text),
        ("encoder", load_sequence_encoder),
    )
    for key, load in loaders:
        if isinstance(framework, dict) and isinstance(framework.get(key), str):
            made_from = load(path.parent / framework[key])
            content["framework"] = framework | {key: made_from}
            content.setdefault("data", made_from.data)
    return content


def with_data(path: Path) -> dict[str, Any]:
    """The content of a config whose `data` is a mapping, or the path of a config beside it."""
    content = read_yaml(path)
    data = content.get("data")
    if isinstance(data, str):
        content["data"] = load_data(path.parent / data)
    elif isinstance(data, dict):
        content["data"] = data | {"directory": str(path.parent)}
    return content


def digest(value: Any) -> str:
    """A short hash of a config or of anything that JSON can hold; equal values, equal hashes."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def data_digest(manifest: Mapping[str, Any]) -> str:
    """Of a dataset's manifest: the same as long as its rows are."""
    return digest([manifest["config_digest"], manifest["inputs"]])


def data_home() -> Path:
    """The folder of downloaded archives: `$TFCTR_DATA_HOME`, else `~/.cache/tfctr`."""
    return Path(os.environ.get(HOME_VARIABLE) or "~/.cache/tfctr").expanduser()


def find_input(path: str, directory: str) -> Path:
    """An input path of a config: beside the file, or in the `data_home`."""
    candidates = [Path(directory) / path, data_home() / path]
    for candidate in candidates:
        if candidate.exists() or ("*" in path and any(candidate.parent.glob(candidate.name))):
            return candidate
    tried = " and ".join(str(candidate) for candidate in candidates)
    raise ConfigError(
        f"source: no file {path!r}; looked for {tried}. {HOME_VARIABLE} names another folder, and "
        "`tfctr download` fetches public data there"
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a file; what is no mapping in YAML is a `ConfigError`."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a mapping is needed, found {type(content).__name__}")
    return content


def validate(path: Path, model: type[Model], content: dict[str, Any], under: str = "") -> Model:
    """The model of a file's content; `under` is the key that the content stands under."""
    try:
        return model.model_validate(content)
    except ValidationError as errors:
        lines = [_line(path, error, under) for error in errors.errors()]
        raise ConfigError("\n".join(lines)) from None


# pydantic names the chosen kind, format, schedule or framework as if it were a key.
_KINDS = {"categorical", "multi_valued", "sequence", "history", "numeric", "text", "tokens"}
_FORMATS = {"csv", "jsonl", "parquet", "movielens", "world"}
_SCHEDULES = {"cosine", "linear", "exponential", "plateau"}
_FRAMEWORKS = {"rok", "ctrl", "clickprompt", "srp4ctr"}


def _line(path: Path, error: Any, key: str) -> str:
    for part in error["loc"]:
        if isinstance(part, int):
            key += f"[{part}]"
        elif part not in _KINDS | _FORMATS | _SCHEDULES | _FRAMEWORKS:
            key += f".{part}" if key else str(part)
    message = error["msg"].removeprefix("Value error, ")
    found = error["input"]
    if error["type"] == "value_error":
        return f"{path}: {key + ': ' if key else ''}{message}"
    if error["type"] == "missing":
        return f"{path}: {key}: missing; it is required"
    shown = repr(found) if not isinstance(found, dict | list) else type(found).__name__
    if error["type"].startswith("union_tag"):
        context = error["ctx"]
        tag = context["discriminator"].strip("'")
        shown = repr(found.get(tag)) if isinstance(found, dict) else shown
        allowed = context.get("expected_tags", "")
        return f"{path}: {key}.{tag}: found {shown}; allowed: {allowed or 'see the docs'}"
    return f"{path}: {key}: found {shown}; {message[0].lower() + message[1:]}"
