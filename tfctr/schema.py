"""The schema: each feature's kind and side, and its statistics measured by `prepare`."""

import difflib
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

PAD_ID = 0  # missing, empty, or padding after the last value of a list
OOV_ID = 1  # out of vocabulary
MASK_ID = 2  # never in data; pre-training replaces masked values by it
FIRST_TOKEN_ID = 3  # the most frequent token

MISSING_INT = -(2**63)
"""The missing value of raw int64 features; strings use `""`, floats NaN."""

FILLED_IN = (  # not written by hand
    *("vocabulary_size", "mean", "std", "median", "iqr"),
    "directory",
)

SMALLEST_SCALE = 1.2e-38  # a smaller number is 0 in float32
QUARTILES_APART = 1.349  # of a normal distribution, in deviations

# Limits of scaled numbers, by `transform`: products must stay finite, and training rows hold the
# outliers of a robust feature too.
LARGEST_SCALED = {"standardize": 1e3, "log": 1e3, "robust": 10.0, "none": 1e9}

# Scaled numbers above which people are warned of an outlier.
FAR_SCALED = {"standardize": 100.0, "log": 100.0, "none": LARGEST_SCALED["none"]}

Side: TypeAlias = Literal["user", "item", "context"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class Strict(BaseModel):
    """A mapping of a config file: an unknown key is an error that lists the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_serializer(mode="wrap")
    def _with_its_kind(self, serialize: SerializerFunctionWrapHandler) -> Any:
        """A key with one allowed value identifies the class: it is written even if defaults are
        left out."""
        kinds = {
            key: getattr(self, key)
            for key, field in type(self).model_fields.items()
            if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
        }
        return kinds | serialize(self)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for key in values:
                if key not in cls.model_fields:
                    near = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                    hint = f" (did you mean {near[0]!r}?)" if near else ""
                    allowed = ", ".join(k for k in cls.model_fields if k not in FILLED_IN)
                    raise ValueError(f"unknown key {key!r}{hint}; allowed: {allowed}")
        return values


class _Feature(Strict):
    name: Name
    side: Side
    column: str | None = None  # in the source; the feature's name if not given

    is_list: ClassVar[bool] = False
    is_model_input: ClassVar[bool] = True

    @property
    def source_column(self) -> str:
        return self.column or self.name


class _Tokens(_Feature):
    """A feature whose values are tokens of a vocabulary."""

    dtype: Literal["string", "int"] = "string"  # of the raw values
    min_count: int = Field(1, ge=1)  # rarer tokens in the training rows become OOV
    # A token is replaced by the number of its bucket, which may be that of others too.
    hash_buckets: int | None = Field(None, ge=2, lt=2**31)
    vocabulary_size: int | None = Field(None, ge=FIRST_TOKEN_ID)  # ids, specials included; measured

    @property
    def vocabulary(self) -> str:
        """The name of the vocabulary that its tokens are looked up in."""
        return self.name

    @property
    def num_ids(self) -> int:
        if self.vocabulary_size is None:
            raise ValueError(
                f"feature {self.name!r} has no vocabulary yet: take the schema of a prepared "
                "dataset (tfctr.data.Dataset.open(...).schema), not the one of a config file"
            )
        return self.vocabulary_size


class Categorical(_Tokens):
    """One token per row."""

    kind: Literal["categorical"] = "categorical"


class _TokenList(_Tokens):
    max_length: int = Field(ge=1)
    separator: str = Field("|", min_length=1)  # between values, where the source has text columns

    is_list: ClassVar[bool] = True


class MultiValued(_TokenList):
    """A set of tokens per row, e.g. genres; the first `max_length` are kept."""

    kind: Literal["multi_valued"] = "multi_valued"


class Sequence(_TokenList):
    """Tokens in order of time, e.g. what a user clicked; the last `max_length` are kept."""

    kind: Literal["sequence"] = "sequence"
    shares: Name | None = None  # the feature whose vocabulary and embeddings it uses

    @property
    def vocabulary(self) -> str:
        return self.shares or self.name


class History(Sequence):
    """Tokens of the user's latest `max_length` earlier events, made by `prepare`, oldest first.

    `column` is a column of the log or of a joined table, with one value per event; the default is
    that of the shared feature. All histories of one `max_length` hold the same event at the same
    index; a missing value is `PAD_ID`.
    """

    kind: Literal["history"] = "history"  # type: ignore[assignment]
    side: Literal["user"] = "user"
    separator: ClassVar[None] = None  # type: ignore[misc]  # only lists in text columns have it


class Numeric(_Feature):
    """A float per row; missing values are replaced by the mean, or have their own bucket.

    `transform` says what a model reads of a number `x`:

    - standardize: `(x - mean) / std`;
    - robust: `(x - median) / (iqr / 1.349)`, which is the same for a normal distribution;
    - log: what is standardised is `sign(x) log(1 + |x|)`;
    - bucketize: the number of its bucket; none: `x`.
    """

    kind: Literal["numeric"] = "numeric"
    transform: Literal["standardize", "robust", "log", "bucketize", "none"] = "standardize"
    num_buckets: int = Field(32, ge=2, le=4096)  # with equal counts, if no boundaries are given
    boundaries: tuple[float, ...] | None = None  # given, or measured
    mean: float | None = None  # measured on training rows
    std: float | None = None  # measured on training rows; with `log` both are of the logarithms
    median: float | None = None  # measured on training rows, for `robust`
    iqr: float | None = None  # the same; the range from the first to the third quartile

    @field_validator("boundaries")
    @classmethod
    def _ascending(cls, values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if values is not None and any(a >= b for a, b in itertools.pairwise(values)):
            raise ValueError(f"boundaries must ascend strictly, found {list(values)}")
        return values

    @property
    def center_and_scale(self) -> tuple[float, float]:
        """What is subtracted from a number (or its logarithm), and what it is then divided by."""
        if self.transform == "none":
            return 0.0, 1.0
        robust = self.transform == "robust"
        center, spread = (self.median, self.iqr) if robust else (self.mean, self.std)
        if center is None or spread is None:
            raise ValueError(f"feature {self.name!r} was not measured yet: prepare the data first")
        scale = spread / QUARTILES_APART if robust else spread
        return center, scale if scale >= SMALLEST_SCALE else 1.0

    def scaled(self, number: float) -> float:
        """What a model reads of a number, before it is clipped to `LARGEST_SCALED`."""
        if self.transform == "log":
            number = math.copysign(math.log1p(abs(number)), number)
        center, scale = self.center_and_scale
        return (number - center) / scale

    @property
    def num_ids(self) -> int:
        """Rows of an embedding table when bucketized: one for "missing", then the buckets."""
        if self.boundaries is None:
            raise ValueError(f"feature {self.name!r} has no boundaries yet: prepare the data first")
        return len(self.boundaries) + 2


class Text(_Feature):
    """A string for language models; no backbone reads it."""

    kind: Literal["text"] = "text"

    is_model_input: ClassVar[bool] = False


class Tokens(_Feature):
    """The tokens of a text, padded with `pad_id`: an input of a served language model, not a
    feature of data."""

    kind: Literal["tokens"] = "tokens"
    side: Literal["item"] = "item"
    max_length: int = Field(ge=1)
    pad_id: int = Field(ge=0)

    is_list: ClassVar[bool] = True
    dtype: ClassVar[str] = "int"


class Vector(_Feature):
    """The vector of a token that a model has none of: an input of requests, not a feature of data.

    Missing: all its numbers are NaN.
    """

    kind: Literal["vector"] = "vector"
    max_length: int = Field(ge=1)  # numbers; no vector has fewer

    is_list: ClassVar[bool] = True


OtherFeature: TypeAlias = MultiValued | Sequence | History | Numeric | Text | Tokens | Vector
Feature: TypeAlias = Annotated[Categorical | OtherFeature, Field(discriminator="kind")]
TOKEN_KINDS = (Categorical, MultiValued, Sequence)  # a History is a Sequence
REQUEST_KINDS = (Tokens, Vector)  # that data configs do not have


def check_has_tokens(feature: Any, key: str, why: str) -> None:
    """Checks a feature of which more is needed than ids.

    Args:
        feature: of any kind.
        key: of the config, for the message.
        why: what its tokens are needed for.

    Raises:
        ValueError: the feature is hashed.
    """
    if getattr(feature, "hash_buckets", None):
        raise ValueError(
            f"{key}: feature {feature.name!r} has hash_buckets, so its tokens are not kept; {why}"
        )


def as_shared(features: tuple[Any, ...]) -> tuple[Any, ...]:
    """A feature with `shares` inherits the dtype, and a history the column, unless given."""
    owners = {f.name: f for f in features if isinstance(f, TOKEN_KINDS)}
    filled = []
    for feature in features:
        owner = owners.get(getattr(feature, "shares", None) or "")
        if owner is not None:
            inherited: dict[str, Any] = {}
            if "dtype" not in feature.model_fields_set:
                inherited["dtype"] = owner.dtype
            if owner.hash_buckets and feature.hash_buckets is None:
                inherited["hash_buckets"] = owner.hash_buckets
            if isinstance(feature, History) and feature.column is None:
                inherited["column"] = owner.source_column
            feature = feature.model_copy(update=inherited)
        filled.append(feature)
    return tuple(filled)


Features: TypeAlias = Annotated[tuple[Feature, ...], Field(min_length=1), AfterValidator(as_shared)]


class Schema(Strict):
    """The features in order. `fitted` fills in the statistics of `prepare` (sizes, means).

    Attributes:
        dataset: the directory of the dataset that it was measured on, whose vocabularies give a
            model's raw rows their ids; None if it was read from elsewhere, such as a saved model.
    """

    features: Features
    _dataset: Path | None = PrivateAttr(None)

    @property
    def dataset(self) -> Path | None:
        return self._dataset

    def measured_on(self, dataset: Path | None) -> "Schema":
        """A copy with the directory of its dataset."""
        copy = self.model_copy()
        copy._dataset = dataset
        return copy

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.features == other.features

    def __hash__(self) -> int:
        return hash(self.features)

    @model_validator(mode="after")
    def _consistent(self) -> "Schema":
        names = [feature.name for feature in self.features]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"feature {name!r} is given twice")
        for feature in self.features:
            if isinstance(feature, Sequence) and feature.shares is not None:
                other = next((f for f in self.features if f.name == feature.shares), None)
                if not isinstance(other, Categorical | MultiValued):
                    raise ValueError(
                        f"feature {feature.name!r} shares {feature.shares!r}, which is not a "
                        f"categorical or multi_valued feature; features are: {', '.join(names)}"
                    )
                if other.dtype != feature.dtype:
                    raise ValueError(
                        f"feature {feature.name!r} has dtype {feature.dtype!r} but shares "
                        f"{feature.shares!r} of dtype {other.dtype!r}"
                    )
                if other.hash_buckets != feature.hash_buckets:
                    raise ValueError(
                        f"feature {feature.name!r} has hash_buckets {feature.hash_buckets} but "
                        f"shares {feature.shares!r} with {other.hash_buckets}; leave it out"
                    )
            if isinstance(feature, History):
                self._refuse_lists(feature)
        return self

    def _refuse_lists(self, history: History) -> None:
        for other in self.features:
            if not isinstance(other, MultiValued | Sequence) or isinstance(other, History):
                continue
            how = f"shares {other.name!r}" if history.shares == other.name else None
            if history.source_column == other.source_column:
                how = how or f"reads column {other.source_column!r} of {other.name!r}"
            if how is not None:
                raise ValueError(
                    f"feature {history.name!r} {how}, a {other.kind} feature; a history takes "
                    "columns with one value an event"
                )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return iter(self.features)

    def __getitem__(self, name: str) -> Any:
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(f"no feature {name!r}; there are: {', '.join(f.name for f in self)}")

    @property
    def inputs(self) -> tuple[Any, ...]:
        """The features a backbone reads: all but text. Their number is `F`."""
        return tuple(feature for feature in self if feature.is_model_input)

    def side(self, *sides: Side) -> tuple[Any, ...]:
        """The model inputs of these sides, in order."""
        return tuple(feature for feature in self.inputs if feature.side in sides)

    def select(self, names: list[str] | tuple[str, ...]) -> "Schema":
        """The schema with only these features, in the schema's own order.

        A vocabulary's owner may be left out: each feature keeps its measured sizes.
        """
        for name in names:
            _ = self[name]
        kept = [feature for feature in self if feature.name in names]
        selected = Schema(
            features=tuple(
                feature.model_copy(update={"shares": None})
                if isinstance(feature, Sequence) and feature.shares not in names
                else feature
                for feature in kept
            )
        )
        return selected.measured_on(self.dataset)

    def fitted(self, measured: dict[str, dict[str, Any]]) -> "Schema":
        """A copy with measured statistics `{feature name: {field: value}}`."""
        return Schema(
            features=tuple(
                type(feature).model_validate(feature.model_dump() | measured.get(feature.name, {}))
                for feature in self
            )
        )
