"""An encoder that is trained on the dataset's own texts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from tests.frameworks.ctrl.test_ctrl import PRETRAINING, write_configs
from tfctr.config import ConfigError, load, load_run
from tfctr.data.manifest import read_manifest
from tfctr.language.config import TextConfig
from tfctr.language.pretrained import load_encoder, load_masked_lm_head, load_tokenizer, locate
from tfctr.language.small_encoder import describe
from tfctr.stages import Prepare, Run, build
from tfctr.stages.texts import Textify

SMALL = {
    "vocabulary_size": 300,
    "num_layers": 1,
    "hidden_dim": 16,
    "num_heads": 2,
    "max_tokens": 64,
    "training": {
        "batch_size": 128,
        "epochs": 3,
        "steps_per_epoch": 15,
        "in_memory": True,
        "optimizer": {"learning_rate": 0.01},
    },
}


def _write(folder: Path, **framework: Any) -> Path:
    path = write_configs(folder, {"name": "ctrl", "pretraining": PRETRAINING} | framework)
    text = yaml.safe_load((folder / "text.yaml").read_text())
    (folder / "text.yaml").write_text(yaml.safe_dump(text | {"encoder": {"trained": SMALL}}))
    return path


def _textify(folder: Path) -> Path:
    config, work = load(folder / "text.yaml", TextConfig), folder / "work"
    dataset = Prepare(config.data, work / config.data.name)
    return build(Textify(config, dataset, work), Console(quiet=True))


@pytest.mark.slow
def test_the_whole_way(tmp_path: Path) -> None:
    run = Run(load_run(_write(tmp_path)), tmp_path / "work", Console(quiet=True))
    run.prepare()
    folder = tmp_path / "work/texts-encoder"
    tokenizer = load_tokenizer(str(folder / "untrained"))
    words = [tokenizer.id_to_token(i) for i in range(tokenizer.vocabulary_size())]
    assert words[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert {"title", "genre", "user", "unknown"} <= set(words)
    manifest = read_manifest(tmp_path / "work/texts/manifest.json")
    assert manifest is not None
    assert manifest["splits"]["train"]["texts"]["item"]["unknown_tokens"] == 0
    aligned = run.before["ctrl"]["aligned"]
    build(aligned, run.console)
    trained = read_manifest(folder / "train.json")
    assert trained is not None
    likelihoods = [epoch["valid_log_likelihood"] for epoch in trained["epochs"]]
    assert likelihoods[-1] > np.log(1 / len(words)) + 1  # better than any word at random
    encoder = load_encoder(str(folder / "trained"))
    assert load_masked_lm_head(str(folder / "trained"), encoder).is_pretrained
    before = load_encoder(str(folder / "untrained")).token_embedding.embeddings
    assert not np.allclose(encoder.token_embedding.embeddings, before)
    # What is done is not done again.
    times = [path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()]
    _textify(tmp_path)
    build(aligned, run.console)
    again = [path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()]
    assert again == times


def test_what_stands_between_values_is_a_word(tmp_path: Path) -> None:
    _write(tmp_path)
    content = yaml.safe_load((tmp_path / "text.yaml").read_text())
    content["texts"] = {"item": {"template": "Tags are {tags}.", "max_tokens": 40}}
    (tmp_path / "text.yaml").write_text(yaml.safe_dump(content))
    manifest = read_manifest(_textify(tmp_path) / "manifest.json")
    assert manifest is not None
    assert manifest["splits"]["train"]["texts"]["item"]["unknown_tokens"] == 0


def test_a_vocabulary_says_what_was_got_and_why() -> None:
    assert describe(3_900, 4_000) == "3,900 word pieces"
    assert describe(996, 4_000) == (
        "996 word pieces, not 4,000 (vocabulary_size): only these occur at least ten times in the "
        "distinct values of the training rows"
    )


@pytest.mark.slow
def test_without_what_it_learned(tmp_path: Path) -> None:
    run = Run(load_run(_write(tmp_path, pretrained=False)), tmp_path / "work", Console(quiet=True))
    run.prepare()
    run.train()
    assert run.evaluate().is_file()


def test_it_is_made_by_a_run(tmp_path: Path) -> None:
    _write(tmp_path)
    with pytest.raises(ConfigError, match="`tfctr textify` makes it"):
        locate(load(tmp_path / "text.yaml", TextConfig).encoder)
