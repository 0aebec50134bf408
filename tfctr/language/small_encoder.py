"""A small BERT for a dataset's own texts, if there is no pretrained one."""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tfctr.data.dataset import Dataset
from tfctr.data.vocabulary import Vocabulary
from tfctr.language.config import SmallEncoder, TextConfig
from tfctr.language.libraries import keras_hub
from tfctr.schema import Numeric, Text

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def learn_vocabulary(config: TextConfig, data: Dataset, size: int) -> list[str]:
    """At most `size` word pieces of the training rows' texts, special tokens first.

    A piece of several characters occurs at least ten times: what an encoder sees less often it does
    not learn. So there may be fewer than `size`; `describe` says so. Each distinct value of a
    feature counts once, however many rows have it. Words of the template, which are in all texts,
    count as often as there are values.
    """
    values = list(dict.fromkeys(_values(config, data)))
    words = [words for text in config.texts.values() for words, _ in text.places]
    # Numbers are made of digits.
    in_all = [*words, config.missing, config.separator, " ".join("0123456789")]
    found = keras_hub.tokenizers.compute_word_piece_vocabulary(
        tf.data.Dataset.from_tensor_slices([*values, *in_all * len(values)]),
        size,
        lowercase=True,
        strip_accents=True,
        reserved_tokens=SPECIAL,
    )
    return list(found)


def describe(found: int, asked: int) -> str:
    """The size of a learned vocabulary, and why it is smaller than what was asked for."""
    if found >= 0.9 * asked:  # the learner comes as near as this where there are enough pieces
        return f"{found:,} word pieces"
    return (
        f"{found:,} word pieces, not {asked:,} (vocabulary_size): only these occur at least ten "
        "times in the distinct values of the training rows"
    )


def _values(config: TextConfig, data: Dataset) -> Iterator[str]:
    """The values of the features of the texts, as they are written."""
    for name in dict.fromkeys(name for text in config.texts.values() for name in text.features):
        words = config.words.get(name, {})
        yield from (words.get(value, value) for value in _raw_values(data, name))


def _raw_values(data: Dataset, name: str) -> Iterator[str]:
    feature = data.schema[name]
    if isinstance(feature, Text):
        yield from sorted({text.decode() for text in data.columns("train", [name])[name]})
    elif not isinstance(feature, Numeric):
        path = data.vocabulary_file(feature.vocabulary)
        yield from map(str, Vocabulary.open(path, feature.dtype).tokens.to_pylist())


def create_small_encoder(config: SmallEncoder, vocabulary_size: int) -> Any:
    """An untrained `keras_hub.models.BertMaskedLM`."""
    return keras_hub.models.BertMaskedLM(
        keras_hub.models.BertBackbone(
            vocabulary_size=vocabulary_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            hidden_dim=config.hidden_dim,
            intermediate_dim=4 * config.hidden_dim,
            max_sequence_length=config.max_tokens,
        ),
        preprocessor=None,
    )
