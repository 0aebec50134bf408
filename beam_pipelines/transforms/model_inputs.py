"""What a trained model reads of a dataset and its side outputs, shard by shard."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from beam_pipelines.transforms.side_outputs import open_manifest
from tfctr.data.manifest import DataError
from tfctr.data.records import read_columns
from tfctr.data.typed_rows import ROW

BATCH = 8192  # rows given to the model at a time


class ModelInputs:
    """A trained model, and the rows that it reads.

    Args:
        model: path of a `.keras` file.
        data: path or URI of the dataset directory.
        side_outputs: paths or URIs of directories with more fields of the same rows.
    """

    def __init__(self, model: str, data: str, side_outputs: Sequence[str] = ()) -> None:
        import keras

        self.model = keras.models.load_model(model, compile=False)
        self.data = data
        self.layouts = {folder: open_manifest(folder)["layout"] for folder in (data, *side_outputs)}

    def read(self, shard: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The ids of a shard's rows, and the features that the model may read.

        Raises:
            DataError: a side output has other rows.
        """
        found: dict[str, np.ndarray] = {}
        schema = self.model.schema
        for folder, described in self.layouts.items():
            names = [name for name in self.model.may_read if name in described["fields"]]
            columns = read_columns(f"{folder}/{shard}", described, [ROW, *names])
            rows = columns.pop(ROW)[:, 0]
            if folder == self.data:
                found |= {n: v if schema[n].is_list else v[:, 0] for n, v in columns.items()}
                own = rows
            elif (rows != own).any():
                raise DataError(f"{folder}/{shard}: its rows are not those of {self.data}")
            else:
                found |= columns
        return own, found


def in_batches(
    compute: Callable[[dict[str, np.ndarray]], Any],
    features: dict[str, np.ndarray],
    rows: int,
    batch: int = BATCH,
) -> np.ndarray:
    """What `compute` returns for all rows, computed for `batch` of them at a time."""
    parts = [
        np.asarray(compute({name: v[start : start + batch] for name, v in features.items()}))
        for start in range(0, rows, batch)
    ]
    return np.concatenate(parts)
