"""The stage before the student: how many training rows each id has."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tfctr.schema import FIRST_TOKEN_ID
from tfctr.stages import Prepare, Stage


class RowsOfIds(Stage):
    """`rows.npy`: int64 `[ids]`, the training rows of each id of a feature; 0 for ids that stand
    for no token."""

    name = "rows"
    is_data = True

    def __init__(self, feature: str, dataset: Prepare, work: Path) -> None:
        self.feature = feature
        self.dataset = dataset
        self.folder = work / f"{dataset.config.name}-rows-of-{feature}"
        self.path = self.folder / "rows.npy"
        self.reads = (dataset,)

    @property
    def made_from(self) -> Any:
        return self.feature

    def load(self, num_ids: int) -> np.ndarray:
        """The numbers of rows; 0 for ids that entered the vocabulary after they were counted."""
        found: np.ndarray = np.load(self.path)
        return np.pad(found, (0, num_ids - len(found)))

    def make(self, console: Console) -> dict[str, Any]:
        from tfctr.data.dataset import Dataset

        data = Dataset.open(self.dataset.path)
        number = data.schema[self.feature].num_ids
        rows = np.bincount(data.columns("train", [self.feature])[self.feature], minlength=number)
        rows[:FIRST_TOKEN_ID] = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(self.path, rows)
        without = int((rows[FIRST_TOKEN_ID:] == 0).sum())
        console.print(
            f"[bold]rows[/] of {self.feature}: {without:,} of {number - FIRST_TOKEN_ID:,} tokens "
            "have no training row",
            highlight=False,
        )
        return {"without": without}
