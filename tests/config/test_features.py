"""Shorter data configs: `defaults` of features, and names by pattern."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tfctr.config import ConfigError, DataConfig, digest, load_data

USER = {"name": "user", "kind": "categorical", "side": "user"}
HEADER = "click,ts,user,C1,C2,C10,I-1,part\n"


def config(**changes: Any) -> dict[str, Any]:
    return {
        "name": "ads",
        "source": {"format": "csv", "events": "log.csv"},
        "label": {"column": "click"},
        "time": {"column": "ts"},
        "user": "user",
        "features": [USER],
    } | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a log and a table of users; `load` reads a config there."""
    (tmp_path / "log.csv").write_text(HEADER)
    (tmp_path / "users.csv").write_text("user,C2,city\n")
    return tmp_path


def load(folder: Path, content: dict[str, Any]) -> DataConfig:
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    return load_data(folder / "data.yaml")


def error(folder: Path, content: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, content)
    text = str(caught.value)
    assert text.startswith(f"{folder / 'data.yaml'}: ")
    assert len(text.splitlines()) == 1
    return text


def test_defaults_are_values_of_the_features_whose_kind_has_the_key(folder: Path) -> None:
    short = config(
        defaults={"min_count": 5, "dtype": "int", "side": "context", "max_length": 7},
        features=[
            USER | {"min_count": 2},
            {"name": "item", "kind": "categorical", "dtype": "string"},
            {"name": "tags", "kind": "multi_valued", "max_length": 3},
            {"name": "price", "kind": "numeric"},
            {"name": "seen", "kind": "history", "shares": "item"},
        ],
    )
    long = config(
        features=[
            USER | {"dtype": "int", "min_count": 2},
            {"name": "item", "kind": "categorical", "side": "context", "min_count": 5},
            {
                **{"name": "tags", "kind": "multi_valued", "side": "context", "max_length": 3},
                **{"dtype": "int", "min_count": 5},
            },
            {"name": "price", "kind": "numeric", "side": "context"},
            # The dtype is that of the shared feature.
            {"name": "seen", "kind": "history", "shares": "item", "max_length": 7, "min_count": 5},
        ]
    )
    assert load(folder, short).features == load(folder, long).features
    assert digest(load(folder, short)) == digest(load(folder, long))
    assert "defaults" not in load(folder, short).model_dump()


@pytest.mark.parametrize(
    ("defaults", "says"),
    [
        ({"num_buckets": 8}, "defaults.num_buckets: no feature takes it; it is for the kinds nume"),
        ({"min_count": 0}, "data.yaml: defaults.min_count: found 0; "),
        ({"min_cuont": 1}, "defaults: unknown key 'min_cuont' (did you mean 'min_count'?)"),
        ({"column": "x"}, "defaults: unknown key 'column'; allowed: side, "),
        (3, "data.yaml: defaults: found 3; "),
    ],
)
def test_a_default_that_fits_nothing_is_one_line(folder: Path, defaults: Any, says: str) -> None:
    assert says in error(folder, config(defaults=defaults))


def test_a_pattern_stands_for_the_columns_that_no_other_feature_reads(folder: Path) -> None:
    tables = {"users": {"path": "users.csv", "key": "user"}}
    short = config(
        source={"format": "csv", "events": "log.csv", **tables},
        split={"by": "column", "column": "part"},
        defaults={"min_count": 4},
        features=[
            {"name": "C?", "kind": "categorical", "side": "context", "dtype": "int"},
            {"name": "second", "column": "C2", "kind": "categorical", "side": "context"},
            {"name": "I*", "kind": "numeric", "side": "context"},
            USER,
            {"name": "seen", "kind": "history", "shares": "C10", "max_length": 3},
            {"name": "*", "kind": "categorical", "side": "user"},  # not the label, time or split
        ],
    )
    token = {"kind": "categorical", "side": "context", "min_count": 4}
    long = config(
        source={"format": "csv", "events": "log.csv", **tables},
        split={"by": "column", "column": "part"},
        features=[
            token | {"name": "C1", "dtype": "int"},
            token | {"name": "second", "column": "C2"},
            {"name": "I_1", "column": "I-1", "kind": "numeric", "side": "context"},
            USER | {"min_count": 4},
            {"name": "seen", "kind": "history", "shares": "C10", "max_length": 3, "min_count": 4},
            token | {"name": "C10", "side": "user"},
            token | {"name": "city", "side": "user"},
        ],
    )
    assert load(folder, short).features == load(folder, long).features
    assert digest(load(folder, short)) == digest(load(folder, long))
    # What is written to a manifest needs no files.
    written = load(folder, short).model_dump(mode="json")
    (folder / "log.csv").unlink()
    assert digest(DataConfig.model_validate(written)) == digest(load(folder, long))


@pytest.mark.parametrize(
    ("feature", "says"),
    [
        (
            {"name": "D*"},
            "features: 'D*' fits no column that no other feature reads; those",
        ),
        ({"name": "clic?"}, "features: 'clic?' fits no column"),
        ({"name": "C*", "column": "C1"}, "features: 'C*' stands for several columns; leave out"),
        ({"name": "C*", "min_count": 0}, "features[1].min_count: found 0; "),
        ({"name": "C*", "kind": "cat"}, "features[1].kind: found 'cat'; allowed: 'categ"),
    ],
)
def test_a_wrong_pattern_is_one_line(folder: Path, feature: dict[str, Any], says: str) -> None:
    token = {"kind": "categorical", "side": "context"}
    assert says in error(folder, config(features=[USER, token | feature]))


def test_a_pattern_needs_the_files(folder: Path) -> None:
    pattern = {"name": "C*", "kind": "categorical", "side": "context"}
    with (folder / "log.csv").open("w") as file:
        file.write("click,ts,user,C 1,2nd\n")
    (found,) = load(folder, config(features=[pattern, USER])).features[:1]
    assert (found.name, found.column) == ("C_1", "C 1")
    says = "'?nd' fits the column '2nd', which is no name of a feature; give it one of its own"
    assert says in error(folder, config(features=[USER, pattern | {"name": "?nd"}]))
    (folder / "log.csv").unlink()
    says = "features: the columns of the files are needed: source: no file 'log.csv'"
    assert says in error(folder, config(features=[pattern, USER]))
