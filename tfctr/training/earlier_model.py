"""The trained model that a training starts from, with its vocabularies."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from tfctr.config import ConfigError, digest
from tfctr.data import files
from tfctr.data.manifest import DataError
from tfctr.data.vocabulary import Vocabulary
from tfctr.models.transfer import carry_on, tables
from tfctr.schema import FIRST_TOKEN_ID, TOKEN_KINDS

VOCABULARIES = "vocabularies"  # folder next to a run's model.keras


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

    def initialize(self, model: Any, data: Any, console: Console) -> None:
        """Copies the weights to `model`, built for `data`; embeddings are matched by token.

        Raises:
            ConfigError: the two differ in class or arguments.
        """
        import keras

        places: dict[str, np.ndarray] = {}
        known: dict[str, str] = {}  # texts for the message, by vocabulary
        # A layer with its own schema may name a vocabulary after a feature that shares it.
        for owner in dict.fromkeys(owner for of in tables(model) for owner in of.offsets):
            feature = data.schema[owner]
            if not isinstance(feature, TOKEN_KINDS):
                continue
            name = feature.vocabulary
            now = Vocabulary.open(data.vocabulary_file(name), feature.dtype)
            places[owner] = self._vocabulary(name, feature.dtype).places_in(now)
            kept = int((places[owner] >= 0).sum()) - FIRST_TOKEN_ID
            known[name] = f"{name} {kept:,} of {now.size - FIRST_TOKEN_ID:,}"
        try:
            carry_on(model, keras.models.load_model(self.path, compile=False), places)
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
