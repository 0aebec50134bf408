"""The stage that calibrates a trained model on the validation rows."""

from typing import Any

import numpy as np
from rich.console import Console

from tfctr.config import digest
from tfctr.config.calibration import Calibration
from tfctr.data.manifest import DataError, read_manifest, write_manifest
from tfctr.stages.stage import Stage
from tfctr.stages.train import Train


class Calibrate(Stage):
    """`calibration.json`: the maps, the first one of all rows, and the number of the map of each id
    whose token has one of its own.

    A token has its own map if it has `least_rows` validation rows, clicks and others among them.
    Every other one, and ids that stand for no token, have the map of all rows. If these have one
    class only, nothing is calibrated, and the console says so.

    Raises:
        DataError: from `make`, there are no validation rows.
    """

    name = "calibrate"

    def __init__(self, trained: Train, config: Calibration) -> None:
        self.trained = trained
        self.config = config
        self.folder = trained.folder
        self.path = self.folder / "calibration.json"
        self.reads = (trained,)

    @property
    def made_from(self) -> Any:
        return digest(self.config)

    def make(self, console: Console) -> dict[str, Any]:
        from tfctr.models.calibration import IDENTITY, fit
        from tfctr.stages.evaluate import predict_split

        config = self.config
        console.print(f"[bold]calibrate[/] {config.method} -> {self.path}", soft_wrap=True)
        data = self.trained.open_data()
        if not data.num_rows("valid"):
            raise DataError(
                f"{self.trained.dataset.path}: no validation rows, which calibration is fitted on; "
                "give split.valid, or leave calibration out"
            )
        logits = predict_split(self.trained.load(), data, "valid", console)
        names = ["label", *([config.by] if config.by else [])]
        columns = data.columns("valid", names)
        labels, ids = columns["label"], columns[config.by] if config.by else None
        maps, map_of_id = fit(config.method, logits, labels, ids, config.least_rows)
        if maps[0] is IDENTITY:
            console.print(
                "[yellow]warning:[/] all validation rows are of one class: nothing is calibrated"
            )
        if config.by:
            console.print(
                f"{len(map_of_id):,} tokens of {config.by} have a map of their own", highlight=False
            )
        found = {
            "maps": [{"x": m.x.tolist(), "y": m.y.tolist(), "slope": m.slope} for m in maps],
            "map_of_id": [*map_of_id.items()],
        }
        write_manifest(found, str(self.path))
        return {"of": self._model(), "rows": len(labels), "maps": len(maps)}

    def _model(self) -> list[Any]:
        """What the maps are fitted for: their config, and the model as it is now."""
        return [self.made_from, (read_manifest(self.trained.manifest_path) or {}).get("key")]

    def refuse_unfitted(self) -> None:
        """Checks that the maps are there, of this config and of this model.

        Raises:
            DataError: they are not.
        """
        about = read_manifest(self.manifest_path)
        if not self.path.is_file() or about is None or about.get("of") != self._model():
            raise DataError(f"{self.path}: not there as configured; run `tfctr evaluate` first")

    def wrap(self, model: Any) -> Any:
        """The model with the maps; errors as for `refuse_unfitted`."""
        from tfctr.models.calibrated import Calibrated
        from tfctr.models.calibration import Map

        self.refuse_unfitted()
        found: Any = read_manifest(self.path)
        maps = [Map(np.array(m["x"]), np.array(m["y"]), m["slope"]) for m in found["maps"]]
        made = Calibrated(model, len(maps), max(len(m.x) for m in maps), self.config.by)
        made.build()
        of_ids = None
        if self.config.by is not None:
            of_ids = np.zeros(made.schema[self.config.by].num_ids, np.int32)
            for id_, number in found["map_of_id"]:
                of_ids[id_] = number
        made.set_maps(maps, of_ids)
        return made
