"""Config files: what is right is taken, what is wrong is one clear line."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tfctr.config import (
    ConfigError,
    Training,
    digest,
    find_input,
    load,
    load_data,
    load_run,
    read,
    variants,
)
from tfctr.frameworks.ecdctr.config import load_days, load_rollout
from tfctr.frameworks.rok.config import (
    HistoryKnowledgeConfig,
    KnowledgeConfig,
    NeighboursConfig,
)
from tfctr.frameworks.srp4ctr.config import SequenceEncoderConfig, SequencesConfig
from tfctr.frameworks.statistics.config import TablesConfig
from tfctr.language.config import TextConfig
from tfctr.retrieval.config import RetrievalConfig
from tfctr.schema import Categorical, Numeric, Strict, Text

RUN: dict[str, Any] = {
    "name": "run",
    "data": {
        "name": "shop",
        "source": {"format": "csv", "events": "events.csv"},
        "label": {"column": "click"},
        "time": {"column": "ts"},
        "user": "user",
        "features": [
            {"name": "user", "kind": "categorical", "side": "user"},
            {"name": "tags", "kind": "multi_valued", "side": "item", "max_length": 3},
            {"name": "price", "kind": "numeric", "side": "item"},
        ],
    },
    "model": {"backbone": "dcn_v2", "hidden_units": [32]},
}


def write(folder: Path, content: Any, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(content))
    return path


def changed(path: str, value: Any) -> dict[str, Any]:
    """RUN with one key set, e.g. `data.features.0.kind`."""
    content = copy.deepcopy(RUN)
    *parents, last = path.split(".")
    inner: Any = content
    for part in parents:
        inner = inner[int(part)] if part.isdigit() else inner.setdefault(part, {})
    inner[int(last) if last.isdigit() else last] = value
    return content


def test_a_run_config_is_read_with_its_defaults(tmp_path: Path) -> None:
    run = load_run(write(tmp_path, RUN))
    assert run.training.batch_size == 4096
    assert run.model.arguments == {"hidden_units": [32]}
    assert [feature.name for feature in run.data.features] == ["user", "tags", "price"]
    assert run.data.directory == str(tmp_path)


def test_data_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, RUN["data"], "data.yaml")
    run = load_run(write(tmp_path, RUN | {"data": "data.yaml"}))
    assert run.data == load_data(tmp_path / "data.yaml") == load_data(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("data.sourc", 1, "data: unknown key 'sourc' (did you mean 'source'?); allowed: name,"),
        ("data.source.separator", '"', "data.source.separator: found '\"'; string should match"),
        ("data.source.separator", "", "data.source.separator: found ''; string should match"),
        ("data.source.format", "cvs", "data.source.format: found 'cvs'; allowed: 'csv', 'jsonl'"),
        ("data.features.0.kind", "cat", "data.features[0].kind: found 'cat'; allowed: 'categ"),
        ("data.features.0.side", "usr", "data.features[0].side: found 'usr'; input should be"),
        ("data.features.0.max_length", 3, "data.features[0]: unknown key 'max_length'"),
        ("data.features.1.max_length", "x", "data.features[1].max_length: found 'x'; "),
        ("data.features.1.max_length", 0, "data.features[1].max_length: found 0; "),
        ("data.features.2.name", "my price", "data.features[2].name: found 'my price'; "),
        ("data.features.2.boundaries", [3, 2], "boundaries must ascend strictly"),
        ("data.features.2.name", "tags", "feature 'tags' is given twice"),
        ("data.features.2.column", "click", "'price' reads the label's column 'click'"),
        ("data.user", "nobody", "data: user: 'nobody' is not a categorical feature of side"),
        ("data.label", {}, "data.label.column: missing; it is required"),
        ("data.split", {"valid": 0.6, "test": 0.5}, "valid + test must be below 1"),
        ("data.split", {"pool": 0.6, "valid": 0.4}, "pool + valid + test must be below 1"),
        ("data.split", {"pool": 0.6, "by": "random"}, "pool: needs by: global_time"),
        ("data.split", {"by": "user"}, "data.split.by: found 'user'; input should be"),
        ("data", 3, "data: found 3; "),
        ("data", "no.yaml", "no.yaml: no such file"),
        ("training", {"epchs": 3}, "training: unknown key 'epchs' (did you mean 'epochs'?)"),
        ("training", {"batch_size": 0}, "training.batch_size: found 0; "),
        (
            "training",
            {"optimizer": {"name": "adam", "embedding_l2": 0.1}},
            "training.optimizer: embedding_l2 needs lazy_adam or lazy_adagrad, found 'adam'",
        ),
        (
            "training",
            {"optimizer": {"name": "adagrad", "compact_state": True}},
            "training.optimizer: compact_state needs lazy_adam or lazy_adagrad, found 'adagrad'",
        ),
        ("name", "shop", "name: 'shop' is the data's name too"),
        ("name", "../up", "name: found '../up'; "),
    ],
)
def test_a_mistake_is_one_line_with_file_and_key(
    tmp_path: Path, path: str, value: Any, says: str
) -> None:
    file = write(tmp_path, changed(path, value))
    with pytest.raises(ConfigError) as caught:
        load_run(file)
    text = str(caught.value)
    assert says in text
    assert len(text.splitlines()) == 1
    assert text.startswith(str(tmp_path))


def test_two_mistakes_are_two_lines(tmp_path: Path) -> None:
    content = changed("training", {"batch_size": 0, "epochs": "many"})
    with pytest.raises(ConfigError) as caught:
        load_run(write(tmp_path, content))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("text", ["a: [1", "- 1", "", "!!python/object:os.system {}", "\xff"])
def test_what_is_no_mapping_in_yaml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"run\.yaml: (not YAML|a mapping is needed)"):
        load_run(path)


def test_a_sequence_shares_only_what_has_a_vocabulary(tmp_path: Path) -> None:
    shared = {"name": "seen", "kind": "sequence", "side": "user", "max_length": 5}
    content = copy.deepcopy(RUN)
    content["data"]["features"].append(shared | {"shares": "price"})
    with pytest.raises(ConfigError, match="shares 'price', which is not a categorical"):
        load_run(write(tmp_path, content))
    content["data"]["features"][-1] = shared | {"shares": "tags", "dtype": "int"}
    with pytest.raises(ConfigError, match="has dtype 'int' but shares 'tags' of dtype 'string'"):
        load_run(write(tmp_path, content))


def test_gauc_chooses_only_where_there_are_users(tmp_path: Path) -> None:
    content = changed("training.chosen_by", "gauc")
    assert load_run(write(tmp_path, content)).training.chosen_by == "gauc"
    del content["data"]["user"]
    with pytest.raises(ConfigError, match=r"run.yaml: training.chosen_by: 'gauc' needs .*'user'"):
        load_run(write(tmp_path, content))


def test_a_digest_leaves_out_defaults_and_keeps_kinds() -> None:
    class Before(Strict):
        a: int = 1

    class After(Before):
        b: int = 2

    assert digest(Before()) == digest(After()) != digest(After(b=3))
    assert digest(Training(chosen_by="log_loss")) != digest(Training())
    of_kind = [kind(name="x", side="user") for kind in (Categorical, Numeric, Text)]
    assert len({digest(feature) for feature in of_kind}) == 3


def test_digest_follows_content_and_not_the_folder(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one = load_run(write(tmp_path, RUN))
    same = load_run(write(tmp_path / "other", RUN))
    other = load_run(write(tmp_path, changed("data.split", {"seed": 5})))
    assert digest(one.data) == digest(same.data) != digest(other.data)


def test_inputs_are_found_beside_the_config_or_in_the_data_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, beside = tmp_path / "home", tmp_path / "configs"
    home.mkdir()
    beside.mkdir()
    monkeypatch.setenv("TFCTR_DATA_HOME", str(home))
    with pytest.raises(ConfigError) as caught:
        find_input("a.csv", str(beside))
    assert str(beside / "a.csv") in str(caught.value)
    assert str(home / "a.csv") in str(caught.value)
    (home / "a.csv").touch()
    assert find_input("a.csv", str(beside)) == home / "a.csv"
    (beside / "a.csv").touch()
    assert find_input("a.csv", str(beside)) == beside / "a.csv"
    monkeypatch.delenv("TFCTR_DATA_HOME")  # where `tfctr download` keeps what it fetches
    with pytest.raises(ConfigError, match=r"\.cache/tfctr/b\.csv\. TFCTR_DATA_HOME names another"):
        find_input("b.csv", str(beside))


def test_the_configs_of_the_repository_are_valid() -> None:
    files = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
    assert files
    whole = [file for file in files if file.name not in ("tune.yaml", "words.yaml")]
    for path in [path for file in whole for path in dict.fromkeys([str(file), *variants(file)])]:
        content = read(path)
        kinds = {
            "start": load_rollout,
            "measured_days": load_days,
            "model": load_run,
            "state_dim": partial(load, model=HistoryKnowledgeConfig),
            "latest": partial(load, model=NeighboursConfig),
            "teacher": partial(load, model=KnowledgeConfig),
            "k": partial(load, model=RetrievalConfig),
            "texts": partial(load, model=TextConfig),
            "sequences": partial(load, model=SequenceEncoderConfig),
            "stride": partial(load, model=SequencesConfig),
            "grades": partial(load, model=TablesConfig),
        }
        next((kind for key, kind in kinds.items() if key in content), load_data)(path)
