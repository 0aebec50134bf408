"""Vectors of the texts of rows, as `tfctr embed` writes them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tfctr.config import ConfigError
from tfctr.data.conform import conform, reason
from tfctr.data.manifest import DataError
from tfctr.language.config import TextConfig, embedded_text
from tfctr.language.pretrained import load_text_backbone, load_tokenizer, locate
from tfctr.language.text import Textifier, Texts
from tfctr.language.text_encoder import TextEncoder
from tfctr.schema import Numeric


class TextVectors:
    """Encodes the items' text of a text config: what a request sends of an item that is new.

    Args:
        config: of the texts.
        text: the text's name. Defaults to the only one of the item's features alone.
        encoder: its preset or folder. Defaults to that of the config; of an encoder that is trained
            here (`encoder.trained`) name the folder.

    Raises:
        ConfigError: no such text or encoder.

    Example:
        >>> config = tfctr.config.load("text.yaml", TextConfig)  # doctest: +SKIP
        >>> vectors = TextVectors(config)  # doctest: +SKIP
        >>> rows = [{"title": "Toy Story 5 (2026)", "genres": ["Animation"]}]
        >>> client.rank(  # doctest: +SKIP
        ...     {"user_id": "7"}, {"movie_id": ["9999"], "title_vector": vectors.of_rows(rows)}
        ... )
    """

    def __init__(
        self, config: TextConfig, text: str | None = None, encoder: str | None = None
    ) -> None:
        self.config = config
        self.text = embedded_text(config, text)
        self.where = encoder or locate(config.encoder)
        self.schema = config.data.feature_schema
        self.tokenizer = load_tokenizer(self.where)
        self.encoder = TextEncoder(load_text_backbone(self.where))

    def of_rows(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Vectors float32 `[N, H]` of rows as they are in the log, by the names of the features.

        Raises:
            ConfigError: a feature is none of the text's.
            DataError: a value does not fit its feature.
        """
        names = self.config.texts[self.text].features
        for row in rows:
            for name in row:
                if name not in names:
                    raise ConfigError(
                        f"texts.{self.text}: found {name!r}; its features are: {', '.join(names)}"
                    )
        columns = {}
        for name in names:
            feature = self.schema[name]
            try:
                column, bad = conform(feature, pa.array([row.get(name) for row in rows]))
            except (TypeError, pa.ArrowInvalid) as error:
                raise DataError(f"{name}: {error}") from None
            if bad is not None and bad.any():
                at = int(np.flatnonzero(bad)[0])
                raise DataError(f"row {at}: {name}: found {rows[at][name]!r}: {reason(feature)}")
            columns[name] = column
        return self.encode(pa.table(columns))[0]

    def encode(self, rows: pa.Table) -> tuple[np.ndarray, Texts]:
        """Vectors float32 `[N, H]` and texts of rows with the text's features, typed as `conform`
        gives them.

        Raises:
            DataError: a vector has a number that is not finite.
        """
        names = self.config.texts[self.text].features
        columns = {name: self._values(name, rows[name].combine_chunks()) for name in names}
        # A new one for each call: it keeps the tokens of all values.
        textifier = Textifier(self.config, self.schema, {}, self.tokenizer)
        texts = textifier.textify(self.text, columns)
        vectors = self.encoder.encode(texts.tokens, texts.lengths)
        if not np.isfinite(vectors).all():
            raise DataError(f"encoder: {self.where}: a vector has a number that is not finite")
        return vectors, texts

    def _values(self, name: str, column: pa.Array) -> Any:
        """A column for `Textifier`; numbers as a dataset has them."""
        if not isinstance(self.schema[name], Numeric):
            return column
        numbers = np.asarray(column.fill_null(np.nan), np.float32)
        return np.where(np.isfinite(numbers), numbers, np.nan)
