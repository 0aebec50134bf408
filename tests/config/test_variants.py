"""Files that extend one another, variants in them, and changes on the command line."""

import textwrap
from pathlib import Path
from typing import Any

import pytest

from tfctr.config import ConfigError, changed, load_data, load_run, read, variants

DATA = """
    name: shop
    source: {format: csv, events: events.csv}
    label: {column: click}
    time: {column: ts}
    features:
      - {name: user, kind: categorical, side: user}
"""
RUN = """
    name: run
    data: data.yaml
    model: {backbone: dcn_v2, num_cross_layers: 2, hidden_units: [32], dropout: 0.1}
    training:
      epochs: 3
      optimizer: {name: lazy_adam, learning_rate: 0.01, schedule: {name: cosine, final: 0.1}}
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write(tmp_path / "data.yaml", DATA)
    return write(tmp_path / "run.yaml", RUN)


def test_a_file_that_extends_another_is_merged_with_it_key_by_key(run: Path) -> None:
    path = write(
        run.parent / "other.yaml",
        """
        extends: run.yaml
        name: other
        training: {optimizer: {learning_rate: 0.02}}
        """,
    )
    training = {"epochs": 3, "optimizer": {"name": "lazy_adam", "learning_rate": 0.02}}
    training["optimizer"]["schedule"] = {"name": "cosine", "final": 0.1}  # type: ignore[index]
    assert read(path) == read(run) | {"name": "other", "training": training}


@pytest.mark.parametrize(
    ("change", "key", "found"),
    [
        ("model: {backbone: lr}", "model", {"backbone": "lr"}),
        ("model: {backbone: dcn_v2, dropout: 0}", "dropout", 0),
        ("training: {optimizer: {schedule: {name: linear}}}", "schedule", {"name": "linear"}),
        (
            "training: {optimizer: {schedule: {final: 0}}}",
            "schedule",
            {"name": "cosine", "final": 0},
        ),
        ("training: {optimizer: null}", "optimizer", None),
        ("model: {hidden_units: [8]}", "hidden_units", [8]),  # a list is replaced
    ],
)
def test_what_is_of_another_kind_replaces_the_whole(
    run: Path, change: str, key: str, found: Any
) -> None:
    content = read(write(run.parent / "other.yaml", f"extends: run.yaml\n{change}\n"))
    parts = [content, content["model"], content["training"], content["training"]["optimizer"] or {}]
    assert next(part[key] for part in parts if key in part) == found


def test_a_path_is_relative_to_the_file_in_which_it_stands(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    path = write(folder / "run.yaml", "extends: ../run.yaml\nvariants: {own: {data: own.yaml}}\n")
    write(folder / "own.yaml", "extends: ../data.yaml\nname: own\nsource: {events: own.csv}\n")
    write(folder / "kept.yaml", "extends: ../data.yaml\nname: kept\nlabel: {column: bought}\n")
    own = load_run(f"{path}#own").data
    assert (own.name, own.directory) == ("own", str(folder))
    for data in (load_run(path).data, load_data(folder / "kept.yaml")):
        assert Path(data.directory).resolve() == tmp_path.resolve()


def test_a_variant_is_the_file_with_changes_under_a_name_of_its_own(run: Path) -> None:
    run.write_text(
        run.read_text()
        + textwrap.dedent(
            """
            variants:
              slow: {training.optimizer.learning_rate: 0.001, training.patience: 5}
              plain: {name: lr, model: {backbone: lr}}
              same:
            """
        )
    )
    base, slow, plain = (load_run(f"{run}{variant}") for variant in ("", "#slow", "#plain"))
    assert (base.name, slow.name, plain.name) == ("run", "run-slow", "lr")
    assert (slow.training.optimizer.learning_rate, slow.training.patience) == (0.001, 5)
    assert slow.model == base.model
    assert plain.model.model_dump() == {"backbone": "lr", "features": None}
    assert load_run(f"{run}#same") == base.model_copy(update={"name": "run-same"})
    assert variants(run) == [f"{run}#slow", f"{run}#plain", f"{run}#same"]
    assert variants(f"{run}#slow") == [f"{run}#slow"]
    assert variants(f"{run}#") == [f"{run}#"]


def test_a_file_without_variants_stands_for_itself(run: Path) -> None:
    run.write_text(run.read_text() + "variants: {slow: {training.epochs: 1}}\n")
    path = write(run.parent / "other.yaml", "extends: run.yaml\n")
    assert variants(path) == [str(path)]  # those of a base are not the file's
    with pytest.raises(ConfigError, match=r"other\.yaml: no variant 'slow'; there are: none$"):
        read(f"{path}#slow")


def test_a_variant_has_the_changes_of_the_one_it_extends_and_then_its_own(run: Path) -> None:
    run.write_text(
        run.read_text()
        + textwrap.dedent(
            """
            variants:
              wide-slow: {extends: wide, training.optimizer.learning_rate: 0.001}
              wide: {name: wide, model: {backbone: dnn, hidden_units: [512]}}
              wide-slow-short: {extends: wide-slow, training.epochs: 1, model.hidden_units: [256]}
              wide-plain: {extends: wide-slow, model: {backbone: lr}, training: {epochs: 2}}
            """
        )
    )
    slow, short, plain = (
        load_run(f"{run}#{name}") for name in ("wide-slow", "wide-slow-short", "wide-plain")
    )
    assert (slow.name, short.name) == ("run-wide-slow", "run-wide-slow-short")
    assert slow.model.arguments == {"hidden_units": [512]}
    assert short.model.arguments == {"hidden_units": [256]}
    assert slow.training.optimizer.learning_rate == short.training.optimizer.learning_rate == 0.001
    assert (slow.training.epochs, short.training.epochs) == (3, 1)
    assert plain.model.arguments == {}
    assert plain.training.optimizer.learning_rate == 1e-3  # all of training is given anew
    assert load_run(f"{run}#wide").name == "wide"


def test_files_extend_and_name_variants_of_other_files(run: Path) -> None:
    data = run.parent / "data.yaml"
    data.write_text(data.read_text() + "variants: {late: {split: {valid: 0.3}}}\n")
    run.write_text(run.read_text() + "variants: {late: {data: data.yaml#late}}\n")
    later = write(
        run.parent / "more" / "later.yaml",
        """
        extends: ../run.yaml#late
        variants: {short: {training.epochs: 1}}
        """,
    )
    config = load_run(f"{later}#short")
    assert (config.name, config.data.name) == ("run-late-short", "shop-late")
    assert (config.data.split.valid, config.training.epochs) == (0.3, 1)


def test_a_part_of_a_list_is_named_by_its_name_or_its_number(tmp_path: Path) -> None:
    path = write(
        tmp_path / "run.yaml",
        """
        frameworks:
          - {name: rim, k: 1}
          - {name: rok, use: {all: 1}}
        variants:
          named: {frameworks.rok.use.all: 2, frameworks.rim.k: 3}
          numbered: {frameworks.0: {name: other}}
          unknown: {frameworks.ctrl.text: x}
        """,
    )
    named = [{"name": "rim", "k": 3}, {"name": "rok", "use": {"all": 2}}]
    assert read(f"{path}#named") == {"frameworks": named}
    assert read(f"{path}#numbered")["frameworks"][0] == {"name": "other"}
    says = r"run\.yaml: variants\.unknown\.frameworks\.ctrl\.text: no 'ctrl'; there are: rim, rok$"
    with pytest.raises(ConfigError, match=says):
        read(f"{path}#unknown")


def test_what_an_anchor_gives_to_two_places_is_changed_in_one(tmp_path: Path) -> None:
    path = write(tmp_path / "x.yaml", "a: &a {b: 1}\nc: *a\nvariants: {v: {a.b: 2}}\n")
    assert read(f"{path}#v") == {"a": {"b": 2}, "c": {"b": 1}}
    assert changed(read(path), ["c.b=3"]) == {"a": {"b": 1}, "c": {"b": 3}}


@pytest.mark.parametrize(
    ("text", "variant", "says"),
    [
        ("extends: x.yaml", "", "x.yaml: extends: the file extends itself"),
        ("extends: y.yaml", "", "x.yaml: extends: the file extends itself"),
        ("extends: x.yaml#v\nvariants: {v: {}}", "", "x.yaml: extends: the file extends itself"),
        (
            "extends: [y.yaml]",
            "",
            "x.yaml: extends: found ['y.yaml']; the path of a file is needed",
        ),
        ("extends: no.yaml", "", "no.yaml: no such file"),
        ("name: x", "v", "x.yaml: no variant 'v'; there are: none"),
        ("variants: {v: {}, w: {}}", "u", "x.yaml: no variant 'u'; there are: v, w"),
        ("variants: [v]", "v", "x.yaml: variants: a mapping is needed, found ['v']"),
        ("variants: {v: 1}", "v", "x.yaml: variants.v: a mapping is needed, found 1"),
        (
            "variants: {v: {extends: u}}",
            "v",
            "x.yaml: variants.v.extends: no variant 'u'; there are: v",
        ),
        (
            "variants: {v: {extends: w}, w: {extends: v}}",
            "v",
            "x.yaml: variants.w.extends: the variant extends itself",
        ),
        (
            "data: data.yaml\nvariants: {v: {data.split.seed: 2}}",
            "v",
            "x.yaml: variants.v.data.split.seed: data holds no keys of its own here; give the "
            "whole value, or change the file that it names",
        ),
        (
            "a: 1\nvariants: {v: {a.b: 2}}",
            "v",
            "x.yaml: variants.v.a.b: found 1, which has no keys",
        ),
    ],
)
def test_mistakes_name_the_file_and_the_key(
    tmp_path: Path, text: str, variant: str, says: str
) -> None:
    write(tmp_path / "y.yaml", "extends: x.yaml\n")
    path = write(tmp_path / "x.yaml", text)
    with pytest.raises(ConfigError) as caught:
        read(f"{path}#{variant}" if variant else path)
    assert str(caught.value) == f"{tmp_path}/{says}"


def test_a_mistake_in_a_variants_value_names_the_variant(run: Path) -> None:
    run.write_text(run.read_text() + "variants: {v: {training.epochs: many}}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml#v: training\.epochs: found 'many'; "):
        load_run(f"{run}#v")


def test_changes_on_the_command_line_are_in_the_name(run: Path) -> None:
    config = load_run(run, ["training.seed=2", "model.hidden_units=[8, 4]"])
    assert config.name == "run-seed-2-hidden_units-_8__4_"
    assert config.model.arguments["hidden_units"] == [8, 4]
    run.write_text(run.read_text() + "variants: {v: {training.epochs: 1}}\n")
    config = load_run(f"{run}#v", ["training.seed=2", "training.optimizer.schedule=null"])
    assert config.name == "run-v-seed-2-schedule-None"
    assert (config.training.seed, config.training.epochs) == (2, 1)
    assert config.training.optimizer.schedule is None
    assert load_run(run, ["name=other", "training.seed=2"]).name == "other"
    assert load_run(run, []).name == "run"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("training.seed", "found 'training.seed'; key=value is needed, as training.seed=2"),
        ("=2", "found '=2'; key=value is needed, as training.seed=2"),
        ("training.seed=[", "training.seed=[: not YAML: "),
        ("data.split.seed=2", "data.split.seed: data holds no keys of its own here; "),
        ("training.sed=2", "run.yaml: training: unknown key 'sed' (did you mean 'seed'?)"),
    ],
)
def test_changes_that_lead_nowhere_are_refused(run: Path, change: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run(run, [change])
    assert says in str(caught.value)
