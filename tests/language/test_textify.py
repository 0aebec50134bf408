"""Texts of a dataset's rows, written beside its shards."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from beam_pipelines.textify import main, textify
from tests.conftest import world_config
from tests.language.encoders import bert_tensors, write_bert
from tfctr.config import ConfigError, load
from tfctr.data.dataset import Dataset
from tfctr.data.manifest import DataError
from tfctr.language.config import TextConfig
from tfctr.language.pretrained import load_tokenizer
from tfctr.language.text import joined_keys
from tfctr.stages import prepare

TEXTS = {
    "user": {"template": "A user, age is {age_group}.", "max_tokens": 16},
    "item": {
        "template": "Title is {title}, genre is {category}, {tags}. {price}",
        "max_tokens": 48,
    },
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("encoder"), bert_tensors())


def _config(encoder: Path, **changes: Any) -> TextConfig:
    content = {
        "name": "texts",
        "data": world_config(),
        "encoder": {"folder": str(encoder)},
        "texts": TEXTS,
    }
    return TextConfig.model_validate(content | changes)


@pytest.fixture(scope="module")
def written(world_data: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beside") / "texts"
    textify(_config(encoder), str(world_data), str(folder))
    return folder


def test_a_row_has_its_own_texts(world_data: Path, encoder: Path, written: Path) -> None:
    data = Dataset.open(world_data, [written])
    names = ["age_group", "category", "tags", "title", "price", "user_tokens", "item_tokens"]
    columns = data.columns("test", [*names, "item_spans", "item_text_key"])
    tokenizer = load_tokenizer(str(encoder))

    def word(feature: str, token: int) -> str:
        lines = data.vocabulary_file(feature).read_text().split("\n")
        return lines[token - 3] if token >= 3 else "unknown"

    for i in range(0, len(columns["title"]), 97):
        tags = [word("tags", t) for t in columns["tags"][i] if t] or ["unknown"]
        price = columns["price"][i]
        text = (
            f"Title is {columns['title'][i].decode()}, genre is "
            f"{word('category', columns['category'][i])}, {'|'.join(tags)}. "
            f"{'unknown' if np.isnan(price) else f'{price:.6g}'}"
        )
        expected = [tokenizer.cls_token_id, *map(int, tokenizer(text))][:47]
        expected.append(tokenizer.sep_token_id)
        assert columns["item_tokens"][i, : len(expected)].tolist() == expected
        start, end = columns["item_spans"][i, :2]
        title = tokenizer(columns["title"][i].decode())
        assert (
            columns["item_tokens"][i, start:end].tolist() == [int(t) for t in title][: end - start]
        )
        age = f"A user, age is {word('age_group', columns['age_group'][i])}."
        length = (columns["user_tokens"][i] != 0).sum()
        assert columns["user_tokens"][i, 1 : length - 1].tolist() == [
            int(t) for t in tokenizer(age)
        ]


def test_the_text_itself_lies_in_the_records(written: Path) -> None:
    records = tf.data.TFRecordDataset(str(written / "test/part-00000.tfrecord"))
    example = tf.train.Example.FromString(next(iter(records)).numpy())
    assert sorted(example.features.feature) == [
        "item_spans", "item_text", "item_text_key", "item_tokens", "row_id",
        "user_spans", "user_text", "user_text_key", "user_tokens",
    ]  # fmt: skip
    text = example.features.feature["user_text"].bytes_list.value[0].decode()
    assert text.startswith("A user, age is ")


def test_what_is_counted(world_data: Path, encoder: Path, written: Path) -> None:
    data = Dataset.open(world_data, [written])
    manifest = textify(_config(encoder), str(world_data), str(written.parent / "again"))
    for split, found in manifest["splits"].items():
        tokens = data.columns(split, ["user_tokens"])["user_tokens"]
        assert found["texts"]["user"]["tokens"] == (tokens != 0).sum()
        assert found["texts"]["user"]["longest"] == (tokens != 0).sum(axis=1).max()
        assert found["texts"]["user"]["cut"] == 0
    cut = _config(encoder, texts={"user": TEXTS["user"] | {"max_tokens": 6}})
    manifest = textify(cut, str(world_data), str(written.parent / "cut"))
    assert manifest["splits"]["train"]["texts"]["user"]["cut"] == data.num_rows("train")


def test_batches_hold_texts_beside_ids(world_data: Path, written: Path) -> None:
    data = Dataset.open(world_data, [written])
    features, _ = next(iter(data.train(64, features=["age_group", "user_tokens", "user_text_key"])))
    assert features["user_tokens"].shape == (64, 16)
    keys = joined_keys(features["user_text_key"].numpy())
    of_age: dict[int, set[int]] = {}
    for age, key in zip(features["age_group"].numpy(), keys, strict=True):
        of_age.setdefault(int(age), set()).add(int(key))
    assert all(len(keys) == 1 for keys in of_age.values())
    assert len(of_age) > 1
    columns = data.columns("train", ["user_text_key"])
    assert set(keys) <= set(joined_keys(columns["user_text_key"]))


def test_packed_shards(encoder: Path, tmp_path: Path) -> None:
    config = world_config(
        name="small",
        compression="gzip",
        source={"format": "world", "users": 50, "items": 20, "events": 500, "seed": 3},
    )
    prepare(config, tmp_path / "small")
    text = _config(encoder, data=config)
    textify(text, str(tmp_path / "small"), str(tmp_path / "texts"))
    data = Dataset.open(tmp_path / "small", [tmp_path / "texts"])
    assert (data.columns("train", ["item_tokens"])["item_tokens"][:, 0] != 0).all()


def test_it_is_of_one_dataset(world_data: Path, encoder: Path, tmp_path: Path) -> None:
    other = _config(encoder, data=world_config(name="world", max_bad_share=0.5))
    with pytest.raises(DataError, match="prepared with another config"):
        textify(other, str(world_data), str(tmp_path / "out"))
    with pytest.raises(DataError, match="nowhere: no dataset of this version"):
        textify(_config(encoder), str(tmp_path / "nowhere"), str(tmp_path / "out"))
    with pytest.raises(ConfigError, match=r"encoder: no folder .*gone"):
        textify(_config(tmp_path / "gone"), str(world_data), str(tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_names_that_a_feature_has(encoder: Path) -> None:
    features = [
        *world_config().model_dump(mode="json")["features"],
        {"name": "user_tokens", "kind": "text", "side": "user"},
    ]
    with pytest.raises(ValueError, match="'user' makes 'user_tokens', which is a feature's name"):
        _config(encoder, data=world_config(features=features))


def test_from_the_command_line(
    world_data: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    data = world_config().model_dump(mode="json", exclude_none=True)
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(data))
    text = {"name": "texts", "data": "data.yaml", "texts": TEXTS, "words": "words.yaml"}
    (tmp_path / "words.yaml").write_text("age_group: {'1': young}\n")
    (tmp_path / "encoder").symlink_to(encoder)
    (tmp_path / "text.yaml").write_text(yaml.safe_dump(text | {"encoder": {"folder": "encoder"}}))
    config = load(tmp_path / "text.yaml", TextConfig)
    assert config.encoder.directory == str(tmp_path)
    assert config.words == {"age_group": {"1": "young"}}
    arguments = ["--data", str(world_data), "--output", str(tmp_path / "out")]
    assert main(["--config", str(tmp_path / "text.yaml"), *arguments]) == 0
    assert "'train': 16000" in capsys.readouterr().out
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(text | {"encoder": {"folder": "none"}}))
    assert main(["--config", str(tmp_path / "bad.yaml"), *arguments]) == 1
    assert "none" in capsys.readouterr().err
