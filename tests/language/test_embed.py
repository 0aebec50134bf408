"""Vectors of the texts of all items of a log."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from beam_pipelines import embed as embedding
from beam_pipelines.embed import embed, main
from tests.conftest import content_of
from tests.language.encoders import bert_tensors, run_bert, write_bert
from tfctr.cli import app
from tfctr.config import ConfigError
from tfctr.data import joined_tables
from tfctr.data.manifest import DataError
from tfctr.language.config import TextConfig
from tfctr.language.pretrained import load_encoder, load_text_backbone, load_tokenizer
from tfctr.language.text_vectors import TextVectors

ITEMS = """item,title,genres,price
1,Toy Story,comedy|drama,1.5
2,A movie,,
4,Nobody has watched this,drama,inf
5,Toy,comedy,3
"""
# Item 3 is in no table, and has two titles; item 5 has only a row that is dropped.
EVENTS = """user,item,stars,time,seen_as
u1,2,5,1,
u2,3,1,2,the third
u1,3,5,3,story
u2,1,1,4,title
u3,5,3,5,toy
u3,1,5,6,the first
"""
FEATURES: list[dict[str, Any]] = [
    {"name": "user", "kind": "categorical", "side": "user"},
    {"name": "movie", "kind": "categorical", "side": "item", "dtype": "int", "column": "item"},
    {"name": "genres", "kind": "multi_valued", "side": "item", "max_length": 2},
    {"name": "price", "kind": "numeric", "side": "item"},
    {"name": "title", "kind": "text", "side": "item"},
    {"name": "seen_as", "kind": "text", "side": "item"},
]
TEXTS = {
    "item": {"template": "{title}, {genres} at {price}: {seen_as}!", "max_tokens": 16},
    "user": {"template": "A user is {user}.", "max_tokens": 12},
}
# What is written for each item, by hand.
EXPECTED = {
    1: "Toy Story, comedy|drama at 1.5: title!",
    2: "A movie, unknown at unknown: unknown!",
    3: "unknown, unknown at unknown: the third!",
    4: "Nobody has watched this, drama at unknown: unknown!",
    5: "Toy, comedy at 3: toy!",
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("encoder"), bert_tensors())


def make_config(
    folder: Path,
    encoder: Path,
    texts: Any = None,
    events: str = "events.csv",
    encoder_config: Any = None,
    **data: Any,
) -> TextConfig:
    (folder / "items.csv").write_text(ITEMS)
    (folder / "events.csv").write_text(EVENTS)
    source = {"format": "csv", "events": events, "items": {"path": "items.csv", "key": "item"}}
    content = {
        "name": "log",
        "source": source,
        "directory": str(folder),
        "label": {"column": "stars", "positive_above": 3, "drop": [3]},
        "time": {"column": "time", "unit": "none"},
        "user": "user",
        "item": "movie",
        "features": FEATURES,
    }
    return TextConfig.model_validate(
        {
            "name": "texts",
            "data": content | data,
            "encoder": encoder_config or {"folder": str(encoder)},
            "texts": texts or TEXTS,
        }
    )


def vectors_in(folder: Path, key: str = "item") -> dict[Any, np.ndarray]:
    table = pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("*.parquet")))
    assert table.column_names == [key, "vector"]
    assert table.schema.field("vector").type == pa.list_(pa.float32())
    found = {key: np.array(v) for key, v in zip(*table.to_pydict().values(), strict=True)}
    assert len(found) == table.num_rows
    return found


def test_each_item_has_the_mean_of_its_text_s_last_layer(encoder: Path, tmp_path: Path) -> None:
    manifest = embed(make_config(tmp_path, encoder), str(tmp_path / "vectors"))
    found = vectors_in(tmp_path / "vectors")
    assert sorted(found) == sorted(EXPECTED)
    tokenizer = load_tokenizer(str(encoder))
    tensors = bert_tensors()
    lengths, cut = [], 0
    for item, text in EXPECTED.items():
        tokens = [tokenizer.cls_token_id, *map(int, tokenizer(text)), tokenizer.sep_token_id]
        lengths.append(len(tokens))
        if len(tokens) > 16:
            cut += 1
            tokens = [*tokens[:15], tokenizer.sep_token_id]
        layer = run_bert(tensors, np.array([tokens]), np.ones((1, len(tokens)), bool))[0]
        np.testing.assert_allclose(found[item], layer.mean(axis=0), atol=1e-5)
    # The same, of rows in Python.
    vectors = TextVectors(make_config(tmp_path, encoder))
    some = {"title": "Toy Story", "genres": ["comedy", "drama"], "price": 1.5, "seen_as": "title"}
    of_rows = vectors.of_rows([some, {"title": "A movie", "genres": []}])
    np.testing.assert_allclose(of_rows, [found[1], found[2]], atol=1e-5)
    with pytest.raises(ConfigError, match=r"item: found 'year'; its features are: title, gen"):
        vectors.of_rows([{"year": 1995}])
    with pytest.raises(DataError, match="row 1: price: found 'free': not a number"):
        vectors.of_rows([{"price": "1"}, {"price": "free"}])
    assert manifest["rows"] == 5
    assert manifest["texts"]["tokens"] == sum(lengths)
    assert manifest["texts"]["cut"] == cut > 0
    written = {shard["name"] for shard in manifest["shards"]}
    assert written == {path.name for path in (tmp_path / "vectors").glob("*.parquet")}


def test_the_same_bytes_however_the_log_is_split_and_shared_out(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whether a worker can hold the table of items, or not."""
    rng = np.random.default_rng(2)
    items = rng.integers(1, 60, 900)
    log = {
        "user": [f"u{n % 9}" for n in range(900)],
        "item": items,
        "stars": np.full(900, 5),
        "time": np.arange(900),
        "seen_as": [f"toy {n}" if n % 4 else None for n in range(900)],
    }
    for name, rows in (("few", 900), ("many", 31)):
        pq.write_table(pa.table(log), tmp_path / f"{name}.parquet", row_group_size=rows)
    threads = ["--direct_running_mode=multi_threading", "--direct_num_workers=2"]
    for name, beam_args, large in (("few", None, 1 << 30), ("many", threads, 0)):
        monkeypatch.setattr(joined_tables, "LARGE_TABLE", large)
        config = make_config(tmp_path, encoder, events=f"{name}.parquet")
        embed(config, str(tmp_path / name), beam_args=beam_args)
    few, many = (content_of(tmp_path / name) for name in ("few", "many"))
    assert len([name for name in few if name.endswith(".parquet")]) > 30
    for content in (few, many):
        del content["manifest.json"]  # the log's name is in it
    assert few == many
    assert {*vectors_in(tmp_path / "many")} == {*items.tolist(), 1, 2, 4, 5}


@pytest.mark.parametrize("name", ["empty.csv", "empty.parquet"])
def test_a_log_without_rows_yet(name: str, encoder: Path, tmp_path: Path) -> None:
    header = EVENTS.splitlines()[0]
    (tmp_path / "empty.csv").write_text(header + "\n")
    schema = pa.schema([(column, pa.string()) for column in header.split(",")])
    pq.ParquetWriter(tmp_path / "empty.parquet", schema).close()
    embed(make_config(tmp_path, encoder, events=name), str(tmp_path / "vectors"))
    assert {*vectors_in(tmp_path / "vectors")} == {1, 2, 4, 5}


def test_tokens_of_a_feature_of_a_table(encoder: Path, tmp_path: Path) -> None:
    """Categories that only an item without events has are there too."""
    kind = {"name": "kind", "kind": "categorical", "side": "item", "column": "title"}
    texts = {"item": {"template": "This is {kind}."}}
    config = make_config(tmp_path, encoder, texts, features=[*FEATURES[:2], kind])
    embed(config, str(tmp_path / "vectors"), feature="kind")
    titles = {"Toy Story", "A movie", "Nobody has watched this", "Toy"}
    assert {*vectors_in(tmp_path / "vectors", "title")} == titles


SPECIAL = ["<|endoftext|>", "<|im_end|>"]
GPT2 = keras_hub.models.GPT2Backbone, keras_hub.models.GPT2Tokenizer, {"max_sequence_length": 64}
QWEN = (
    keras_hub.models.Qwen3Backbone,
    keras_hub.models.Qwen3Tokenizer,
    {"num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 4},
)


def write_decoder(folder: Path, kind: Any) -> Path:
    """A random decoder, as keras-hub saves one. Its padding token is one of its words."""
    to_backbone, to_tokenizer, more = kind
    signs = [*"abcdefghijklmnopqrstuvwxyz0123456789ATSNAU.,:!|", "Ġ", *SPECIAL]
    vocabulary = {sign: i for i, sign in enumerate(dict.fromkeys(signs))}
    merges = ["t o", "Ġ to"]
    vocabulary |= {merge.replace(" ", ""): len(vocabulary) + i for i, merge in enumerate(merges)}
    heads = {} if "head_dim" in more else {"num_heads": 2}
    sizes = {"num_layers": 2, "hidden_dim": 8, "intermediate_dim": 16}
    backbone = to_backbone(vocabulary_size=len(vocabulary), **sizes, **heads, **more)
    rng = np.random.default_rng(3)
    for weight in backbone.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    backbone.save_to_preset(str(folder))
    to_tokenizer(vocabulary, merges).save_to_preset(str(folder))
    return folder


@pytest.mark.parametrize("kind", [GPT2, QWEN], ids=["gpt2", "qwen"])
def test_a_decoder(kind: Any, tmp_path: Path) -> None:
    """Of the two only GPT-2 has a token for a text's start."""
    where = write_decoder(tmp_path / "decoder", kind)
    texts = {"item": {"template": "{title}, {genres} at {price}: {seen_as}!", "max_tokens": 60}}
    embed(make_config(tmp_path, where, texts), str(tmp_path / "vectors"))
    found = vectors_in(tmp_path / "vectors")
    backbone, tokenizer = load_text_backbone(str(where)), load_tokenizer(str(where))
    for item, text in EXPECTED.items():
        ids = [*map(int, tokenizer(text)), tokenizer.end_token_id]
        if kind is GPT2:
            ids.insert(0, tokenizer.start_token_id)
        tokens = np.array([ids])
        layer = backbone({"token_ids": tokens, "padding_mask": np.ones_like(tokens)})
        np.testing.assert_allclose(found[item], np.array(layer)[0].mean(axis=0), atol=1e-5)
    with pytest.raises(ConfigError, match="Backbone; BERT- and RoBERTa-like ones are read"):
        load_encoder(str(where))


def test_a_model_of_something_else(tmp_path: Path) -> None:
    keras_hub.models.BartBackbone(30, 1, 2, 8, 16, max_sequence_length=8).save_to_preset(
        str(tmp_path / "bart")
    )
    with pytest.raises(ConfigError, match=r"BartBackbone; one that reads padding_mask and token_i"):
        load_text_backbone(str(tmp_path / "bart"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"text": "user"}, r"texts: texts.user.template: {user} of another side; an item's"),
        ({"text": "query"}, r"texts: --text: found 'query'; texts: item, user"),
        (
            {"feature": "user"},
            r"--feature: found 'user', where a categorical feature of the it.*: ",
        ),
        ({"feature": "title"}, r"--feature: found 'title', where a categorical .*: movie"),
    ],
)
def test_arguments_that_do_not_fit(
    given: dict[str, str], says: str, encoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        embed(make_config(tmp_path, encoder), str(tmp_path / "vectors"), **given)
    assert not (tmp_path / "vectors").exists()


def test_configs_that_do_not_fit(encoder: Path, tmp_path: Path) -> None:
    def says(what: str, config: TextConfig) -> None:
        with pytest.raises((ConfigError, DataError), match=what) as raised:
            embed(config, str(tmp_path / "vectors"))
        assert "\n" not in str(raised.value)
        assert not (tmp_path / "vectors").exists()

    both = {"item": TEXTS["item"], "short": {"template": "{title}"}}
    says("texts: item, short are of items", make_config(tmp_path, encoder, both))
    none = {"row": {"template": "{user} and {title}"}}
    says(
        r"texts.row.template: {user} of another side; an item's",
        make_config(tmp_path, encoder, none),
    )
    says(
        "data.item: found None, where .*: movie; write it",
        make_config(tmp_path, encoder, item=None),
    )
    long = {"item": {"template": "{title}", "max_tokens": 65}}
    says(
        "texts.item.max_tokens: found 65; the encoder reads at",
        make_config(tmp_path, encoder, long),
    )
    says("no folder .*nothing", make_config(tmp_path, tmp_path / "nothing"))
    bad = make_config(tmp_path, encoder)
    (tmp_path / "events.csv").write_text(EVENTS + "u1,x,5,1,\n")
    says("1 of 7 rows of the events are bad.*They are in .*vectors.dead_letters", bad)
    assert (tmp_path / "vectors.dead_letters").is_dir()


def test_tokens_that_are_lost(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_group = embedding._FirstRows._by_group

    def losing(self: Any, table: Any, place: Any) -> Iterator[Any]:
        yield from [*by_group(self, table, place)][:-1]

    monkeypatch.setattr(embedding._FirstRows, "_by_group", losing)
    with pytest.raises(DataError, match="tokens: its rows: 6 of 8 came"):
        embed(make_config(tmp_path, encoder), str(tmp_path / "vectors"))
    assert not (tmp_path / "vectors").exists()


def write_yaml(config: TextConfig, folder: Path) -> Path:
    data = config.data.model_dump(mode="json", exclude_none=True)
    (folder / "data.yaml").write_text(yaml.safe_dump(data))
    content = config.model_dump(mode="json", exclude_none=True, exclude={"data"})
    (folder / "texts.yaml").write_text(yaml.safe_dump({**content, "data": "data.yaml"}))
    return folder / "texts.yaml"


def test_the_commands(encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_yaml(make_config(tmp_path, encoder), tmp_path)
    work = ["--work", str(tmp_path / "work")]

    def run(*args: str) -> str:
        ran = CliRunner().invoke(app, ["embed", str(path), *work, *args], env={"COLUMNS": "200"})
        assert ran.exit_code == 0, ran.output
        return ran.output

    assert "vectors of 8 numbers for 5 movie; " in run()
    made = content_of(tmp_path / "work/texts-vectors")
    assert "embed is done" in run()
    assert main([f"--config={path}", f"--output={tmp_path / 'job'}"]) == 0
    assert "job: vectors of 8 numbers for 5 movie; " in capsys.readouterr().out
    of_job = content_of(tmp_path / "job")
    assert {n for n in made if made[n] != of_job[n]} == {"manifest.json"}  # it has the key
    (tmp_path / "events.csv").write_text(EVENTS + "u1,6,5,7,new\n")
    assert "for 6 movie" in run("--output", str(tmp_path / "work/texts-vectors"))
    ran = CliRunner().invoke(app, ["embed", str(path), *work, "--text", "user"])
    assert ran.exit_code == 1
    assert ran.output.count("\n") == 1


@pytest.mark.slow
def test_an_encoder_that_is_trained_here(encoder: Path, tmp_path: Path) -> None:
    small = {"vocabulary_size": 100, "num_layers": 1, "hidden_dim": 4, "num_heads": 1}
    training = {"epochs": 1, "batch_size": 32}
    trained = {"trained": small | {"max_tokens": 24, "training": training}}
    rng = np.random.default_rng(4)
    lines = [
        f"u{n % 7},{rng.integers(1, 6)},{rng.choice([1, 5])},{n},toy story {n % 50}"
        for n in range(200)
    ]
    config = make_config(tmp_path, encoder, encoder_config=trained)
    (tmp_path / "events.csv").write_text("\n".join([EVENTS.splitlines()[0], *lines]) + "\n")
    path = write_yaml(config, tmp_path)
    ran = CliRunner().invoke(app, ["embed", str(path), "--work", str(tmp_path / "work")])
    assert ran.exit_code == 0, ran.output
    found = vectors_in(tmp_path / "work/texts-vectors")
    assert {len(vector) for vector in found.values()} == {4}
    manifest = json.loads((tmp_path / "work/texts-vectors/manifest.json").read_text())
    assert manifest["encoder"] == str(tmp_path / "work/texts-encoder/trained")
