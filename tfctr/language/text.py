"""Texts of rows in an encoder's tokens, column by column.

Each distinct value of a column is tokenised once, separately, and a row's text is the concatenation
of these tokens. So the span of each feature is known. Tokenising the whole text gives the same
tokens if the tokenizer never joins a value with the words around it, like WordPiece; a byte-pair
tokenizer may join a value's last character with the comma after it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfctr.data.fingerprint import mix
from tfctr.data.vocabulary import Vocabulary
from tfctr.language.config import TextConfig, TextTemplate
from tfctr.schema import FIRST_TOKEN_ID, PAD_ID, Numeric, Schema, Text
from tfctr.schema import Sequence as TokenSequence

NONE = -1


@dataclass(frozen=True)
class Texts:
    """The texts of `N` rows by one template."""

    tokens: np.ndarray  # int64 [N, max_tokens], padded
    spans: np.ndarray  # int64 [N, features, 2]: first token and the one after the last; 0, 0: cut
    keys: np.ndarray  # int64 [N, 2], 31 bits each, the same for the same tokens
    texts: pa.Array  # strings [N], without the events that were left out
    lengths: np.ndarray  # int64 [N]: of the texts in tokens, both ends included, before a cut
    shortened: np.ndarray  # bool [N]: early events of a sequence were left out
    cut: np.ndarray  # bool [N]: the text's end was cut off
    unknown: int  # number of tokens that are unknown to the encoder

    @property
    def counts(self) -> dict[str, int]:
        """Counts for people, which `total_counts` adds up."""
        return {
            "tokens": int(self.lengths.sum()),
            "longest": int(self.lengths.max(initial=0)),
            "unknown_tokens": self.unknown,
            "shortened": int(self.shortened.sum()),
            "cut": int(self.cut.sum()),
        }


def total_counts(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The counts of `Texts.counts` over several parts, of which there is at least one."""
    first, *others = parts
    return {
        what: (max if what == "longest" else sum)([first[what], *(part[what] for part in others)])
        for what in first
    }


@dataclass
class _Part:
    """One part of a template: words, or the values of a feature."""

    index: np.ndarray  # int64 [N, L], of strings; `NONE` for no string
    first: list[str]  # as they are written
    later: list[str]  # after another value: with the separator; none if L = 1
    feature: str | None = None
    is_sequence: bool = False  # its first values may be left out

    @property
    def strings(self) -> list[str]:
        """The strings that `written` refers to; the last one is empty."""
        return [*self.first, *self.later, ""]

    def written(self) -> np.ndarray:
        """int64 `[N, L]`, indices of `strings`."""
        stands = self.index != NONE
        is_first = stands & (np.cumsum(stands, axis=1) == 1)
        later = np.where(is_first, self.index, self.index + len(self.first))
        return np.where(stands, later, len(self.strings) - 1)


class Textifier:
    """Makes the texts of rows.

    Args:
        config: templates, and the words for values.
        schema: of the dataset.
        vocabularies: of its token features, by the feature's `vocabulary`; for `textify` by tokens
            none is needed.
        tokenizer: of keras-hub.
    """

    def __init__(
        self,
        config: TextConfig,
        schema: Schema,
        vocabularies: Mapping[str, Vocabulary],
        tokenizer: Any,
    ) -> None:
        self.config = config
        self.schema = schema
        self.vocabularies = vocabularies
        self.tokenizer = tokenizer
        self._tokens: dict[str, np.ndarray] = {"": np.empty(0, np.int64)}
        start = tokenizer.start_token_id  # some decoders have none, such as Qwen
        self._start = [] if start is None else [start]

    def textify(self, text: str, columns: Mapping[str, Any]) -> Texts:
        """The texts of some rows by the template named `text`.

        Args:
            text: a key of `config.texts`.
            columns: by feature: ids `[N]` or `[N, max_length]`, floats `[N]`, strings `[N]`. In
                place of ids there may be tokens, an Arrow array of `N` tokens or lists of them.
        """
        template = self.config.texts[text]
        parts = self._parts(template, columns)
        self._tokenise(string for part in parts for string in part.strings)
        shortened = self._leave_out_early_values(template, parts)
        return self._put_together(template, parts, shortened)

    def _parts(self, template: TextTemplate, columns: Mapping[str, Any]) -> list[_Part]:
        """The parts in order. White space before a value belongs to the value, as byte-pair
        tokenizers expect."""
        rows = len(columns[template.features[0]])
        parts = []
        for words, name in template.places:
            bare = words if name is None else words.rstrip()
            if bare:
                parts.append(_Part(np.zeros((rows, 1), np.int64), [bare], []))
            if name is not None:
                parts.append(self._part(name, columns[name], words[len(bare) :]))
        return parts

    def _part(self, name: str, values: Any, space: str) -> _Part:
        feature = self.schema[name]
        if isinstance(feature, Text | Numeric):
            found, index = _distinct(values, isinstance(feature, Numeric))
        elif isinstance(values, pa.Array):
            found, index = _distinct_lists(values) if feature.is_list else _distinct(values, False)
        else:
            found = [str(t) for t in self.vocabularies[feature.vocabulary].tokens.to_pylist()]
            ids = np.asarray(values).reshape(len(values), -1)
            index = np.where(ids < FIRST_TOKEN_ID, len(found), ids - FIRST_TOKEN_ID)
            if feature.is_list:
                index = np.where(ids == PAD_ID, NONE, index)
                index[(index == NONE).all(axis=1), 0] = len(found)
        found = [*(self._words(name, value) for value in found), self.config.missing]
        first = [space + value for value in found]
        later = [self.config.separator + value for value in found] if feature.is_list else []
        return _Part(index, first, later, name, isinstance(feature, TokenSequence))

    def _words(self, name: str, value: str) -> str:
        value = self.config.words.get(name, {}).get(value, value)
        return " ".join(value.split()) or self.config.missing

    def _tokenise(self, strings: Any) -> None:
        new = [string for string in dict.fromkeys(strings) if string not in self._tokens]
        if new:
            found = self.tokenizer(new)
            self._tokens |= {s: np.asarray(t, np.int64) for s, t in zip(new, found, strict=True)}

    def _lengths(self, part: _Part) -> np.ndarray:
        """int64 `[N, L]`: the number of tokens of each value."""
        sizes = np.array([len(self._tokens[string]) for string in part.strings])
        return sizes[part.written()]

    def _leave_out_early_values(self, template: TextTemplate, parts: list[_Part]) -> np.ndarray:
        """Shortens sequences until the texts fit, but keeps the latest value; bool `[N]`: which."""
        total = len(self._start) + 1 + sum(self._lengths(part).sum(axis=1) for part in parts)
        shortened = np.zeros(len(total), bool)
        for part in parts:
            if not part.is_sequence:
                continue
            lengths = self._lengths(part)
            # If the first value is removed, so is the separator after it.
            sizes = np.array([len(self._tokens[string]) for string in [*part.later, ""]])
            saved = sizes[part.index]
            earlier = np.cumsum(saved, axis=1) - saved
            latest = (part.index != NONE).sum(axis=1, keepdims=True) - 1
            out = (earlier < (total - template.max_tokens)[:, None]) & (part.index != NONE)
            out &= np.arange(out.shape[1]) < latest
            part.index = np.where(out, NONE, part.index)
            shortened |= out.any(axis=1)
            total += self._lengths(part).sum(axis=1) - lengths.sum(axis=1)
        return shortened

    def _put_together(
        self, template: TextTemplate, parts: list[_Part], shortened: np.ndarray
    ) -> Texts:
        rows, size = len(shortened), template.max_tokens
        tokens = np.full((rows, size), self.tokenizer.pad_token_id, np.int64)
        tokens[:, : len(self._start)] = self._start
        spans = np.zeros((rows, len(template.features), 2), np.int64)
        end = np.full(rows, len(self._start))
        strings = []
        for part in parts:
            start, written, lengths = end, part.written(), self._lengths(part)
            found = [self._tokens[string] for string in part.strings]
            padded = np.zeros((len(found), max(map(len, found))), np.int64)
            for i, of_string in enumerate(found):
                padded[i, : len(of_string)] = of_string
            for i in range(written.shape[1]):
                for j in range(lengths[:, i].max(initial=0)):
                    some = np.flatnonzero((j < lengths[:, i]) & (end + j < size - 1))
                    tokens[some, end[some] + j] = padded[written[some, i], j]
                end = end + lengths[:, i]
                strings.append(pa.array(part.strings).take(pa.array(written[:, i])))
            if part.feature is not None:
                span = np.minimum(np.stack([start, end], axis=1), size - 1)
                span[span[:, 0] == span[:, 1]] = 0
                spans[:, template.features.index(part.feature)] = span
        tokens[np.arange(rows), np.minimum(end, size - 1)] = self.tokenizer.end_token_id
        unknown = getattr(self.tokenizer, "oov_token", None)  # byte-level tokenizers have none
        return Texts(
            tokens=tokens,
            spans=spans,
            keys=_keys(tokens),
            texts=pc.binary_join_element_wise(*strings, ""),
            lengths=end + 1,
            shortened=shortened,
            cut=end + 1 > size,
            unknown=int((tokens == self.tokenizer.token_to_id(unknown)).sum()) if unknown else 0,
        )


def joined_keys(keys: Any) -> Any:
    """int64 `[N]` of a text's keys `[N, 2]`, as NumPy's or TensorFlow's."""
    return keys[:, 0] * 2**31 + keys[:, 1]


def _distinct(values: Any, are_numbers: bool) -> tuple[list[str], np.ndarray]:
    """Distinct values as strings, and the index `[N, 1]` of each row's value; a missing value has
    the index after the last."""
    strings: list[str]
    if are_numbers:
        numbers = np.asarray(values, np.float64)
        has_one = ~np.isnan(numbers)
        found, places = np.unique(numbers[has_one], return_inverse=True)
        strings = [f"{value:.6g}" for value in found]
        index = np.full(len(numbers), len(strings))
        index[has_one] = places
    else:
        texts = values if isinstance(values, pa.Array) else pa.array(values, pa.string())
        encoded = texts.cast(pa.string()).dictionary_encode()
        strings = encoded.dictionary.to_pylist()
        index = encoded.indices.fill_null(len(strings)).to_numpy(zero_copy_only=False)
    return strings, index.astype(np.int64)[:, None]


def _distinct_lists(values: pa.Array) -> tuple[list[str], np.ndarray]:
    """As `_distinct`, of lists of tokens: the index `[N, L]`, `NONE` behind a list's last value. An
    empty list is a missing value."""
    strings, places = _distinct(values.flatten(), False)
    lengths = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
    index = np.full((len(values), max(lengths.max(initial=0), 1)), NONE)
    index[np.arange(index.shape[1]) < lengths[:, None]] = places[:, 0]
    index[lengths == 0, 0] = len(strings)
    return strings, index


def _keys(tokens: np.ndarray) -> np.ndarray:
    keys = np.zeros(len(tokens), np.uint64)
    for i in range(tokens.shape[1]):
        keys = mix((keys ^ tokens[:, i].astype(np.uint64)).view(np.int64), i)
    # Batches are read as 32-bit integers.
    return np.stack([keys >> np.uint64(33), keys & np.uint64(2**31 - 1)], axis=1).astype(np.int64)
