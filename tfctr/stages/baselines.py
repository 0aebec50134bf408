"""The stage that measures what every model of a dataset must beat."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tfctr.data.manifest import read_manifest, write_manifest
from tfctr.stages.prepare import Prepare
from tfctr.stages.stage import Stage

SAMPLE = 1_000_000  # training rows, about, that they are fitted on
SHOWN = {"auc": "AUC", "gauc": "GAUC", "log_loss": "log loss"}


class Baselines(Stage):
    """`baselines.json`, in `<work>/<data's name>-baselines`: for validation and test AUC, GAUC if
    the data has users, and log loss of the base rate, of the items' click rates if it has items,
    and of a logistic regression on all features but histories."""

    name = "baselines"
    manifest_name = "manifest.json"

    def __init__(self, dataset: Prepare, work: Path) -> None:
        self.dataset = dataset
        self.folder = work / f"{dataset.config.name}-baselines"
        self.path = self.folder / "baselines.json"
        self.reads = (dataset,)

    @property
    def made_from(self) -> Any:
        return SAMPLE

    def make(self, console: Console) -> dict[str, Any]:
        from tfctr.comparison.baselines import (
            base_rate,
            design,
            logistic_regression,
            popularity,
            read_by_regression,
        )
        from tfctr.data.dataset import Dataset

        console.print(f"[bold]baselines[/] -> {self.path}", soft_wrap=True)
        data = Dataset.open(self.dataset.path)
        config, schema = self.dataset.config, data.schema
        read, item = read_by_regression(schema), config.item
        step = max(1, -(-data.num_rows("train") // SAMPLE))  # shards from all of its time
        train = data.columns("train", [*read, "label"], slice(None, None, step))
        clicks = train["label"].astype(np.float64)
        share = base_rate(clicks)
        rates = weights = None
        if item is not None and item in read:
            rates = popularity(train[item], clicks, schema[item].num_ids)
        if read:
            weights = logistic_regression(design(schema, train), clicks)
        kept = ["label", *(["user_key"] if config.user else [])]

        def score(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            logits = {"base rate": np.full(len(columns["label"]), share)}
            if item is not None and rates is not None:
                logits["item popularity"] = rates[columns[item]]
            if weights is not None:
                features = design(schema, columns)
                logits["logistic regression"] = features @ weights[:-1] + weights[-1]
            return logits | {name: columns[name] for name in kept}

        found: dict[str, Any] = {}
        rows = {}
        for split in ("valid", "test"):
            if not data.num_rows(split):
                continue
            shards = len(data.manifest["splits"][split]["shards"])
            parts = [
                score(data.columns(split, [*read, *kept], slice(i, i + 1))) for i in range(shards)
            ]
            whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            labels, users = whole.pop("label"), whole.pop("user_key", None)
            found[split] = {name: _measured(labels, v, users) for name, v in whole.items()}
            rows[split] = len(labels)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_manifest(found, str(self.path))
        return {"rows": rows}

    def print_beside(self, measured: Mapping[str, Any], console: Console) -> None:
        """Prints a model's metrics of its last split beside those of the baselines, and warns where
        it is below.

        Args:
            measured: the model's `metrics.json`.
            console: to print to.
        """
        found = read_manifest(self.path) or {}
        split = next(
            (name for name in ("test", "valid") if name in found and name in measured), None
        )
        if split is None:
            return
        names = [name for name in SHOWN if measured[split].get(name) is not None]
        table = Table(box=None, pad_edge=False)
        table.add_column(f"beside it, {split}")
        for name in names:
            table.add_column(SHOWN[name], justify="right")
        for baseline, numbers in found[split].items():
            table.add_row(baseline, *(_shown(numbers.get(name)) for name in names))
        console.print(table)
        for baseline, numbers in found[split].items():
            ours, theirs = measured[split]["auc"], numbers["auc"]
            if None not in (ours, theirs) and ours < theirs:
                console.print(
                    f"[yellow]warning:[/] {split}: AUC {ours:.4f} is below that of "
                    f"{baseline}, {theirs:.4f}; try more training.epochs, another "
                    "training.optimizer.learning_rate, or another training.optimizer.embedding_l2",
                    soft_wrap=True,
                )


def _measured(
    labels: np.ndarray, logits: np.ndarray, users: np.ndarray | None
) -> dict[str, float | None]:
    from tfctr import metrics

    found = {"auc": metrics.auc(labels, logits), "log_loss": metrics.log_loss(labels, logits)}
    if users is not None:
        found["gauc"] = metrics.gauc(labels, logits, users)
    return {name: None if np.isnan(value) else float(value) for name, value in found.items()}


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
