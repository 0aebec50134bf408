"""What the models of one or more seeds say of held-out rows."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from tfctr import metrics
from tfctr.config import ConfigError

OF_ROWS = ("label", "user_key", "logit")  # the other columns are segments
HEAVY = "heavy_users"
HEAVY_SHARE = 0.25  # of the test rows, which the users with most of them have together


class ScoredRows(NamedTuple):
    """The rows of a held-out split, as the stage `evaluate` writes them.

    Attributes:
        labels: `[N]`.
        users: `[N]`, or None where the data has no user.
        logits: `[seeds, N]`.
        segments: bool `[N]` by name.
    """

    labels: np.ndarray
    users: np.ndarray | None
    logits: np.ndarray
    segments: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, folders: Iterable[Path], split: str = "test") -> "ScoredRows":
        """Of runs' folders, one a seed.

        Raises:
            ConfigError: a run has no rows of the split.
        """
        paths = [folder / f"{split}.parquet" for folder in folders]
        for path in paths:
            if not path.exists():
                raise ConfigError(f"{path.parent}: its data have no {split} rows to compare")
        tables = [pq.read_table(path) for path in paths]
        first = tables[0]
        users = first["user_key"].to_numpy() if "user_key" in first.column_names else None
        segments = {n: first[n].to_numpy() for n in first.column_names if n not in OF_ROWS}
        if users is not None:
            segments[HEAVY] = _heavy(users)
        logits = np.stack([table["logit"].to_numpy() for table in tables])
        return cls(first["label"].to_numpy(), users, logits, segments)

    def of_segment(self, name: str) -> "ScoredRows":
        """The rows of a segment."""
        rows = self.segments[name]
        users = None if self.users is None else self.users[rows]
        return ScoredRows(self.labels[rows], users, self.logits[:, rows], {})

    def over(self, other: "ScoredRows") -> dict[str, metrics.Difference]:
        """By how much these are better.

        Raises:
            ConfigError: they are of other rows.
        """
        pairs = [(self.labels, other.labels)]
        if self.users is not None and other.users is not None:
            pairs.append((self.users, other.users))
        if not all(np.array_equal(mine, theirs) for mine, theirs in pairs):
            raise ConfigError("other test rows than those that they are compared to")
        return metrics.paired_difference(self.labels, self.logits, other.logits, self.users)


def _heavy(users: np.ndarray) -> np.ndarray:
    """The rows of the users with most rows, who have `HEAVY_SHARE` of all together, at most."""
    _, places, counts = np.unique(users, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    heavy = order[np.cumsum(counts[order]) <= HEAVY_SHARE * len(users)]
    return np.isin(places, heavy)
