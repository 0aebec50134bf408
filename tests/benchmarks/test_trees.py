"""Trees on what a student reads: the same numbers of the same rows."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from benchmarks.movielens.__main__ import of_seed
from benchmarks.students import _models
from benchmarks.trees import Mean, categorical_columns, columns, plain_features, references
from tests.frameworks.statistics.test_statistics import write_configs
from tfctr.comparison import ScoredRows
from tfctr.config import RunConfig, load_run
from tfctr.data import Dataset
from tfctr.data.manifest import read_manifest
from tfctr.stages import build

pytestmark = pytest.mark.slow  # a student and trees are trained


def config_in(folder: Path) -> RunConfig:
    content = {"extends": str(write_configs(folder)), "frameworks.statistics.stored": True}
    (folder / "stored.yaml").write_text(yaml.safe_dump(content))
    return load_run(folder / "stored.yaml")


@pytest.fixture(scope="module")
def mean(tmp_path_factory: pytest.TempPathFactory) -> Mean:
    folder = tmp_path_factory.mktemp("trees")
    _, made = references(of_seed(config_in(folder), 1), folder / "work")
    build(made, Console(quiet=True))
    return made


def test_trees_read_what_the_student_reads(mean: Mean) -> None:
    student, trees = mean.reads
    data = Dataset.open(mean.data)
    statistics = student.trained.load().statistics
    names = ["user_id", "item_id", "past_item", "past_click", "label", "hour"]
    test = data.columns("test", names)
    population = np.full(len(test["label"]), 2)
    user = statistics.encode(test["past_item"], test["past_click"], population)
    expected = statistics.of_candidates(user, test["item_id"][:, None], population)[:, 0]
    first = statistics.num_numbers
    with np.load(trees.numbers.path) as found:
        np.testing.assert_allclose(found["test"][:, :first], expected, atol=1e-5)
        np.testing.assert_array_equal(found["test_labels"], test["label"])
        # The scale is that of training rows, which read the tables of the other half.
        assert len(found["train"]) == data.num_rows("train")
        np.testing.assert_allclose(found["train"][:, :first].mean(0), statistics.center, atol=1e-4)
        ids = read_manifest(trees.numbers.manifest_path)["categorical"]
        hours = [i for i in ids if np.array_equal(found["test"][:, i], test["hour"])]
        assert len(hours) == 1


def test_plain_features_are_numbers_and_few_values(mean: Mean) -> None:
    schema = Dataset.open(mean.data).schema
    method = mean.reads[1].numbers.method
    plain = plain_features(method, ["user_id", "age_group", "price", "item_id", "tags"], schema)
    assert [feature.name for feature in plain] == ["age_group", "tags", "price"]
    rows = {
        "age_group": np.array([3, 1]),
        "tags": np.array([[4, 0, 0], [3, 4, 1]]),
        "price": np.array([0.5, np.nan], np.float32),
    }
    age, tags, price = columns(plain, rows)
    np.testing.assert_array_equal(age, [[3], [1]])
    np.testing.assert_array_equal(price, [[0.5], [np.nan]])
    assert tags.shape == (2, schema["tags"].num_ids - 3)
    np.testing.assert_array_equal(tags[:, :2], [[0, 1], [1, 1]])
    assert not tags[:, 2:].any()
    assert categorical_columns(plain, first=10) == [10]


def test_each_model_has_a_row_of_the_same_test_rows(mean: Mean) -> None:
    student, trees = mean.reads
    work = mean.folder.parent
    config = config_in(work.parent)
    found = list(_models(config, [1], work, Namespace(trees=True, fuxictr_python=None)))
    folders = [student.folder, trees.folder, mean.folder]
    assert [of_model for _, _, of_model in found] == [[folder] for folder in folders]
    assert len({name for name, _, _ in found}) == 3
    said = [ScoredRows.read(of_model) for _, _, of_model in found]
    assert said[1].over(said[0]).keys() == {"auc", "log_loss", "gauc"}
    logits = [pq.read_table(folder / "valid.parquet")["logit"].to_numpy() for folder in folders]
    np.testing.assert_allclose(logits[2], (logits[0] + logits[1]) / 2, atol=1e-6)
    assert not np.allclose(logits[0], logits[1])
    alone = Namespace(trees=False, fuxictr_python=None)
    assert [n for n, _, _ in _models(config, [1], work, alone)] == ["student"]
