"""LightGBM on what a student of the method `statistics` reads: CONFIG SEED WORK.

An outside reference for `benchmarks.students --trees`. The trees read the stored numbers of the
method `statistics`: a training row those of the tables of the other half of the users, validation
and test rows those of all. Beside them they read the backbone's features that are numbers or have
few values; so no ids of users and items. Trees need no scale.

`<WORK>/<run's name>-trees` has the trees' evaluation, and `<run's name>-and-trees` that of the mean
of their logits and the student's, both as the stage `evaluate` writes it.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.movielens.__main__ import of_seed
from tfctr.config import RunConfig, digest, load_run
from tfctr.data.manifest import read_manifest
from tfctr.frameworks.statistics.config import STORED, Statistics
from tfctr.schema import FIRST_TOKEN_ID, Categorical, MultiValued, Numeric, Schema
from tfctr.stages import Run, Stage, build
from tfctr.stages.evaluate import METRICS, write_metrics

HELD_OUT = ("valid", "test")
FEW = 128  # ids of a feature that the trees read
PARAMETERS = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 300,
    "feature_fraction": 0.3,
    "lambda_l2": 10.0,
}
NOTE = (
    "Trees: LightGBM on the numbers that the student reads, and on the profile and attributes as "
    "they are; as many trees as have the best validation AUC. Of {15, 31, 63} leaves with at least "
    "100 rows and half of the columns a tree, and 31 leaves with 300 rows and 0.3 of them, the "
    "last had the best validation AUC on MovieLens 1M (one seed, a tenth of the training rows; "
    "0.9022 to 0.9024), all with learning rate 0.05 and L2 10."
)
FIXED = {"objective": "binary", "metric": "auc", "bagging_fraction": 0.8, "bagging_freq": 1}
QUIET = {"verbosity": -1, "num_threads": 1, "deterministic": True, "force_row_wise": True}
MOST_TREES, PATIENCE = 3000, 50  # trees, at most; trees in a row without a better validation AUC


class Numbers(Stage):
    """`numbers.npz`: by split what the trees read, float32 `[N, C]`, and `<split>_labels` `[N]`,
    in the order of the dataset."""

    name = "numbers"

    def __init__(self, run: Run, method: Statistics) -> None:
        self.method = method
        self.stored = run.before[method.name]["numbers"]
        self.features = run.config.model.features
        self.folder = run.work / f"{method.tables.name}-numbers"
        self.path = self.folder / "numbers.npz"
        self.dataset = run.dataset
        self.reads = (run.dataset, self.stored)

    @property
    def made_from(self) -> Any:
        return [self.features, FEW]

    def make(self, console: Console) -> dict[str, Any]:
        from tfctr.data.dataset import Dataset

        data = Dataset.open(self.dataset.path, [self.stored.path])
        plain = plain_features(self.method, self.features, data.schema)
        found = {}
        for split in ("train", "valid", "test"):
            numbers, plain_values, labels = self._rows(data, plain, split)
            found |= {
                split: np.concatenate([numbers, *plain_values], axis=1),
                f"{split}_labels": labels,
            }
        self.folder.mkdir(parents=True, exist_ok=True)
        np.savez(self.path, **found)
        return {"categorical": categorical_columns(plain, numbers.shape[1])}

    def _rows(self, data: Any, plain: Sequence[Any], split: str) -> Any:
        """The numbers `[N, S]`, the columns of the plain features, and the labels `[N]`."""
        found = data.columns(split, [STORED, "label", *(feature.name for feature in plain)])
        return found[STORED], [*columns(plain, found)], found["label"]


def plain_features(method: Statistics, names: Sequence[str] | None, schema: Schema) -> list[Any]:
    """The features with these names, or all, that trees can read: numbers, and few values."""
    ids = (method.tables.user.name, method.tables.item.name)
    return [
        feature
        for feature in (schema.select(list(names)) if names else schema)
        if isinstance(feature, Numeric)
        or (
            isinstance(feature, Categorical | MultiValued)
            and feature.name not in ids
            and feature.num_ids <= FEW
        )
    ]


def columns(plain: Sequence[Any], features: Mapping[str, Any]) -> Iterator[np.ndarray]:
    """Of each feature: a number or an id `[B, 1]`; of a set, 0 or 1 for each token `[B, V]`."""
    for feature in plain:
        values = np.asarray(features[feature.name])
        if isinstance(feature, MultiValued):
            tokens = np.arange(FIRST_TOKEN_ID, feature.num_ids)
            yield (values[:, :, None] == tokens).any(axis=1).astype(np.float32)
        else:
            yield values[:, None].astype(np.float32)


def categorical_columns(plain: Sequence[Any], first: int) -> list[int]:
    """The columns that hold ids; those of `plain` begin at `first`."""
    found = []
    for feature in plain:
        if isinstance(feature, Categorical):
            found.append(first)
        first += feature.num_ids - FIRST_TOKEN_ID if isinstance(feature, MultiValued) else 1
    return found


class Trees(Stage):
    """`trees.txt` and its evaluation, of as many trees as have the best validation AUC."""

    name = "trees"

    def __init__(self, run: Run, numbers: Numbers, folder: str = "") -> None:
        self.seed = run.config.training.seed
        self.data = run.data_folder
        self.numbers = numbers
        self.folder = run.work / (folder or f"{run.config.name}-trees")
        self.path = self.folder / METRICS
        self.reads = (numbers,)

    @property
    def made_from(self) -> Any:
        return digest([PARAMETERS, FIXED, MOST_TREES, PATIENCE, self.seed])

    def make(self, console: Console) -> dict[str, Any]:
        import lightgbm

        from tfctr.data.dataset import Dataset

        ids = read_manifest(self.numbers.manifest_path)["categorical"]
        with np.load(self.numbers.path) as found:
            rows = dict(found)
        train = lightgbm.Dataset(
            rows.pop("train"), rows.pop("train_labels"), categorical_feature=ids
        )
        trees = lightgbm.train(
            PARAMETERS | FIXED | QUIET | {"seed": self.seed},
            train,
            MOST_TREES,
            valid_sets=[train.create_valid(rows["valid"], rows["valid_labels"])],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        trees.save_model(self.folder / "trees.txt")
        data = Dataset.open(self.data)
        write_metrics(
            data, HELD_OUT, lambda split: trees.predict(rows[split], raw_score=True), self.folder
        )
        return {"trees": trees.best_iteration}


class Mean(Stage):
    """The evaluation of the mean of a student's logits and the trees'."""

    name = "mean"

    def __init__(self, run: Run, trees: Trees) -> None:
        self.data = run.data_folder
        self.folder = run.work / f"{run.config.name}-and-trees"
        self.path = self.folder / METRICS
        self.reads = (run.evaluated, trees)

    @property
    def made_from(self) -> Any:
        return "mean of logits"

    def make(self, console: Console) -> dict[str, Any]:
        from tfctr.data.dataset import Dataset

        def mean(split: str) -> np.ndarray:
            tables = [pq.read_table(stage.folder / f"{split}.parquet") for stage in self.reads]
            return np.mean([table["logit"].to_numpy() for table in tables], axis=0)

        self.folder.mkdir(parents=True, exist_ok=True)
        write_metrics(Dataset.open(self.data), HELD_OUT, mean, self.folder)
        return {}


def references(config: RunConfig, work: Path) -> tuple[Trees, Mean]:
    """The stages of the trees, and of their mean with the student, of a run with the method."""
    run = Run(config, work, Console(quiet=True))
    trees = Trees(run, Numbers(run, config.method("statistics")))
    return trees, Mean(run, trees)


def main(path: str, seed: str, work: str) -> None:
    _, mean = references(of_seed(load_run(path), int(seed)), Path(work))
    build(mean, Console(quiet=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
