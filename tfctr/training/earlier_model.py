"""The trained model that a training starts from, with its vocabularies."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from tfctr.config import ConfigError, digest
from tfctr.data import files
from tfctr.data.manifest import DataError
from tfctr.data.vocabulary import Vocabulary
from tfctr.models.transfer import carry_on, embeddings, tables
from tfctr.schema import FIRST_TOKEN_ID, TOKEN_KINDS, Numeric, Schema

VOCABULARIES = "vocabularies"  # folder next to a run's model.keras
MEASURED = ("mean", "std", "median", "iqr", "boundaries")  # of a numeric feature


class EarlierModel:
    """The `model.keras` of a run, and its `vocabularies/`.

    Args:
        path: of `model.keras`.

    Raises:
        DataError: one of the two is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.vocabularies = path.parent / VOCABULARIES
        if not path.is_file():
            raise DataError(f"{path}: no trained model to start from")
        if not self.vocabularies.is_dir():
            raise DataError(
                f"{self.vocabularies}: missing, so the tokens of the rows of {path} are unknown; "
                "`tfctr train` writes it next to model.keras"
            )

    def key(self) -> str:
        """A digest of the model's file and its vocabularies."""
        found = [self.path, *sorted(self.vocabularies.glob("*.txt"))]
        return digest([files.fingerprint(str(path)) for path in found])

    @cached_property
    def model(self) -> Any:
        """The loaded model; it must not be changed."""
        import keras

        return keras.models.load_model(self.path, compile=False)

    def with_its_numbers(self, schema: Schema) -> Schema:
        """`schema`, with the earlier model's means and buckets of numbers.

        A model that starts from the earlier one reads numbers as that one did. A weight of scaled
        numbers can't be moved to another mean: the field of a missing number is zero.
        """
        read = [feature for layer in embeddings(self.model) for feature in layer.schema.inputs]
        before = {f.name: f for f in read if isinstance(f, Numeric)}
        return schema.fitted(
            {
                f.name: {key: getattr(before[f.name], key) for key in MEASURED}
                for f in schema
                if isinstance(f, Numeric) and f.name in before
            }
        )

    def initialize(self, model: Any, data: Any, console: Console) -> None:
        """Copies the weights to `model`; embeddings are matched by token.

        Args:
            model: built, for a schema `with_its_numbers`.
            data: that it will learn from.
            console: for a line about the tokens that both know.

        Raises:
            ConfigError: the two differ in class or arguments.
        """
        places: dict[str, np.ndarray] = {}
        known: dict[str, str] = {}  # texts for the message, by vocabulary
        # A layer with its own schema may name a vocabulary after a feature that shares it.
        for owner in dict.fromkeys(owner for of in tables(model) for owner in of.offsets):
            feature = data.schema[owner]
            if not isinstance(feature, TOKEN_KINDS):
                continue
            name = feature.vocabulary
            now = Vocabulary.open(data.vocabulary_file(name), feature.dtype, feature.hash_buckets)
            places[owner] = self._vocabulary(name, feature.dtype).places_in(now)
            kept = int((places[owner] >= 0).sum()) - FIRST_TOKEN_ID
            known[name] = f"{name} {kept:,} of {now.size - FIRST_TOKEN_ID:,}"
        try:
            carry_on(model, self.model, places)
        except ValueError as error:
            raise ConfigError(f"starts_from: {self.path}: {error}") from None
        console.print(
            f"starts from {self.path}; tokens in its vocabularies: {', '.join(known.values())}"
        )

    def _vocabulary(self, name: str, dtype: str) -> Vocabulary:
        path = self.vocabularies / f"{name}.txt"
        try:
            return Vocabulary.open(path, dtype)
        except FileNotFoundError:
            raise ConfigError(
                f"starts_from: {self.path} knows no vocabulary {name!r}: it was trained without it"
            ) from None
        except pa.ArrowInvalid as error:
            raise ConfigError(f"starts_from: {path}: not of dtype {dtype!r}: {error}") from None
