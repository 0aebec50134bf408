"""The config of a run: data, a backbone, methods around it, its training and its export."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tfctr.config.base import (
    FOLLOWS,
    FolderName,
    chosen,
    digest,
    directory_of,
    from_file,
    load,
    read,
    validate,
)
from tfctr.config.calibration import Calibration
from tfctr.config.data import DataConfig
from tfctr.config.method import Method, registered
from tfctr.config.training import Training
from tfctr.schema import Categorical, Schema, Strict


class BackboneConfig(Strict):
    """A backbone by its registered name; every other key is an argument of its class."""

    model_config = Strict.model_config | {"extra": "allow"}

    backbone: str
    features: list[str] | None = None  # the features that it reads; None: all

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        return values  # the backbone's signature defines its keys

    @property
    def arguments(self) -> dict[str, Any]:
        return self.model_extra or {}

    def create(self, schema: Schema) -> Any:
        """The backbone, untrained; `schema` is the dataset's, fitted.

        Raises:
            ValueError: no such backbone, or it has no such argument.
        """
        from tfctr import backbones

        kept = schema.select(self.features) if self.features else schema
        return backbones.create(self.backbone, kept, **self.arguments)


class Export(Strict):
    """The folder of exported models, with a folder of versions for each name."""

    directory: str = "saved_models"
    keep: int | None = Field(None, ge=1)  # the latest versions; older ones are deleted
    tables: Literal["float32", "int8"] = "float32"  # the numbers of embedding tables


def _read_start(value: Any) -> Any:
    if value is None or isinstance(value, RunConfig | Path):
        return value
    if isinstance(value, str) and value.endswith(".keras"):
        return directory_of(value) / value
    if not isinstance(value, str) or not value.partition("#")[0].endswith((".yaml", ".yml")):
        raise ValueError(
            f"found {value!r}; allowed: the path of a run config (.yaml), or of the model.keras of "
            "a run"
        )
    return load(directory_of(value) / value, RunConfig)


class RunConfig(Strict):
    """One run: `tfctr run FILE`."""

    name: FolderName
    # Methods around the model, the innermost first.
    frameworks: tuple[Annotated[SerializeAsAny[Method], chosen(registered)], ...] = ()
    # Default: the data of the methods.
    data: Annotated[DataConfig, from_file(lambda: DataConfig)] = Field(None, validate_default=True)
    model: BackboneConfig
    # An earlier run, or its model.keras.
    starts_from: Annotated["RunConfig | Path | None", BeforeValidator(_read_start)] = None
    training: Training = Training()
    calibration: Calibration | None = None  # of the trained model's probabilities
    predictions: bool = False  # write the probabilities of validation and test rows, with their ids
    export: Export = Export()

    @model_validator(mode="before")
    @classmethod
    def _has_no_old_keys(cls, values: Any) -> Any:
        for key in ("framework", "similar"):
            if isinstance(values, dict) and key in values:
                raise ValueError(
                    f"{key}: methods are a list now: frameworks: [{{name: ..., ...}}], the "
                    "innermost first; CHANGELOG.md describes how to rewrite old keys"
                )
        return values

    @field_validator("data", mode="before")
    @classmethod
    def _data_of_the_frameworks(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            return value
        if "frameworks" not in info.data:  # they have an error, which is reported
            raise PydanticCustomError(FOLLOWS, "not known")
        for method in info.data["frameworks"]:
            for part in method.parts.values():
                if (data := getattr(part, "data", None)) is not None:
                    return data
        raise ValueError("missing; it is required")

    @model_validator(mode="after")
    def _fits(self) -> "RunConfig":
        if self.training.chosen_by == "gauc" and self.data.user is None:
            raise ValueError("training.chosen_by: 'gauc' needs the key 'user' in data")
        self._check_oov_rate()
        self._check_calibration()
        names = [method.name for method in self.frameworks]
        for number, method in enumerate(self.frameworks):
            if method.name in names[:number]:
                raise ValueError(f"frameworks: {method.name!r} is given twice")
            if method.trains_backbone and number:
                raise ValueError(
                    f"frameworks: {method.name!r} works on the plain backbone, so it comes first, "
                    f"before {names[0]!r}"
                )
            if self.starts_from is not None and not method.can_continue:
                raise ValueError(
                    f"starts_from: {method.name} gives its student the weights to start from; to "
                    "train an earlier student further, leave it out of frameworks, or leave out "
                    "starts_from"
                )
            for key, part in method.parts.items():
                data = getattr(part, "data", None)
                if data is not None and digest(data) != digest(self.data):
                    raise ValueError(
                        f"data: {self.data.name!r} is not the data of frameworks.{method.name}."
                        f"{key}, {data.name!r}"
                    )
            check_names(self.name, **method.parts)
            method.check(self)
        earlier = self.starts_from if isinstance(self.starts_from, RunConfig) else None
        check_names(self.name, data=self.data, starts_from=earlier)
        if earlier is not None and digest(earlier.data) == digest(self.data):
            check_not_refitted(starts_from=earlier)
        return self

    def _check_categorical(self, key: str, name: str) -> None:
        """Raises a `ValueError` unless the backbone reads a categorical feature of this name."""
        read = self.model.features or [feature.name for feature in self.data.feature_schema]
        known = [
            feature.name
            for feature in self.data.feature_schema
            if isinstance(feature, Categorical) and feature.name in read
        ]
        if name not in known:
            raise ValueError(
                f"{key}: {name!r} is no categorical feature that the backbone reads; those are: "
                f"{', '.join(known) or 'none'}"
            )

    def _check_calibration(self) -> None:
        if self.calibration is None:
            return
        if self.calibration.by is not None:
            self._check_categorical("calibration.by", self.calibration.by)
        if self.training.refit:
            raise ValueError(
                "calibration: fitted on validation rows, which a refitted model has learned; leave "
                "out training.refit, or calibration"
            )
        for method in self.frameworks:
            if not method.is_served:
                raise ValueError(
                    f"calibration: {method.name} reads side outputs, so the model is not served; "
                    "calibrate the run that learns from it"
                )

    def _check_oov_rate(self) -> None:
        for name in self.training.oov_rate:
            self._check_categorical("training.oov_rate", name)

    def method(self, name: str) -> Any:
        """The config of a method; None if the run does not use it."""
        return next((method for method in self.frameworks if method.name == name), None)


RunConfig.model_rebuild()


def check_names(name: str, **others: Any) -> None:
    """Checks that no other config has the same name, and so the same folder.

    Raises:
        ValueError: one has.
    """
    for what, other in others.items():
        if other is not None and other.name == name:
            raise ValueError(f"name: {name!r} is the {what}'s name too; they share a folder")


def check_not_refitted(**others: RunConfig | None) -> None:
    """Checks that what a training is made from has not learned its validation rows, by which its
    best epoch is chosen.

    Raises:
        ValueError: a run has (`training.refit`).
    """
    for what, other in others.items():
        if other is not None and other.training.refit:
            raise ValueError(
                f"{what}: {other.name} has training.refit, so it has learned the validation rows "
                "that choose the best epoch here; leave refit out there"
            )


def load_run(path: str | Path, changes: Iterable[str] = ()) -> RunConfig:
    """A run config; see `tfctr.config.base.load`."""
    return load(path, RunConfig, changes)


def load_data(path: str | Path) -> DataConfig:
    """A data config: the file's own content, or the data of a run config."""
    content = read(path)
    if "model" in content:
        return validate(path, RunConfig, content).data
    return validate(path, DataConfig, content)
