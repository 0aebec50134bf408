"""FuxiCTR's model of the same backbone, on a run's rows.

An outside reference for `benchmarks.movielens` and for `benchmarks.students`. It needs an
environment of its own, with Python 3.11; its interpreter is what `--fuxictr-python` names:

    python3.11 -m venv fuxictr
    fuxictr/bin/pip install fuxictr==2.3.10 torch==2.13.0

`<WORK>/<run's name>-fuxictr` has its evaluation, as the stage `evaluate` writes it, and the log of
its epochs. Dropout, learning rate and L2 on embeddings are those of the run.
"""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tfctr.config import RunConfig
from tfctr.schema import History
from tfctr.stages import Run, Stage
from tfctr.stages.evaluate import METRICS, write_metrics

BACKBONES = {"dcn_v2": "DCNv2", "din": "DIN"}
MODULE = "benchmarks.fuxictr_model"
LOG = "log.txt"
ROOT = Path(__file__).parents[1]


class FuxiCTR(Stage):
    """Its evaluation; the manifest has the best epoch and the number of parameters.

    Args:
        config: of a run without methods, of one of `BACKBONES`.
        work: the folder of all stages.
        python: FuxiCTR's interpreter.
    """

    name = "fuxictr"

    def __init__(self, config: RunConfig, work: Path, python: str) -> None:
        run = Run(config, work, Console(quiet=True))
        self.config = config
        self.python = python
        self.data = run.data_folder
        self.folder = work / f"{config.name}-fuxictr"
        self.path = self.folder / METRICS
        self.reads = (run.dataset,)

    @property
    def made_from(self) -> Any:
        return [self.config.model.backbone, self.values, self.config.training.seed]

    @property
    def values(self) -> list[str]:
        """Dropout, learning rate and L2."""
        optimizer = self.config.training.optimizer
        dropout = self.config.model.arguments["dropout"]
        return [str(v) for v in (dropout, optimizer.learning_rate, optimizer.embedding_l2)]

    def make(self, console: Console) -> dict[str, Any]:
        from tfctr.data.dataset import Dataset

        data = Dataset.open(self.data)
        self.folder.mkdir(parents=True, exist_ok=True)
        rows, out = self.folder / "rows.npz", self.folder / "logits.npz"
        write_rows(data, self.config.model.features, rows)
        seed = str(self.config.training.seed)
        given = [self.config.model.backbone, str(rows), seed, str(out), *self.values]
        command = [self.python, "-m", MODULE, *given]
        with (self.folder / LOG).open("w") as log:
            done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log)
        if done.returncode:
            said = (self.folder / LOG).read_text()
            raise RuntimeError(f"FuxiCTR, {self.config.name}: {said[-2000:]}")
        rows.unlink()
        with np.load(out) as found:
            write_metrics(data, ("valid", "test"), lambda split: found[split], self.folder)
            return {name: int(found[name]) for name in ("best_epoch", "parameters")}


def write_rows(data: Any, names: Any, path: Path) -> None:
    """Ids, labels and sizes of a dataset, and whose vectors a history shares."""
    features = data.schema.select(list(names)).inputs if names else data.schema.inputs
    arrays = {
        f"{split}_{name}": values
        for split in ("train", "valid", "test")
        for name, values in data.columns(split, [*(f.name for f in features), "label"]).items()
    }
    sizes = {f"size_{feature.name}": feature.num_ids for feature in features}
    shares = {f"shares_{f.name}": f.vocabulary for f in features if isinstance(f, History)}
    np.savez(path, **arrays, **sizes, **shares)
