"""The stage that writes a model's probabilities beside the ids of the log."""

import shutil
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from tfctr.data import files
from tfctr.data.clean import LABEL, TIME
from tfctr.data.raw_rows import raw_ids
from tfctr.data.typed_rows import ROW
from tfctr.stages.evaluate import Evaluate
from tfctr.stages.stage import Stage


class Predictions(Stage):
    """`predictions/<split>.parquet`, the rows of each held-out split, in the dataset's order.

    Columns: `row_id` (the place in the log), `time` if the data has one, `user` and `item` if the
    data has these keys, as they are in the log (string or int64), `label` and `probability`.

    The dataset holds ids of a vocabulary, so users and items are read from the log again.

    Raises:
        ConfigError: a file of the log is no longer there.
        DataError: the log has changed.
    """

    name = "predictions"

    def __init__(self, evaluated: Evaluate) -> None:
        self.trained = evaluated.trained
        self.folder = evaluated.folder
        self.path = self.folder / "predictions"
        self.reads = (evaluated,)

    @property
    def made_from(self) -> Any:
        return "ids of the log"

    def make(self, console: Console) -> dict[str, Any]:
        # The client image has no SciPy, and its commands import the stages.
        from scipy.special import expit

        console.print(f"[bold]predictions[/] -> {self.path}", soft_wrap=True)
        self.manifest_path.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)  # a split of another config
        data, config = self.trained.open_data(), self.trained.config.data
        rows = {
            split: data.num_rows(split) for split in self.trained.held_out if data.num_rows(split)
        }
        for split in rows:
            names = [ROW, *([TIME] if config.time else [])]
            columns: dict[str, Any] = data.columns(split, names)
            columns |= raw_ids(config, data, split)
            with files.open_to_read(str(self.folder / f"{split}.parquet")) as file:
                evaluated = pq.read_table(file, columns=[LABEL, "logit"])
            columns[LABEL] = evaluated[LABEL].to_numpy().astype(np.int8)
            logits = evaluated["logit"].to_numpy().astype(np.float64)
            columns["probability"] = expit(logits).astype(np.float32)
            files.write_parquet(str(self.path / f"{split}.parquet"), columns)
        return {"rows": rows}
