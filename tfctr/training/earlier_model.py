"""A trained model that a training goes on from, with the vocabularies that it knew."""

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

VOCABULARIES = "vocabularies"  # the folder beside a run's model.keras


class EarlierModel:
    """The `model.keras` of a run, and `vocabularies/` beside it.

    Raises:
        DataError: one of the two is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.vocabularies = path.parent / VOCABULARIES
        if not path.is_file():
            raise DataError(f"{path}: no trained model to start from")
        if not self.vocabularies.is_dir():
            raise DataError(
                f"{self.vocabularies}: not there, so which token each row of {path} is of can't be "
                "known; `tfctr train` leaves it beside model.keras"
            )

    def key(self) -> str:
        """Of both, as long as their files are the same."""
        found = [self.path, *sorted(self.vocabularies.glob("*.txt"))]
        return digest([files.fingerprint(str(path)) for path in found])

    def hand_over(self, model: Any, data: Any, console: Console) -> None:
        """Gives `model`, built for `data`, the weights; embeddings move with their tokens.

        Raises:
            ConfigError: the two are not of the same make.
        """
        import keras

        places: dict[str, np.ndarray] = {}
        known: dict[str, str] = {}  # by vocabulary
        # A layer of its own schema may call a vocabulary by the feature that it reads of it.
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
        console.print(f"starts from {self.path}; tokens that it knew: {', '.join(known.values())}")

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
