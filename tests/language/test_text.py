"""Rows as sentences in an encoder's tokens."""

from typing import Any

import keras_hub
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.language.encoders import VOCABULARY
from tfctr.config import DataConfig
from tfctr.data.vocabulary import Vocabulary
from tfctr.language.config import TextConfig
from tfctr.language.text import Textifier, Texts, joined_keys
from tfctr.schema import Schema

FEATURES: list[dict[str, Any]] = [
    {"name": "user_id", "kind": "categorical", "side": "user"},
    {"name": "age", "kind": "categorical", "side": "user", "dtype": "int"},
    {"name": "watched", "kind": "sequence", "side": "user", "max_length": 4},
    {"name": "genres", "kind": "multi_valued", "side": "item", "max_length": 3},
    {"name": "price", "kind": "numeric", "side": "item"},
    {"name": "title", "kind": "text", "side": "item"},
]
TOKENS = {
    "user_id": ["u1", "u2"],
    "age": [25, 18],
    "watched": ["toy", "story", "movie"],
    "genres": ["comedy", "drama"],
}
CLS, SEP, PAD = (VOCABULARY.index(token) for token in ("[CLS]", "[SEP]", "[PAD]"))


def _config(texts: dict[str, dict[str, Any]], **more: Any) -> TextConfig:
    data = DataConfig.model_validate(
        {
            "name": "data",
            "source": {"format": "csv", "events": "events.csv"},
            "label": {"column": "click"},
            "time": {"column": "time"},
            "features": FEATURES,
        }
    )
    content = {"name": "texts", "data": data, "encoder": {"preset": "any"}, "texts": texts}
    return TextConfig.model_validate(content | more)


def _textifier(config: TextConfig, tokenizer: Any = None) -> Textifier:
    schema = Schema.model_validate({"features": FEATURES}).fitted(
        {name: {"vocabulary_size": 3 + len(tokens)} for name, tokens in TOKENS.items()}
    )
    vocabularies = {name: Vocabulary(pa.array(tokens)) for name, tokens in TOKENS.items()}
    tokenizer = tokenizer or keras_hub.models.BertTokenizer(VOCABULARY, lowercase=True)
    return Textifier(config, schema, vocabularies, tokenizer)


def _textify(template: str, columns: dict[str, Any], max_tokens: int = 64, **more: Any) -> Texts:
    config = _config({"row": {"template": template, "max_tokens": max_tokens}}, **more)
    return _textifier(config).textify("row", columns)


def _words(tokens: np.ndarray) -> str:
    return " ".join(VOCABULARY[token] for token in tokens if token != PAD)


def test_rows_as_sentences() -> None:
    found = _textify(
        "This is a user, age is {age}. The title is {title}, genre is {genres}.",
        {
            "age": np.array([3, 4]),
            "title": ["Toy Story", "A  movie!"],
            "genres": np.array([[3, 0, 0], [4, 3, 0]]),
        },
        words={"age": {"25": "a to b"}},
    )
    assert found.texts.to_pylist() == [
        "This is a user, age is a to b. The title is Toy Story, genre is comedy.",
        "This is a user, age is 18. The title is A movie!, genre is drama|comedy.",
    ]
    assert _words(found.tokens[0]) == (
        "[CLS] this is a user , age is a t ##o b . the title is toy story , genre is comedy . [SEP]"
    )
    assert _words(found.tokens[1]) == (
        "[CLS] this is a user , age is 1 ##8 . the title is a movie ! , genre is drama | comedy . "
        "[SEP]"
    )
    spans = [
        [_words(row[a:b]) for a, b in of_row]
        for row, of_row in zip(found.tokens, found.spans, strict=True)
    ]
    assert spans == [["a t ##o b", "toy story", "comedy"], ["1 ##8", "a movie !", "drama | comedy"]]
    np.testing.assert_array_equal(found.lengths, [24, 25])
    np.testing.assert_array_equal((found.tokens != PAD).sum(axis=1), found.lengths)
    assert not (found.cut | found.shortened).any()
    assert not found.unknown


def test_what_has_no_value() -> None:
    found = _textify(
        "{age}, {title}, {genres}, {watched}, {price}",
        {
            "age": np.array([0, 1, 3]),  # none, not in the vocabulary, 25
            "title": ["", None, "   "],
            "genres": np.array([[0, 0, 0], [1, 0, 0], [4, 1, 0]]),
            "watched": np.array([[0] * 4, [0] * 4, [1, 3, 0, 0]]),
            "price": np.array([np.nan, 1.5, 1e6], np.float32),
        },
        missing="none",
    )
    assert found.texts.to_pylist() == [
        "none, none, none, none, none",
        "none, none, none, none, 1.5",
        "25, none, drama|none, none|toy, 1e+06",
    ]
    assert (found.spans[:, :, 1] > found.spans[:, :, 0]).all()


def test_tokens_in_place_of_ids() -> None:
    """The text is the same, but for tokens that no vocabulary has."""
    template = "{age}, {user_id}, {genres}, {watched}!"
    ids = {
        "age": np.array([3, 0, 4]),
        "user_id": np.array([4, 3, 1]),
        "genres": np.array([[3, 4, 0], [0, 0, 0], [4, 0, 0]]),
        "watched": np.array([[3, 4, 5, 3], [5, 4, 0, 0], [0, 0, 0, 0]]),
    }
    tokens = {
        "age": pa.array([25, None, 18]),
        "user_id": pa.array(["u2", "u1", "nobody"]),
        "genres": pa.array([["comedy", "drama"], None, ["drama"]]),
        "watched": pa.array([["toy", "story", "movie", "toy"], ["movie", "story"], []]),
    }
    config = _config(
        {"row": {"template": template, "max_tokens": 40}}, words={"age": {"25": "old"}}
    )
    expected = _textifier(config).textify("row", ids)
    found = _textifier(config).textify("row", tokens)
    assert expected.shortened.tolist() == [False, False, False]
    texts = expected.texts.to_pylist()
    assert texts[0] == "old, u2, comedy|drama, toy|story|movie|toy!"
    assert found.texts.to_pylist() == [*texts[:2], texts[2].replace("unknown,", "nobody,", 1)]
    np.testing.assert_array_equal(found.tokens[:2], expected.tokens[:2])
    np.testing.assert_array_equal(found.spans[:2], expected.spans[:2])


def test_early_events_are_left_out_first() -> None:
    watched = np.array([[3, 4, 5, 3], [5, 0, 0, 0], [4, 3, 0, 0]])
    ages = np.array([3, 4, 3])
    template = "The user has watched {watched}. Age is {age}."
    full = _textify(template, {"watched": watched, "age": ages})
    np.testing.assert_array_equal(full.lengths, [19, 13, 15])
    found = _textify(template, {"watched": watched, "age": ages}, max_tokens=15)
    assert found.texts.to_pylist() == [
        "The user has watched movie|toy. Age is 25.",
        "The user has watched movie. Age is 18.",
        "The user has watched story|toy. Age is 25.",
    ]
    np.testing.assert_array_equal(found.shortened, [True, False, False])
    np.testing.assert_array_equal(found.lengths, [15, 13, 15])
    assert not found.cut.any()


def test_a_text_too_long_is_cut_at_its_end() -> None:
    columns = {"title": ["toy story toy story", "toy"], "age": np.array([3, 4])}
    found = _textify("Title is {title}. Age is {age}.", columns, max_tokens=8)
    assert _words(found.tokens[0]) == "[CLS] title is toy story toy story [SEP]"
    assert _words(found.tokens[1]) == "[CLS] title is toy . age is [SEP]"
    np.testing.assert_array_equal(found.cut, [True, True])
    np.testing.assert_array_equal(found.spans, [[[3, 7], [0, 0]], [[3, 4], [0, 0]]])
    # A sequence that is too long keeps its latest event, and loses its end.
    found = _textify("{watched} {age}", {"watched": np.array([[3, 4, 5, 0]])} | {"age": [3]}, 4)
    assert _words(found.tokens[0]) == "[CLS] movie 2 [SEP]"
    assert (found.shortened & found.cut)[0]


def test_other_scripts_and_emoji() -> None:
    found = _textify("{title}", {"title": ["Toy \U0001f600", "Привет", "玩具", "Toy"]})
    unknown = VOCABULARY.index("[UNK]")
    assert (found.tokens == unknown).any(axis=1).tolist() == [True, True, True, False]
    assert found.unknown == 4  # the third is two signs
    assert found.texts.to_pylist() == ["Toy \U0001f600", "Привет", "玩具", "Toy"]


def test_special_tokens_in_a_value_are_words() -> None:
    found = _textify("{title}", {"title": ["toy [SEP] story [MASK]"]})
    assert (found.tokens == SEP).sum() == 1
    assert not (found.tokens == VOCABULARY.index("[MASK]")).any()


def test_equal_texts_have_equal_keys() -> None:
    rng = np.random.default_rng(0)
    ages, genres = rng.integers(0, 5, 500), rng.integers(0, 5, (500, 1))
    found = _textify("{age} {genres}", {"age": ages, "genres": genres})
    same_text = found.texts.to_numpy(zero_copy_only=False)
    of_text: dict[str, set[int]] = {}
    for text, key in zip(same_text, joined_keys(found.keys), strict=True):
        of_text.setdefault(text, set()).add(int(key))
    assert all(len(keys) == 1 for keys in of_text.values())
    assert ((found.keys >= 0) & (found.keys < 2**31)).all()
    assert len(set().union(*of_text.values())) == len(of_text) == 9


WORD = st.text("abcxyz019.,:()!'é ", max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            WORD,
            st.integers(0, 4),
            st.lists(st.integers(0, 5), min_size=4, max_size=4),
            st.lists(st.integers(0, 4), min_size=3, max_size=3),
        ),
        min_size=1,
        max_size=5,
    ),
    max_tokens=st.integers(4, 60),
)
def test_the_tokens_are_those_of_the_whole_text(rows: list[Any], max_tokens: int) -> None:
    titles, ages, watched, genres = zip(*rows, strict=True)
    columns = {
        "title": list(titles),
        "age": np.array(ages),
        "watched": np.array(watched),
        "genres": np.array(genres),
    }
    template = "A user, age is {age}, watched {watched}. Title: {title} ({genres})"
    found = _textify(template, columns, max_tokens)
    tokenizer = keras_hub.models.BertTokenizer(VOCABULARY, lowercase=True)
    for i, text in enumerate(found.texts.to_pylist()):
        whole = [CLS, *map(int, tokenizer(text)), SEP]
        assert found.lengths[i] == len(whole)
        if len(whole) > max_tokens:
            whole = [*whole[: max_tokens - 1], SEP]
        kept = found.tokens[i, : len(whole)]
        assert kept.tolist() == whole
        assert (found.tokens[i, len(whole) :] == PAD).all()
        assert found.cut[i] == (found.lengths[i] > max_tokens)


def test_a_byte_pair_tokenizer_sees_the_space_before_a_value() -> None:
    signs = list("abcdefghijklmnopqrstuvwxyz.,Ġ|")
    merges = ["t o", "to y", "Ġ to", "Ġto y", "i s", "Ġ is"]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *signs]
    tokens += [merge.replace(" ", "") for merge in merges]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = keras_hub.models.RobertaTokenizer(vocabulary, merges)
    config = _config({"row": {"template": "it is {title}, so is {genres}.", "max_tokens": 40}})
    columns = {"title": ["toy", "a toy"], "genres": np.array([[3, 4, 0], [4, 0, 0]])}
    found = _textifier(config, tokenizer).textify("row", columns)
    assert found.texts.to_pylist() == [
        "it is toy, so is comedy|drama.",
        "it is a toy, so is drama.",
    ]
    for i, text in enumerate(found.texts.to_pylist()):
        whole = [vocabulary["<s>"], *map(int, tokenizer(text)), vocabulary["</s>"]]
        assert found.tokens[i, : len(whole)].tolist() == whole
        assert (found.tokens[i, len(whole) :] == vocabulary["<pad>"]).all()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"row": {"template": "{no_such}"}}, "texts.row.template: no feature 'no_such'; there are"),
        ({"row": {"template": "no place"}}, "no {feature} in it"),
        ({"row": {"template": "{age} {age}"}}, "occurs twice"),
        ({"row": {"template": "{age"}}, "braces stand around a feature's name"),
        ({"row": {"template": "{age}", "max_tokens": 3}}, "greater than or equal to 4"),
        ({}, "at least 1 item"),
    ],
)
def test_a_template_that_cannot_be(texts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{", r"\{").replace("}", r"\}")):
        _config(texts)


def test_words_for_a_feature_that_is_none() -> None:
    with pytest.raises(ValueError, match="words: no feature 'gender'; there are: user_id"):
        _config({"row": {"template": "{age}"}}, words={"gender": {"F": "female"}})
