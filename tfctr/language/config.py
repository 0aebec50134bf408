"""Configs of language models and of the texts that they read."""

import string
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from tfctr.config.base import ConfigError, FolderName, directory_of, from_file, read
from tfctr.config.data import DataConfig, with_directory
from tfctr.config.run import check_names
from tfctr.config.training import PartTraining
from tfctr.schema import Categorical, Name, Strict, check_has_tokens

MASK_RATE = 0.15  # share of a text's tokens that a masked language model guesses, as BERT's


class SmallEncoder(Strict):
    """A BERT whose vocabulary and weights are learned from the training rows' texts only."""

    vocabulary_size: int = Field(4000, ge=100)  # at most: pieces that occur ten times
    num_layers: int = Field(2, ge=1)
    hidden_dim: int = Field(128, ge=1)
    num_heads: int = Field(2, ge=1)
    max_tokens: int = Field(512, ge=4)
    training: PartTraining = PartTraining()


class EncoderConfig(Strict):
    """A language model that reads text: a preset by name, a folder, a folder in a package, or a
    small one that is trained here.

    A folder is relative to the config file or to the `data_home`; with `package` it is in this
    Python package, which is not imported.
    """

    preset: str | None = None  # of keras-nlp, e.g. bert_tiny_en_uncased
    folder: str | None = None
    package: str | None = None
    trained: SmallEncoder | None = None
    directory: str = Field(".", exclude=True)  # that the folder is relative to

    @model_validator(mode="before")
    @classmethod
    def _knows_its_folder(cls, values: Any) -> Any:
        return with_directory(values, values.get("folder") if isinstance(values, dict) else None)

    @model_validator(mode="after")
    def _is_one(self) -> "EncoderConfig":
        kinds = (self.preset, self.folder or self.package, self.trained)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError("give one of preset, folder (with or without package), trained")
        return self


class TextTemplate(Strict):
    """The text of a row: `{feature}` stands for its value or values."""

    template: str
    max_tokens: int = Field(64, ge=4)  # start and end tokens included

    @property
    def places(self) -> list[tuple[str, str | None]]:
        """Words, and the feature that follows them, if any, in order."""
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
                raise ValueError(f"template: {{{name}}} occurs twice")
        if not names:
            raise ValueError("template: no {feature} in it, so all rows would have one text")
        return self


def _read_words(value: Any) -> Any:
    """Words may be given as the path of a file."""
    return read(directory_of(value) / value) if isinstance(value, str) else value


class TextConfig(Strict):
    """Texts of rows, in an encoder's tokens: `tfctr textify FILE`."""

    name: FolderName
    data: Annotated[DataConfig, from_file(lambda: DataConfig)]
    encoder: EncoderConfig
    texts: dict[Name, TextTemplate] = Field(min_length=1)
    words: Annotated[dict[str, dict[str, str]], BeforeValidator(_read_words)] = Field(
        {}
    )  # by feature: what to write for a value
    missing: str = Field("unknown", min_length=1)  # for missing and OOV values
    separator: str = Field("|", min_length=1)  # between the values of a list

    @model_validator(mode="after")
    def _features_exist(self) -> "TextConfig":
        check_names(self.name, data=self.data)
        schema = self.data.feature_schema
        known = [feature.name for feature in schema]
        asked = {f"texts.{name}.template": text.features for name, text in self.texts.items()}
        for key, names in (asked | {"words": list(self.words)}).items():
            for name in names:
                if name not in known:
                    raise ValueError(f"{key}: no feature {name!r}; there are: {', '.join(known)}")
                why = "to write them, declare the column once more as a feature of kind text"
                check_has_tokens(schema[name], key, why)
        for text in self.texts:
            for field in text_fields(text):
                if field in known:
                    raise ValueError(f"texts: {text!r} makes {field!r}, which is a feature's name")
        return self


def embedded_feature(config: TextConfig, name: str | None) -> Categorical:
    """The feature whose tokens get vectors of texts: `name`, or the `item` of the data.

    Raises:
        ConfigError: it is no categorical feature of the item's side, or there is none.
    """
    key, found = ("--feature", name) if name else ("data.item", config.data.item)
    known = [f for f in config.data.feature_schema.side("item") if isinstance(f, Categorical)]
    for feature in known:
        if feature.name == found:
            return feature
    names = ", ".join(feature.name for feature in known)
    way_out = "" if name else "; write it, or name the feature by --feature"
    raise ConfigError(
        f"{config.name}: {key}: found {found!r}, where a categorical feature of the item's side is "
        f"needed: {names}{way_out}"
    )


def embedded_text(config: TextConfig, name: str | None) -> str:
    """The text whose vectors are made: `name`, or the only one of the item's features alone.

    Raises:
        ConfigError: it names a feature of another side; there is no such text; there are several.
    """
    sides = {feature.name: feature.side for feature in config.data.feature_schema}
    others = {
        text: [f"{{{feature}}}" for feature in template.features if sides[feature] != "item"]
        for text, template in config.texts.items()
    }
    if name is not None and name not in others:
        raise ConfigError(f"{config.name}: --text: found {name!r}; texts: {', '.join(others)}")
    asked = [*others] if name is None else [name]
    found = [text for text in asked if not others[text]]
    if len(found) > 1:
        raise ConfigError(
            f"{config.name}: texts: {', '.join(found)} are of items; choose one by --text"
        )
    if not found:
        raise ConfigError(
            f"{config.name}: texts.{asked[0]}.template: {', '.join(others[asked[0]])} of another "
            "side; an item's vector is made of features of the item's side alone"
        )
    return found[0]


def text_fields(text: str) -> tuple[str, str, str, str]:
    """The fields of a text with this name: its tokens, the spans of its features, a key that equal
    texts share, and the text itself."""
    return (f"{text}_tokens", f"{text}_spans", f"{text}_text_key", f"{text}_text")
