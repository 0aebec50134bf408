"""Configs of data: from raw logs to a dataset directory."""

import datetime
import importlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tfctr.config.base import FOLLOWS, ConfigError, FolderName, digest, directory_of
from tfctr.config.features import is_pattern, read_defaults, with_defaults, written_out
from tfctr.schema import (
    REQUEST_KINDS,
    Categorical,
    History,
    Name,
    OtherFeature,
    Schema,
    Side,
    Strict,
    as_shared,
    check_has_tokens,
)

HOME_VARIABLE = "TFCTR_DATA_HOME"


class Table(Strict):
    """A table of users or items, joined to the events on `key`."""

    path: str
    key: str
    columns: list[str] | None = None  # names, for a delimited file without a header line


class FileSource(Strict):
    """Events, and tables joined to them, each from files of one format.

    Paths are relative to the config file, or to `TFCTR_DATA_HOME`; folders, globs and lists name
    several files.
    In a CSV file each line is a record: store text with line breaks in JSON Lines or Parquet.
    """

    format: Literal["csv", "jsonl", "parquet"]  # of files whose extension says nothing
    events: str | tuple[str, ...]
    users: Table | None = None
    items: Table | None = None
    columns: list[str] | None = None  # names, for a delimited file without a header line
    # None: a comma, or a tab in `.tsv`
    separator: str | None = Field(None, max_length=4, pattern=r'^[^"\r\n]+$')
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    missing: tuple[str, ...] = ()  # texts of delimited files that stand for no value, e.g. NULL
    decimal: Literal[".", ","] = "."  # of numbers in delimited files


class TwoDomains(Strict):
    """MovieLens as organic rows and ads, day by day (`tfctr.data.two_domains`)."""

    days: int = Field(96, ge=1)  # with equally many rows
    ads_items: float = Field(0.2, ge=0, le=1)  # share of the movies that are advertised
    ads_share: float = Field(0.15, ge=0, le=1)  # share of their ratings that are ads


class MovieLensSource(Strict):
    """MovieLens 1M or 100K: a zip as published, or the folder unpacked from it."""

    format: Literal["movielens"]
    path: str = "ml-1m.zip"
    two_domains: TwoDomains | None = None  # adds the columns domain, click and day_time


class WorldSource(Strict):
    """The generated world (`tfctr.data.World`)."""

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


SourceConfig = Annotated[FileSource | MovieLensSource | WorldSource, Field(discriminator="format")]


class Label(Strict):
    """Which rows are clicks. Without `positive_above` the column holds 0 and 1."""

    column: str
    positive_above: float | None = None
    drop: tuple[float, ...] = ()  # rows with these values are left out, e.g. 3 of 5 stars


class Time(Strict):
    """The time of a row, int64 in the dataset, in `unit` since 1970, or of no date (`none`)."""

    column: str
    unit: Literal["s", "ms", "us", "none"] = "s"
    format: str | None = None  # of texts and digits, as Python's strptime reads it
    since: datetime.date | None = None  # the first day (UTC) whose rows are read; None: all
    before: datetime.date | None = None  # the first day (UTC) whose rows are not

    @model_validator(mode="after")
    def _days_are_in_order(self) -> "Time":
        for key in ("since", "before"):
            if getattr(self, key) is not None and self.unit == "none":
                raise ValueError(f"{key}: is a date, which needs unit: s, ms or us; found 'none'")
        if self.since is not None and self.before is not None and self.since >= self.before:
            raise ValueError(
                f"before: found {self.before}; no day is before it and not before since, "
                f"{self.since}"
            )
        return self

    @model_validator(mode="after")
    def _format_holds_a_date(self) -> "Time":
        if self.format is None:
            return self
        if self.unit == "none":
            raise ValueError("format: gives dates, which need unit: s, ms or us; found 'none'")
        moment = datetime.datetime(2001, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
        try:
            found = datetime.datetime.strptime(moment.strftime(self.format), self.format)
        except (ValueError, re.error) as error:
            raise ValueError(f"format: {error}; found {self.format!r}") from None
        if found.date() != moment.date():
            raise ValueError(
                f"format: needs year, month and day, such as '%y%m%d%H', found {self.format!r}"
            )
        return self


class HoldOut(Strict):
    """A share of a categorical feature's tokens, without training rows: what a model says of tokens
    that it has never seen can be measured on their rows in validation and test."""

    feature: Name
    share: float = Field(gt=0, lt=1)  # of the tokens
    seed: int = 0


class Split(Strict):
    """Shares of the rows (of each user's rows, for `user_time`) in validation and test.

    The pool holds the first rows by time. They are not trained on, but retrieved for later rows;
    vocabularies include them.
    """

    by: Literal["global_time", "user_time", "random"] = "global_time"
    valid: float = Field(0.1, ge=0, lt=1)
    test: float = Field(0.1, ge=0, lt=1)
    pool: float = Field(0.0, ge=0, lt=1)  # of global_time
    seed: int = 0  # of the random split
    hold_out: HoldOut | None = None

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


class SplitByColumn(Strict):
    """The split of each row is given, in a column of the events. There may be no test rows."""

    by: Literal["column"]
    column: str
    train: Annotated[str, BeforeValidator(str)] = "train"  # the column's value in training rows
    valid: Annotated[str, BeforeValidator(str)] = "valid"
    test: Annotated[str, BeforeValidator(str)] = "test"

    @model_validator(mode="after")
    def _differ(self) -> "SplitByColumn":
        values = (self.train, self.valid, self.test)
        if len(set(values)) < len(values):
            raise ValueError(f"train, valid and test must differ, found {', '.join(values)}")
        return self


def several(paths: Any) -> tuple[str, ...]:
    """The paths that a key names, be it one or a list of them."""
    return (paths,) if isinstance(paths, str) else tuple(paths)


Paths = Annotated[tuple[str, ...], BeforeValidator(several)]


class SplitByFile(Strict):
    """Each split has files of its own; the source has no key `events` then."""

    by: Literal["file"]
    train: Paths
    valid: Paths
    test: Paths = ()


def _how_split(value: Any) -> str:
    by = value.get("by") if isinstance(value, dict) else getattr(value, "by", None)
    return by if by in ("column", "file") else "shares"


SplitConfig = Annotated[
    Annotated[Split, Tag("shares")]
    | Annotated[SplitByColumn, Tag("column")]
    | Annotated[SplitByFile, Tag("file")],
    Discriminator(_how_split),
]


def with_directory(values: Any, path: Any) -> Any:
    """The content of a config with the `directory` of the file that contains `path`."""
    if isinstance(values, dict) and "directory" not in values:
        return values | {"directory": str(directory_of(path))}
    return values


class InputFiles(Strict):
    """Files that a config names beside those of its data: a path, folder, glob, or a list of them,
    relative to the config file or to `TFCTR_DATA_HOME`."""

    files: Paths = Field(min_length=1)
    directory: str = Field(".", exclude=True)  # of the config file

    @model_validator(mode="before")
    @classmethod
    def _knows_its_folder(cls, values: Any) -> Any:
        found = values.get("files") if isinstance(values, dict) else None
        return with_directory(values, found[0] if isinstance(found, list) and found else found)


class TokenFiles(InputFiles):
    """Parquet files with tokens of a feature, such as a shop's catalogue."""

    column: str | None = None  # with the tokens; None: that of the feature


class CategoricalOfLog(Categorical):
    """A categorical feature of a data config, whose vocabulary may have further tokens.

    Those of the files that are not in the vocabulary of the training rows follow behind it, sorted.
    """

    tokens: TokenFiles | None = None

    @model_validator(mode="before")
    @classmethod
    def _may_be_of_a_schema(cls, values: Any) -> Any:
        is_plain = isinstance(values, Categorical) and not isinstance(values, cls)
        return values.model_dump() if is_plain else values

    @model_validator(mode="after")
    def _keeps_its_tokens(self) -> "CategoricalOfLog":
        if self.tokens is not None:
            check_has_tokens(self, "tokens", "leave tokens out: each token has a bucket already")
        return self

    def of_models(self) -> Categorical:
        """What a model knows of it."""
        return Categorical(**self.model_dump(exclude={"tokens"}))


Features = Annotated[
    tuple[Annotated[CategoricalOfLog | OtherFeature, Field(discriminator="kind")], ...],
    Field(min_length=1),
    AfterValidator(as_shared),
]


class DataConfig(Strict):
    """The config of a dataset: source, label, features and splits."""

    name: FolderName
    source: SourceConfig
    label: Label
    time: Time | None = None  # needed by splits by time and by histories
    user: str | None = None  # the feature that identifies users (GAUC, unseen users)
    item: str | None = None
    split: SplitConfig = Split()
    directory: str = Field(".", exclude=True)  # that the source's paths are relative to
    # Values of keys for the features that do not give their own; they are part of the features.
    defaults: Annotated[dict[str, Any], BeforeValidator(read_defaults)] = Field({}, exclude=True)
    features: Features
    history_events: Literal["all", "clicks"] = "all"  # which earlier rows enter a history
    min_history: int = Field(0, ge=0)  # earlier events of its user that an example needs
    max_bad_share: float = Field(0.01, ge=0, le=1)  # of all rows; more stops the run
    compression: Literal["none", "gzip"] = "none"

    @property
    def feature_schema(self) -> Schema:
        """The features as models know them."""
        return Schema(
            features=tuple(
                feature.of_models() if isinstance(feature, CategoricalOfLog) else feature
                for feature in self.features
            )
        )

    @model_validator(mode="before")
    @classmethod
    def _knows_its_folder(cls, values: Any) -> Any:
        source = values.get("source") if isinstance(values, dict) else None
        path = source.get("events", source.get("path")) if isinstance(source, dict) else None
        return with_directory(values, path[0] if isinstance(path, list | tuple) and path else path)

    @model_validator(mode="before")  # runs before the one above
    @classmethod
    def _reads_the_files_of_the_split(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        source, split = values.get("source"), values.get("split")
        if not isinstance(source, dict) or _how_split(split) != "file":
            return values
        split = split if isinstance(split, dict) else vars(split)
        files = [
            path for name in ("train", "valid", "test") for path in several(split.get(name, ()))
        ]
        if list(several(source.get("events", files))) != files:
            raise ValueError(
                "source.events: the files are those of split (by: file); leave events out"
            )
        return values | {"source": source | {"events": files}}

    @field_validator("features", mode="wrap")
    @classmethod
    def _written_out(
        cls, value: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        if not isinstance(value, list | tuple):
            return validate(value)
        if "defaults" not in info.data:  # they have an error, which is reported
            raise PydanticCustomError(FOLLOWS, "not known")
        features = with_defaults(value, info.data["defaults"])
        if not any(map(is_pattern, features)):
            return validate(features)
        if not {"source", "label", "time", "split", "directory"} <= info.data.keys():
            raise PydanticCustomError(FOLLOWS, "not known")
        label, time, split = (info.data[key] for key in ("label", "time", "split"))
        without = [label.column] + ([time.column] if time else [])
        if isinstance(split, SplitByColumn):
            without.append(split.column)

        def columns() -> tuple[str, ...]:
            # Only such a config reads files.
            sources = importlib.import_module("tfctr.data.sources")
            try:
                found: tuple[str, ...] = sources.columns(info.data["source"], directory)
            except ConfigError as error:
                raise ValueError(f"the columns of the files are needed: {error}") from None
            return found

        directory = info.data["directory"]
        return validate(written_out(features, validate, columns, without))

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
        if self.min_history and (self.user is None or self.time is None):
            missing = "user" if self.user is None else "time"
            raise ValueError(f"min_history: earlier events of a user need the key {missing!r}")
        if self.time is None and self.split.by in ("global_time", "user_time"):
            raise ValueError(
                f"split.by: {self.split.by!r} needs the key 'time'; without times give a split by "
                "random, column or file"
            )
        hold_out = self.split.hold_out if isinstance(self.split, Split) else None
        known = [feature.name for feature in schema if isinstance(feature, Categorical)]
        if hold_out is not None and hold_out.feature not in known:
            raise ValueError(
                f"split.hold_out.feature: {hold_out.feature!r} is not a categorical feature; those "
                f"are: {', '.join(known) or 'none'}"
            )
        for feature in schema:
            if isinstance(feature, REQUEST_KINDS):
                raise ValueError(
                    f"feature {feature.name!r}: kind: found {feature.kind!r}, which is an input of "
                    "requests, not a feature of data; a text config makes tokens, the methods "
                    "vectors and cold_items read vectors"
                )
            if isinstance(feature, History):
                if self.user is None:
                    raise ValueError(f"feature {feature.name!r}: a history needs the key 'user'")
                if self.time is None:
                    raise ValueError(f"feature {feature.name!r}: a history needs the key 'time'")
                continue  # it may read even the label, of earlier rows
            if feature.source_column == self.label.column:
                raise ValueError(
                    f"feature {feature.name!r} reads the label's column {self.label.column!r}"
                )
        return self


def data_digest(manifest: Mapping[str, Any]) -> str:
    """A digest of a dataset's manifest; equal for equal rows."""
    return digest([manifest["config_digest"], manifest["inputs"]])


def data_home() -> Path:
    """The folder of downloaded archives: `$TFCTR_DATA_HOME`, else `~/.cache/tfctr`."""
    return Path(os.environ.get(HOME_VARIABLE) or "~/.cache/tfctr").expanduser()


def input_folders(directory: str) -> list[Path]:
    """The folders that an input path of a config may be relative to, in this order: that of its
    file, and the `data_home`."""
    return [Path(directory), data_home()]


def find_input(path: str, directory: str) -> Path:
    """An input path of a config, relative to one of the `input_folders`.

    Raises:
        NoInput: there is no such file or folder.
    """
    for folder in input_folders(directory):
        if (folder / path).exists():
            return folder / path
    raise no_input(path, directory)


class NoInput(ConfigError):
    """No file of a source is there."""


def no_input(path: str, directory: str) -> NoInput:
    """The error of a path that names no file."""
    tried = list(dict.fromkeys(folder / path for folder in input_folders(directory)))
    empty = next((place for place in tried if place.is_dir()), None)
    if empty is not None:
        return NoInput(
            f"source: no data file in {empty}; files and folders whose names begin with _ or . are "
            "not read"
        )
    return NoInput(
        f"source: no file {path!r}; looked for {' and '.join(map(str, tried))}. {HOME_VARIABLE} "
        "names another folder, and `tfctr download` fetches public data there"
    )
